"""The examples with real input: run as a user runs them. What is wrong is said, and nothing is left behind."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.whole

EXAMPLES = ROOT / "examples"
PROC = Path("/proc")

ALL = ("checksums.py", "pages.py", "pictures.py", "compress.py", "compile_library.py", "scraper.py", "resumed.py")
"""In the order in which ``python examples`` runs them."""

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="processes run on Linux only so far")
needs_proc = pytest.mark.skipif(not (PROC / "self/stat").exists(), reason="reads /proc")


@pytest.fixture(autouse=True)
def temporary_files(tmp_path, monkeypatch):
    """Where the examples put temporary files: empty again at the end of every test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def run(*arguments, **more):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=55, **more)


def run_changed(code):
    """Run code that imports an example, as a script beside it would."""
    return run("-c", textwrap.dedent(code), cwd=EXAMPLES)


def seconds(line, stdout):
    return float(re.search(rf"^{line} +≈? *(\d+\.\d\d) s", stdout, flags=re.MULTILINE)[1])


def check_times(stdout, side_by_side):
    """The speed-up is the quotient of the times, which are rounded to 0.01 s."""
    ours, serial = seconds(side_by_side, stdout), seconds("one after another", stdout)
    told = float(re.search(r"^speed-up +≈? *(\d+\.\d\d)$", stdout, flags=re.MULTILINE)[1])
    assert (serial - 0.01) / (ours + 0.01) - 0.01 <= told <= (serial + 0.01) / max(ours - 0.01, 0.001) + 0.01


def check_checksums(stdout):
    files, size = re.search(r"^([\d,]+) files, ([\d,]+) bytes, in /", stdout, flags=re.MULTILINE).groups()
    assert int(files.replace(",", "")) > 500
    assert int(size.replace(",", "")) > 5_000_000
    check_times(stdout, "abreast.map")
    assert "equal: all checksums, in the same order\n" in stdout


def check_pages(stdout):
    assert re.search(r"^2,000 pages from http://127.0.0.1:\d+/$", stdout, flags=re.MULTILINE)
    check_times(stdout, "abreast.map, 64 at once")
    assert re.search(r"^one after another +≈ +\d+\.\d\d s, from 100 pages$", stdout, flags=re.MULTILINE)
    assert seconds("one after another", stdout) > 2_000 * 0.005
    assert seconds("abreast.map, 64 at once", stdout) < seconds("one after another", stdout)
    assert "equal: all 2,000 pages are what they must be, and 100 fetched again are the same\n" in stdout


def check_pictures(stdout):
    assert re.search(r"^48 pictures of 1600 x 1200, [\d,]{9,} bytes$", stdout, flags=re.MULTILINE)
    check_times(stdout, "abreast.map")
    assert "equal: all 48 files, byte by byte\n" in stdout


def check_processes(stdout):
    """Each speed-up is the quotient of the times, which are rounded to 0.01 s."""
    assert re.search(r"^[\d,]+ files, [\d,]{9,} bytes, in /", stdout, flags=re.MULTILINE)
    serial = seconds("one after another", stdout)
    for how in ("threads", "processes"):
        ours, told = map(float, re.search(rf"^{how} +(\d+\.\d\d) s +speed-up +(\d+\.\d\d)$", stdout, flags=re.MULTILINE).groups())
        assert (serial - 0.01) / (ours + 0.01) - 0.01 <= told <= (serial + 0.01) / max(ours - 0.01, 0.001) + 0.01


def check_compress(stdout):
    check_processes(stdout)
    size = int(re.search(r" files, ([\d,]+) bytes", stdout)[1].replace(",", ""))
    less = int(
        re.search(r"^equal: all [\d,]+ files come back, and take ([\d,]+) bytes", stdout, flags=re.MULTILINE)[1].replace(",", "")
    )
    assert size / 10 < less < size / 2


def check_compile_library(stdout):
    check_processes(stdout)
    files = int(re.search(r"^([\d,]+) files, ", stdout)[1].replace(",", ""))
    compiled = int(re.search(r"^equal: the bytecode of all ([\d,]+) files", stdout, flags=re.MULTILINE)[1].replace(",", ""))
    assert 300 < compiled <= files < compiled + 30


