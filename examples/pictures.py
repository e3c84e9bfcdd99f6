"""Small versions of 48 pictures of 1600 x 1200: side by side, then one after another. The files must be equal byte by byte.

    python examples/pictures.py

It needs Pillow, which lets other threads run while it decodes, scales and encodes: as many as there are cores. All files are in a
temporary folder, which is gone at the end.
"""

from __future__ import annotations

import argparse
import filecmp
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import abreast

try:
    from PIL import Image
except ImportError:
    print('pictures.py needs Pillow: python -m pip install "Pillow>=10"', file=sys.stderr)
    sys.exit(2)

PICTURES = 48
SIZE = (1600, 1200)


def draw(folder: Path, number: int) -> Path:
    """Write picture `number`, the same each time: two gradients, and noise."""
    noise = Image.frombytes("L", (400, 300), random.Random(number).randbytes(400 * 300))  # noqa: S311  # no secret
    gradient = Image.linear_gradient("L").rotate(360 * number / PICTURES)
    bands = [band.resize(SIZE) for band in (gradient, Image.radial_gradient("L"), noise)]
    path = folder / f"picture {number:02}.jpg"
    Image.merge("RGB", bands).save(path)
    return path


def make_small(folder: Path, path: Path) -> Path:
    """Write a small version of a picture, at most 256 pixels wide and high, into `folder`."""
    with Image.open(path) as picture:
        picture.thumbnail((256, 256))
        picture.save(folder / path.name)
    return folder / path.name


def one_after_another(folder: Path, paths: list[Path]) -> list[Path]:
    return [make_small(folder, path) for path in paths]


def different(folder: Path, other: Path) -> list[str]:
    """The names of the files that are not in both folders, the same byte by byte."""
    names = {path.name for path in (*folder.iterdir(), *other.iterdir())}
    _, unequal, missing = filecmp.cmpfiles(folder, other, names, shallow=False)
    return sorted(unequal + missing)


def run(folder: Path, executor: abreast.ThreadPoolExecutor) -> int:
    originals, small, expected = folder / "originals", folder / "small", folder / "expected"
    for new in (originals, small, expected):
        new.mkdir()
    paths = abreast.map(partial(draw, originals), range(PICTURES), executor=executor)
    print(f"{len(paths)} pictures of {SIZE[0]} x {SIZE[1]}, {sum(path.stat().st_size for path in paths):,} bytes")

    begun = time.perf_counter()
    results = abreast.map(partial(make_small, small), paths, executor=executor)
    side_by_side = time.perf_counter() - begun
    print(f"abreast.map        {side_by_side:6.2f} s")

    begun = time.perf_counter()
    one_after_another(expected, paths)
    serial = time.perf_counter() - begun
    print(f"one after another  {serial:6.2f} s")
    print(f"speed-up           {serial / side_by_side:6.2f}")

    wrong = different(small, expected)
    if wrong or [path.name for path in results] != [path.name for path in paths]:
        print(f"FAILED: these files differ: {', '.join(wrong)}" if wrong else "FAILED: the order differs")
        return 1
    print(f"equal: all {len(results)} files, byte by byte")
    return 0


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory(prefix="pictures-") as folder:
        executor = abreast.ThreadPoolExecutor(thread_name_prefix="pictures")
        try:
            return run(Path(folder), executor)
        finally:
            # Waits, after Ctrl-C too, which a with block would not: nobody may still write into the folder when it is removed.
            executor.shutdown()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
