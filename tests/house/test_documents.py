"""Every Python snippet of the documents runs and prints what stands below it; commands are those that exist; links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.helpers import ROOT, run_python

pytestmark = pytest.mark.whole

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])


def snippets():
    """Yield (document, code, expected output or None), indentation inside lists removed."""
    for path in DOCUMENTS:
        pattern = r"^( *)```python\n(.*?)^ *```\n(?:\n* *```text\n(.*?)^ *```)?"
        for indent, code, output in re.findall(pattern, path.read_text(), flags=re.DOTALL | re.MULTILINE):

            def flush(text, width=len(indent)):
                return "".join(line[width:] or "\n" for line in text.splitlines(keepends=True))

            yield pytest.param(flush(code), flush(output), id=f"{path.name}-{code.split()[1]}")


@pytest.mark.parametrize(("code", "output"), list(snippets()))
def test_snippets_run_and_print_what_is_shown(code, output):
    done = run_python(code)
    if done.stdout != output and re.search(
        r"\d\.\d s", output
    ):  # it shows a time: a machine that is busy may be late, but not always
        done = run_python(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == output


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_two_commands_stand_in_the_readme_and_ci_calls_the_second():
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert len(commands) == 2
    assert "examples/course.py" in commands[0]
    assert commands[1].endswith(".venv/bin/nox")
    assert "grep -m1 -E '^python3 -m venv .*nox$' README.md" in (ROOT / ".ci/run").read_text()
    assert commands[1] in (ROOT / "CONTRIBUTING.md").read_text()


def test_the_first_command_of_the_readme_in_a_new_environment(tmp_path):
    """In a copy, with the sleeps of the course made short: the only change."""
    command = re.search(r"^python3 -m venv .*course.py$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)[0]
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    names = files.stdout.split() if files.returncode == 0 else pytest.skip("not a checkout")
    for name in names:
        if (ROOT / name).exists() and not name.startswith("tests/"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    command = command.replace("python3 -m venv", f"{sys.executable} -m venv") + " --fast"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1 4 9 16 25 36 49 64 81\n") == 2


@pytest.fixture(scope="module")
def told():
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/course.py"), "--fast"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


class TestCourse:
    """docs: the walk-through's first four steps, as examples/course.py tells them."""

    def steps(self, told):
        return [part.strip().splitlines() for part in told.split("--- ")[1:]]

    def test_named_threads_in_one_process(self, told):
        _, two, one, main, took = self.steps(told)[0]
        assert re.fullmatch(r"Task 2: T2, process (\d+)", two)
        assert re.fullmatch(r"Task 1: T1, process (\d+)", one)
        assert re.fullmatch(r"MainThread, process (\d+)", main)
        assert len({line.split()[-1] for line in (one, two, main)}) == 1
        assert 0.3 <= float(took.split()[0]) < 0.4

    def test_subclasses_interleave(self, told):
        _, *lines, done, _ = self.steps(told)[1]
        assert [line for line in lines if line[0] == "A"] == [f"A {n}" for n in range(1, 6)]
        assert [line for line in lines if line[0] == "B"] == [f"B {n}" for n in range(1, 6)]
        assert lines.index("A 2") < lines.index("B 5")
        assert done == "A and B are complete"

    def test_a_pool_of_three_gives_the_same_in_a_third(self, told):
        serial, pool = self.steps(told)[2:]
        assert serial[1] == pool[1] == "1 4 9 16 25 36 49 64 81"
        assert float(pool[2].split()[0]) < 0.5 * float(serial[2].split()[0])