def check_scraper(stdout, runs=("threads", "processes")):
    assert re.search(r"^160 pages from http://127.0.0.1:\d+/, at most 100 requests per second$", stdout, flags=re.MULTILINE)
    for run in runs:
        told = re.search(
            rf"^{run} +(\d+\.\d\d) s   (\d+) attempts at 160 pages(?:; (\d+) died with their process)?\n"
            r" +503: (\d+), stalled: (\d+), reset: (\d+), told to wait: (\d+)\n"
            r" +came too early: 0, at most in a second: (\d+)$",
            stdout,
            flags=re.MULTILINE,
        )
        seconds, attempts, died, *troubles, most = (float(figure or 0) for figure in told.groups())
        assert min(troubles) >= 5
        assert attempts >= 160 + sum(troubles) + died
        assert seconds >= (attempts - 1) / 100 - 0.05
        assert most <= 125  # 103 start at most in any second; on their way they may come closer together
        assert (died >= 3) == (run == "processes")
    assert "equal: all 160 pages are what they must be\n" in stdout


def check_resumed(stdout):
    assert "400 tasks of 10 ms, 4 at once, killed 10 times\n" in stdout
    lines = re.findall(r"^ *(\d+|none) +(\d+) +(\d+) of 400$", stdout, flags=re.MULTILINE)
    assert [line[0] for line in lines] == [*map(str, range(1, 11)), "none"]
    recorded = [int(line[2]) for line in lines]
    assert recorded == sorted(recorded)
    assert recorded[0] > 0
    assert recorded[-1] == 400
    begun = sum(int(line[1]) for line in lines)
    twice = int(re.search(r"^ran more than once, .*: (\d+); recorded, and run again: 0$", stdout, flags=re.MULTILINE)[1])
    assert twice <= begun - 400 <= 10 * 4 * 3  # what was under way: running, and done and not yet recorded
    assert "equal: all 400 results are what they must be\n" in stdout


