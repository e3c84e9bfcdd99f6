"""The notebook of the course: run in a real kernel at its real speed, it prints what is stored in it.

To store new outputs: ``jupyter execute --inplace examples/course.ipynb`` (jupyter-execute comes with nbclient).
"""

from __future__ import annotations

import ast
import asyncio
import copy
import json
import re
import sys

import pytest

from tests.helpers import ROOT, run_python

pytestmark = pytest.mark.whole

NOTEBOOK = ROOT / "examples/course.ipynb"
SQUARES = "1 4 9 16 25 36 49 64 81"
TIMES = {"two-named-threads": 3, "two-subclasses": 5, "one-after-another": 4.5, "a-pool-of-three": 1.5}


@pytest.fixture
def stored():
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(NOTEBOOK, as_version=4)


def text_of(notebook, name):
    """What a cell has printed; nothing may have come in another way, an error, say."""
    (cell,) = [cell for cell in notebook.cells if cell.id == name]
    assert {(output.output_type, output.name) for output in cell.outputs} == {("stream", "stdout")}
    return "".join(output.text for output in cell.outputs)


def seconds_of(notebook, name):
    return float(re.search(r"^(\d+\.\d\d) s\n\Z", text_of(notebook, name), flags=re.MULTILINE)[1])


def normal(text):
    """Without what differs from run to run: process ids and times."""
    return re.sub(r"\d+\.\d\d s\n\Z", "# s\n", re.sub(r"process \d+", "process #", text))


def is_mixed(text, one, other):
    """Whether the text is made of all of one and all of the other, each in its order."""
    taken = {0}  # of the one
    for place, character in enumerate(text):
        taken = {n + 1 for n in taken if one[n : n + 1] == character} | {
            n for n in taken if other[place - n : place - n + 1] == character
        }
    return len(text) == len(one) + len(other) and len(one) in taken


def test_is_mixed():
    assert is_mixed("AB11A2", "A1A2", "B1")
    assert not is_mixed("AB1A2", "A1A2", "B1")
    assert not is_mixed("A1A2B2", "A1A2", "B1")


def check_outputs(notebook):
    """All that holds for any run, whether the machine is quiet or not."""
    assert normal(text_of(notebook, "two-named-threads")) == (
        "Task 2: T2 of process #\nTask 1: T1 of process #\nMain: MainThread of process #\n# s\n"
    )
    assert len(set(re.findall(r"process (\d+)", text_of(notebook, "two-named-threads")))) == 1

    # print writes each argument and the line end apart, so lines of the same instant may be mixed: but what each thread has written is in order.
    told = "".join(text_of(notebook, "two-subclasses").partition("A and B")[0].split())
    assert is_mixed(told, "A1A2A3A4A5", "B1B2B3B4B5"), told
    assert told.index("A") < told.index("B") < told.rindex("A"), "they do not interleave"
    assert normal(text_of(notebook, "two-subclasses")).endswith("A and B are complete\n# s\n")

    for name in ("one-after-another", "a-pool-of-three"):
        assert normal(text_of(notebook, name)) == f"{SQUARES}\n# s\n"

    for name, least in TIMES.items():
        assert seconds_of(notebook, name) >= least
    assert seconds_of(notebook, "a-pool-of-three") < seconds_of(notebook, "one-after-another")


def execute(notebook, folder):
    """Run all cells in a kernel of this Python, which is told of in `folder` only; leave nothing of it."""
    kernel = folder / "kernels/this-python"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "this Python", "language": "python"}))

    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    async def run():
        manager = AsyncKernelManager(
            kernel_name="this-python",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(kernel.parent)], ensure_native_kernel=False),
        )
        client = NotebookClient(notebook, km=manager, timeout=50, record_timing=False, coalesce_streams=True)
        client.resources = {"metadata": {"path": str(folder)}}
        await client.async_execute(cleanup_kc=True)  # kernel, channels, contexts: also after an error

    asyncio.run(run())


def test_a_real_kernel_prints_what_is_stored(stored, tmp_path, monkeypatch):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):  # nothing of this user's
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    executed = copy.deepcopy(stored)
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    execute(executed, tmp_path)
    check_outputs(executed)
    for cell in executed.cells:
        if cell.cell_type == "code" and cell.id not in ("imports", "two-subclasses"):
            assert normal(text_of(executed, cell.id)) == normal(text_of(stored, cell.id))


def test_the_stored_outputs_are_those_of_a_quiet_machine(stored):
    check_outputs(stored)
    for name, least in TIMES.items():
        assert seconds_of(stored, name) <= 1.05 * least
    assert [cell.execution_count for cell in stored.cells if cell.cell_type == "code"] == [1, 2, 3, 4, 5]


def test_the_notebook_is_a_valid_one_of_format_4_5(stored):
    import nbformat

    assert (stored.nbformat, stored.nbformat_minor) == (4, 5)
    nbformat.validate(stored)
    assert stored.metadata.kernelspec.name == "python3"


class TestOnlyTheImportOfThePoolIsAbreasts:
    @pytest.fixture
    def code(self, stored):
        return "\n".join(cell.source for cell in stored.cells if cell.cell_type == "code")

    @pytest.fixture
    def standard(self, code):
        """The same code with the standard library's pool."""
        changed, times = re.subn(r"^from abreast import ThreadPoolExecutor\b.*$", "from concurrent.futures import ThreadPoolExecutor", code, flags=re.MULTILINE)  # fmt: skip
        assert times == 1
        return changed

    def test_no_other_name_of_abreast_is_used(self, code, standard):
        assert code.count("abreast") == 1
        assert "abreast" not in standard

    def test_what_is_imported(self, code):
        imports = [ast.unparse(node) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert imports == ["import os", "import threading", "import time", "from abreast import ThreadPoolExecutor"]

    def test_the_standard_librarys_pool_does_the_same(self, standard):
        """Run as a script, every sleep a tenth as long."""
        faster = "import time\nsleep = time.sleep\ntime.sleep = lambda seconds: sleep(seconds / 10)\n"
        done = run_python(faster + standard)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count(f"{SQUARES}\n") == 2
