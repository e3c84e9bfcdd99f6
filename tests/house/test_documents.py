"""Every Python snippet of the documents runs and prints what stands below it; commands are those that exist; links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

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
    for _ in range(5 if re.search(r"\d\.\d s|times as fast", output) else 1):
        done = run_python(code)
        if done.stdout == output:  # if it shows a time: a machine that is busy may be late, but not always
            break
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == output


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def blocks(path):
    """Yield (commands, expected output or None) of the shell blocks of a document, but those that make an environment."""
    for commands, output in re.findall(
        r"^```sh\n(.*?)^```\n(?:\n*```text\n(.*?)^```)?", path.read_text(), flags=re.DOTALL | re.MULTILINE
    ):
        if not commands.startswith("python3 -m venv"):
            yield commands, output


@pytest.fixture
def checkout(tmp_path):
    """A copy of the checkout, without its tests, where `.venv/bin` is this environment's."""
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    names = files.stdout.split() if files.returncode == 0 else pytest.skip("not a checkout")
    for name in names:
        if (ROOT / name).exists() and not name.startswith("tests/"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md"])
def test_shell_commands_print_what_is_shown(name, checkout):
    """All of a document in one directory, in order; "…" stands for what differs from run to run."""
    bin_directory = Path(sys.executable).parent
    there = list(blocks(ROOT / name))
    assert there
    for commands, output in there:
        commands = commands.replace(".venv/bin/", f"{bin_directory}/")
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", commands],
            cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        pattern = re.escape(output).replace("…", "[^\n]*?")
        assert re.fullmatch(pattern, done.stdout), f"{commands}\n{done.stdout}\ninstead of\n{output}"


def test_commands_of_contributing_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert "pytest -q --slow -m slow" in text
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--slow", "-m", "slow", "--collect-only", "tests/journal"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_two_commands_stand_in_the_readme_and_ci_calls_the_second():
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith(".venv/bin/abreast demo && .venv/bin/python examples")
    assert commands[1].endswith(".venv/bin/nox")
    assert "grep -m1 -E '^python3 -m venv .*nox$' README.md" in (ROOT / ".ci/run").read_text()
    assert commands[1] in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.patient
def test_the_first_command_of_the_readme_in_a_new_environment(checkout):
    """With the sleeps of the demo made short: the only change."""
    command = re.search(r"^python3 -m venv .*examples$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)[0]
    command = command.replace("python3 -m venv", f"{sys.executable} -m venv").replace("abreast demo", "abreast demo --fast")
    done = subprocess.run(["bash", "-c", command], cwd=checkout, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 4 9 16 25 36 49 64 81\n") == 4


def test_the_picture_is_what_the_script_makes(tmp_path):
    """Made anew, with short sleeps: the same lines, but for the figures."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/pictures/make.py"), "--fast", "--to", str(tmp_path)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = [words_of(folder / "demo.svg") for folder in (tmp_path, ROOT / "docs/pictures")]
    assert told[0] == told[1]
    assert "A pool of three threads" in " ".join(told[0])


def words_of(picture):
    """The words of a picture, in order, without figures, bars, and what is said of --fast."""
    texts = [
        "".join(text.itertext()).replace("\xa0", " ")
        for text in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")
    ]
    text = re.sub(r"[\d.%▏░]+", "", " ".join(texts)).replace("Every sleep was a tenth of what the code says (--fast)", "")
    return text.split()