@pytest.mark.slow  # the first command of the README runs them all, in test_documents.py
def test_all_of_them_one_after_another():
    pytest.importorskip("PIL")
    done = run("examples", cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    titles, parts = (
        re.findall(r"^--- (.*)$", done.stdout, flags=re.MULTILINE),
        re.split(r"^--- .*\n", done.stdout, flags=re.MULTILINE),
    )
    assert titles == ["checksums", "pages", "pictures", "compress", "compile_library", "scraper", "resumed"]
    check_checksums(parts[1])
    check_pages(parts[2])
    check_pictures(parts[3])
    check_compress(parts[4])
    check_compile_library(parts[5])
    check_scraper(parts[6])
    check_resumed(parts[7])
    assert "FAILED" not in done.stdout


def test_checksums_by_itself():
    done = run("examples/checksums.py", cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    check_checksums(done.stdout)


def test_pages_by_itself_where_there_is_no_such_sign(tmp_path):
    """Called by its path from anywhere; standard output is ASCII."""
    done = run(str(EXAMPLES / "pages.py"), cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    check_pages(done.stdout.replace("?", "≈"))


def test_all_pages_one_after_another():
    """With fewer pages than there are: nothing is estimated then."""
    done = run_changed("""
        import sys, pages
        pages.PAGES, sys.argv[1:] = 60, ["--all"]
        sys.exit(pages.main())
    """)
    assert (done.returncode, done.stderr) == (0, "")
    check_times(done.stdout, "abreast.map, 64 at once")
    assert "≈" not in done.stdout
    assert "from 60 pages" not in done.stdout
    assert "equal: all 60 pages are what they must be, and 60 fetched again are the same\n" in done.stdout


def test_pictures_by_itself():
    pytest.importorskip("PIL")
    done = run("examples/pictures.py", cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    check_pictures(done.stdout)


@pytest.mark.slow
@needs_linux
def test_scraper_by_itself(tmp_path):
    """Called by its path from anywhere."""
    done = run(str(EXAMPLES / "scraper.py"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    check_scraper(done.stdout)


def test_resumed_by_itself(tmp_path):
    """Called by its path from anywhere."""
    done = run(str(EXAMPLES / "resumed.py"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    check_resumed(done.stdout)


@pytest.mark.slow
@needs_linux
def test_scraper_where_no_processes_run():
    done = run_changed("""
        import sys, scraper
        sys.platform = "plan9"
        sys.exit(scraper.main())
    """)
    assert (done.returncode, done.stderr) == (0, "")
    check_scraper(done.stdout, ["threads"])
    assert "processes" not in done.stdout


@pytest.mark.slow
def test_scraper_that_is_impolite_says_so():
    """Without an ear for Retry-After, pages that are missing or wrong."""
    done = run_changed("""
        import sys, scraper, abreast
        sys.platform = "plan9"
        scraper.Refused.retry_after = property(lambda self: None, lambda self, value: None)
        sys.exit(scraper.main())
    """)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith("FAILED: the server was asked again before its Retry-After was over\n")
    done = run_changed("""
        import sys, scraper, abreast
        sys.platform = "plan9"
        scraper.POLITELY = abreast.Retry(0)
        sys.exit(scraper.main())
    """)
    assert (done.returncode, done.stderr) == (1, "")
    assert re.search(r"^FAILED: \d+ of 160 pages are not what they must be$", done.stdout, flags=re.MULTILINE)


@needs_linux
def test_its_server_under_the_bounds_of_a_run():
    """`max_failures` and `timeout`, on threads and in processes; the scraper itself has the other policies."""
    done = run_changed("""
        import abreast, scraper, time
        from functools import partial
        with scraper.running_server() as port:
            for kind in ("thread", "process"):
                fetch, outcomes = partial(scraper.fetch, port), []
                try:
                    outcomes.extend(abreast.outcomes(fetch, range(160), max_failures=5, max_workers=4, kind=kind, task_timeout=0.5))
                except abreast.TooManyFailures as error:
                    print(kind, error.failures, isinstance(error.__cause__, (ConnectionError, abreast.TaskTimeout)))
                begun = time.monotonic()
                outcomes = list(abreast.outcomes(fetch, range(160), timeout=1, max_per_second=20, max_workers=4, kind=kind, task_timeout=0.5))
                late = time.monotonic() - begun - 1
                ended = sum(not outcome.cancelled for outcome in outcomes)
                print(len(outcomes), 1 <= ended <= 21, late < 0.5 or late)  # a busy machine does few
    """)
    assert done.stderr == ""
    threads, timed, processes, timed_too = map(str.split, done.stdout.splitlines())
    assert threads[:2] == ["thread", "6"]
    assert processes[0] == "process"
    assert int(processes[1]) >= 6  # batches that are at work in other processes are not told
    assert threads[2] == processes[2] == "True"
    assert timed == timed_too == ["160", "True", "True"]


@pytest.mark.slow
@needs_linux
def test_compress_by_itself():
    done = run("examples/compress.py", cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    check_compress(done.stdout)


@pytest.mark.slow
@needs_linux
def test_compile_library_by_itself(tmp_path):
    """Called by its path from anywhere."""
    done = run(str(EXAMPLES / "compile_library.py"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    check_compile_library(done.stdout)


@pytest.mark.slow
@needs_linux
def test_all_modules_are_more():
    """With every 20th of them. Some are no Python, on purpose: those count as equal, and not as compiled."""
    done = run_changed("""
        import sys, compile_library
        find = compile_library.find_modules
        some, every = find(tests=False), find(tests=True)
        assert set(some) < set(every)
        assert not [path for path in some if "/test/" in path or "/tests/" in path]
        bad = [path for path in every if compile_library.bytecode(path) is None]
        assert bad, "nothing to tell from"
        compile_library.find_modules = lambda tests: [*some[::20], bad[0]] if tests else []
        sys.argv[1:] = ["--all"]
        sys.exit(compile_library.main())
    """)
    assert (done.returncode, done.stderr) == (0, "")
    files = int(re.match(r"(\d+) files", done.stdout)[1])
    assert f"equal: the bytecode of all {files - 1} files that are Python, " in done.stdout


@pytest.mark.parametrize("name", ["compress.py", "compile_library.py"])
def test_where_no_processes_run_it_is_said(name):
    done = run_changed(f"""
        import sys, {name[:-3]} as example
        sys.platform = "plan9"
        sys.exit(example.main())
    """)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{name} needs Linux: processes run there only so far\n"


@pytest.mark.parametrize("name", ["", *ALL])
def test_help(name):
    if name == "pictures.py":
        pytest.importorskip("PIL")
    done = run(EXAMPLES / name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python examples/{name}".rstrip("/") in done.stdout
    if not name:
        for each in (*ALL, "course.ipynb"):
            assert each in done.stdout
            assert (EXAMPLES / each).exists()


@pytest.mark.parametrize("name", ["", *ALL])
def test_an_unknown_option_is_refused(name):
    if name == "pictures.py":
        pytest.importorskip("PIL")
    done = run(EXAMPLES / name, "--fast")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unrecognized arguments: --fast" in done.stderr


def test_checksums_are_right_on_the_command_line():
    names = sorted(str(path) for path in EXAMPLES.iterdir() if path.is_file())
    done = run("-m", "abreast", "map", "checksums:sha256", input="\n".join(names) + "\n", cwd=EXAMPLES)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in names]  # fmt: skip


class TestWrongResults:
    """One result is changed, and no other thing: each says FAILED, with status 1."""

    def test_checksums(self):
        done = run_changed("""
            import sys, checksums
            files, serial = checksums.find_files()[:50], checksums.one_after_another
            checksums.find_files = lambda: files
            checksums.one_after_another = lambda paths: serial(paths)[:-1] + ["0"]
            sys.exit(checksums.main())
        """)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.endswith("FAILED: the checksums, or their order, differ\n")
        assert "equal" not in done.stdout

    def test_the_order_of_checksums(self):
        done = run_changed("""
            import sys, checksums
            files, serial = checksums.find_files()[:50], checksums.one_after_another
            checksums.find_files = lambda: files
            checksums.one_after_another = lambda paths: [*serial(paths)[:-2], *reversed(serial(paths)[-2:])]
            sys.exit(checksums.main())
        """)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.endswith("FAILED: the checksums, or their order, differ\n")

    def test_a_page_that_is_not_what_it_must_be(self):
        """The server sends something else than what is expected here."""
        done = run_changed("""
            import sys, pages
            page, pages.PAGES = pages.page, 100
            pages.page = lambda number: page(number) + b"!" * (number == 57)
            sys.exit(pages.main())
        """)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.endswith("FAILED: 1 of 100 pages not what they must be, the first is page 57\n")

    def test_a_page_that_is_another_when_fetched_again(self):
        done = run_changed("""
            import sys, pages
            serial, pages.PAGES = pages.one_after_another, 100
            pages.one_after_another = lambda port, numbers: [b"", *serial(port, numbers)[1:]]
            sys.exit(pages.main())
        """)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.endswith("FAILED: pages differ from those fetched one after another\n")

    @needs_linux
    @pytest.mark.parametrize("kind", ["thread", "process"])
    def test_a_file_that_is_compressed_differently(self, kind):
        """It comes back, but takes other bytes."""
        done = run_changed(f"""
            import sys, zlib, abreast, compress
            files, right = compress.find_files()[:50], abreast.map
            compress.find_files = lambda: files
            def change(fn, inputs, **options):
                results = right(fn, inputs, **options)
                if options.get("kind", "thread") == {kind!r}:
                    results[3] = zlib.compress(zlib.decompress(results[3]), 1)
                return results
            abreast.map = change
            sys.exit(compress.main())
        """)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.endswith("FAILED: the compressed files, or their order, differ\n")

    @needs_linux
    def test_a_file_that_does_not_come_back(self):
        done = run_changed("""
            import sys, zlib, compress
            files = [path for path in compress.find_files() if path.endswith(".py")][:50]
            compress.find_files = lambda: files
            right = compress.compress
            compress.compress = lambda path: right(files[8] if path == files[7] else path)
            sys.exit(compress.main())
        """)
        assert (done.returncode, done.stderr) == (1, "")
        assert re.search(r"FAILED: 1 of 50 files do not come back, the first is /\S+\.py\n\Z", done.stdout)

    @needs_linux
    @pytest.mark.parametrize("kind", ["thread", "process"])
    @pytest.mark.parametrize("result", ["None", "marshal.dumps(compile('1', '', 'eval'))"])
    def test_bytecode(self, kind, result):
        done = run_changed(f"""
            import sys, marshal, abreast, compile_library
            paths, right = compile_library.find_modules(tests=False)[:50], abreast.map
            compile_library.find_modules = lambda tests: paths
            def change(fn, inputs, **options):
                results = right(fn, inputs, **options)
                if options.get("kind", "thread") == {kind!r}:
                    results[3] = {result}
                return results
            abreast.map = change
            sys.exit(compile_library.main())
        """)
        assert (done.returncode, done.stderr) == (1, "")
        how = {"thread": "threads", "process": "processes"}[kind]
        assert re.search(rf"FAILED: 1 of 50 files compiled by {how} differ, the first is /\S+\.py\n\Z", done.stdout)

    @pytest.mark.parametrize("change", ["write_bytes(b'')", "unlink()", "with_name('more').touch()"])
    def test_pictures(self, change):
        pytest.importorskip("PIL")
        done = run_changed(f"""
            import sys, pictures
            serial, pictures.PICTURES = pictures.one_after_another, 4
            def wrong(folder, paths):
                results = serial(folder, paths)
                results[2].{change}
                return results
            pictures.one_after_another = wrong
            sys.exit(pictures.main())
        """)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.endswith(f"FAILED: these files differ: {'more' if 'more' in change else 'picture 02.jpg'}\n")

    def test_the_order_of_pictures(self):
        pytest.importorskip("PIL")
        done = run_changed("""
            import sys, pictures, abreast
            right, pictures.PICTURES = abreast.map, 4
            def reverse(fn, inputs, **options):
                results = right(fn, inputs, **options)
                return results if isinstance(inputs, range) else results[::-1]
            abreast.map = reverse
            sys.exit(pictures.main())
        """)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.endswith("FAILED: the order differs\n")

    def test_a_result_of_a_killed_batch(self):
        done = run_changed("""
            import sys, resumed
            right, resumed.TASKS, resumed.KILLS = resumed.result_of, 400, 1
            resumed.result_of = lambda number: right(number) + (number == 399)
            sys.exit(resumed.main())
        """)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.endswith("FAILED: not all results are what they must be\n")

    def test_a_task_that_runs_though_it_is_recorded(self):
        done = run_changed("""
            import sys, resumed
            resumed.KILLS = 1
            resumed.recorded = lambda folder: set(range(400))
            sys.exit(resumed.main())
        """)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.endswith("FAILED: what is recorded must not run again\n")

    def test_the_others_run_all_the_same(self, tmp_path):
        """The whole directory, with an example that is wrong and one that raises."""
        (tmp_path / "__main__.py").write_bytes((EXAMPLES / "__main__.py").read_bytes())
        (tmp_path / "checksums.py").write_text("import sys\nsys.exit(1)\n")
        (tmp_path / "pages.py").write_text("raise OSError('no network')\n")
        (tmp_path / "pictures.py").write_text("print('equal')\n")
        (tmp_path / "compress.py").write_text("import sys\nsys.exit(2)\n")
        (tmp_path / "compile_library.py").write_text("")
        (tmp_path / "scraper.py").write_text("")
        (tmp_path / "resumed.py").write_text("")
        done = run(tmp_path)
        assert done.returncode == 1
        assert done.stdout == (
            "--- checksums\n--- pages\n--- pictures\nequal\n--- compress\ncompress was left out\n--- compile_library\n--- scraper\n--- resumed\n"
            "FAILED: checksums, pages\n"
        )
        assert done.stderr.endswith("OSError: no network\n")


class TestWithoutPillow:
    @pytest.fixture(autouse=True)
    def no_pillow(self, tmp_path, monkeypatch):
        (tmp_path / "none/PIL").mkdir(parents=True)
        (tmp_path / "none/PIL/__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'PIL'\", name='PIL')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "none"))

    def test_pictures_says_how_to_install_it(self):
        done = run("examples/pictures.py", cwd=ROOT)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == 'pictures.py needs Pillow: python -m pip install "Pillow>=10"\n'

    def test_it_is_left_out_of_all(self, tmp_path):
        for name in ("__main__.py", "pictures.py"):
            (tmp_path / name).write_bytes((EXAMPLES / name).read_bytes())
        for name in set(ALL) - {"pictures.py"}:
            (tmp_path / name).write_text("")
        done = run(tmp_path)
        assert done.returncode == 0
        assert done.stdout == (
            "--- checksums\n--- pages\n--- pictures\npictures was left out\n--- compress\n--- compile_library\n--- scraper\n--- resumed\n"
        )
        assert done.stderr == 'pictures.py needs Pillow: python -m pip install "Pillow>=10"\n'


class TestCtrlC:
    @pytest.mark.parametrize(
        ("name", "line"),
        [
            ("checksums.py", " files, "),
            ("pages.py", " pages from "),
            ("pages.py", "abreast.map"),
            ("pictures.py", " pictures of "),
            pytest.param("compress.py", "one after another", marks=(needs_linux, pytest.mark.slow)),
            pytest.param("compress.py", "threads", marks=(needs_linux, pytest.mark.slow)),
            pytest.param("compile_library.py", " files, ", marks=(needs_linux, pytest.mark.slow)),
            pytest.param("compile_library.py", "threads", marks=needs_linux),
            ("scraper.py", " pages from "),
            pytest.param("scraper.py", "threads", marks=needs_linux),
            ("resumed.py", "kill "),
            ("", "--- checksums"),
            ("", "--- pages"),
        ],
    )
    def test_it_ends_at_once_and_leaves_nothing(self, name, line):
        if name == "pictures.py":
            pytest.importorskip("PIL")
        status, told, errors = self.interrupt(name, line)
        while told.splitlines()[-1].startswith("equal:"):  # it had ended before it could be interrupted
            status, told, errors = self.interrupt(name, line)
        assert (status, errors) == (130, "")
        assert "FAILED" not in told
        for port in re.findall(r"http://127.0.0.1:(\d+)/", told):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", int(port)))

    def interrupt(self, name, line):
        """Press Ctrl-C shortly after a line; return exit status, output, errors."""
        with subprocess.Popen(
            [sys.executable, "-u", EXAMPLES / name],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            told = ""
            while line not in told:
                told += process.stdout.readline()
            time.sleep(0.05)  # into what follows; anywhere is as good
            os.killpg(process.pid, signal.SIGINT)  # as the terminal does
            rest, errors = process.communicate(timeout=30)
        return process.returncode, told + rest, errors


def ask(port, path):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


class TestUnreliableServer:
    @pytest.fixture
    def port(self):
        with subprocess.Popen(
            [sys.executable, EXAMPLES / "unreliable_server.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as server:
            yield int(server.stdout.readline())
            assert server.communicate(timeout=30) == (b"", None)

    def test_it_keeps_account(self, port, monkeypatch):
        monkeypatch.syspath_prepend(str(EXAMPLES))
        import unreliable_server as its

        def first(what):
            return next(n for n in range(1000) if its.fate(n, 1) == what and its.fate(n, 2) == "answered")

        assert ask(port, f"/a/{first('503')}") == (503, b"")
        with pytest.raises(ConnectionResetError):
            ask(port, f"/a/{first('reset')}")
        assert ask(port, f"/a/{first('429')}") == (429, b"")
        assert ask(port, f"/a/{first('429')}")[0] == 200  # too early
        assert ask(port, f"/a/{first('answered')}") == (200, its.page(first("answered")))
        account = json.loads(ask(port, "/a/account")[1])
        assert (account["requests"], account["too_early"], account["most_in_a_second"]) == (5, 1, 5)
        assert account["answers"] == {"503": 1, "reset": 1, "429": 1, "answered": 2}
        assert json.loads(ask(port, "/b/account")[1])["requests"] == 0
        assert ask(port, "/nothing")[0] == 404

    def test_it_limits_the_rate(self, port, monkeypatch):
        monkeypatch.syspath_prepend(str(EXAMPLES))
        import unreliable_server as its

        monkeypatch.setattr(its, "LIMIT", 3)
        account = its.Account()
        page = next(number for number in range(1000) if its.fate(number, 1) == "answered")
        assert [account.fate_of_next(page) for _ in range(4)][0::3] == ["answered", "429"]


class TestServer:
    @pytest.fixture
    def server(self):
        with subprocess.Popen(
            [sys.executable, EXAMPLES / "page_server.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            yield process

    def test_pages_and_their_delays_follow_from_their_numbers(self, server, monkeypatch):
        page_server = self.imported(monkeypatch)
        port = int(server.stdout.readline())
        for number in (0, 1, 1999):
            begun = time.perf_counter()
            assert ask(port, f"/{number}") == (200, page_server.page(number))
            assert time.perf_counter() - begun >= page_server.delay(number)
        assert ask(port, "/") == ask(port, "/x") == (404, b"no such page")
        delays = [page_server.delay(number) for number in range(2000)]
        assert 0.005 <= min(delays) < 0.006
        assert 0.049 < max(delays) <= 0.05
        pages = [page_server.page(number) for number in range(2000)]
        assert len(set(pages)) == 2000
        assert len({text.count(b"\n") for text in pages}) == 40

    def test_many_clients_at_once_are_all_answered(self, server):
        """More than a listener commonly lets wait: they come while the server does not run."""
        port = int(server.stdout.readline())
        server.send_signal(signal.SIGSTOP)
        try:
            clients = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(400)]
        finally:
            server.send_signal(signal.SIGCONT)
        for number, client in enumerate(clients):
            client.sendall(b"GET /%d HTTP/1.1\r\n\r\n" % number)
        for number, client in enumerate(clients):
            with client, client.makefile("rb") as answer:
                assert answer.read().split(b"\r\n\r\n")[1].startswith(b"Page %d\n" % number)

    def test_clients_that_go_away_do_it_no_harm(self, server):
        port = int(server.stdout.readline())
        for sent in (b"", b"GET /1 HT", b"GET /1 HTTP/1.1\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(sent)
        assert ask(port, "/1")[0] == 200
        assert server.communicate(timeout=30) == (b"", b"")

    def test_it_ends_when_its_input_is_closed_whoever_waits(self, server):
        port = int(server.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as client, socket.create_connection(("127.0.0.1", port)):
            client.sendall(b"GET /1 HTTP/1.1\r\n\r\n")
            assert server.communicate(timeout=30) == (b"", b"")
        assert server.returncode == 0

    @needs_proc
    def test_it_ends_when_its_parent_is_killed(self):
        with subprocess.Popen(
            [sys.executable, "-u", EXAMPLES / "pages.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
            (server,) = (PROC / f"{process.pid}/task/{process.pid}/children").read_text().split()
            assert b"page_server.py" in (PROC / server / "cmdline").read_bytes()
            process.kill()
            process.wait()
            deadline = time.monotonic() + 20
            while self.lives(server):
                assert time.monotonic() < deadline, "it outlives its parent"
                time.sleep(0.01)
            assert process.stderr.read() == ""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))

    def lives(self, pid):
        try:
            return (PROC / pid / "stat").read_text().rpartition(")")[2].split()[0] != "Z"  # a zombie has ended
        except OSError:
            return False

    def imported(self, monkeypatch):
        monkeypatch.syspath_prepend(str(EXAMPLES))
        monkeypatch.setitem(sys.modules, "page_server", None)
        del sys.modules["page_server"]
        import page_server

        return page_server
