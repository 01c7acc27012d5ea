"""The package: what is in the sdist, on which Python it runs, and what the workflows call."""

import fnmatch
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def in_sdist(path, lines):
    """Whether MANIFEST.in takes a path; only the commands that it has are known."""
    taken = False
    for line in lines:
        command, *rest = line.split()
        if command == "include":
            taken |= any(fnmatch.fnmatch(path, pattern) for pattern in rest)
        elif command == "recursive-include":
            name = path.rpartition("/")[2]
            inside = path.startswith(f"{rest[0]}/")
            taken |= inside and any(fnmatch.fnmatch(name, pattern) for pattern in rest[1:])
        elif command == "prune":
            taken &= not path.startswith(f"{rest[0]}/")
        else:
            assert command == "global-exclude", line
            taken &= not any(fnmatch.fnmatch(path.rpartition("/")[2], p) for p in rest)
    return taken


def test_sdist_has_every_file():
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("needs the repository")
    text = (ROOT / "MANIFEST.in").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    tracked = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert [path for path in tracked.stdout.splitlines() if not in_sdist(path, lines)] == []
    for path in ("docs/made/benchmarks.md", "docs/_build/html/index.html", "tests/a.pyc"):
        assert not in_sdist(path, lines)


def test_versions_of_python_are_those_that_are_tested():
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert PROJECT["requires-python"] == f">={named[0]}"
    matrix = re.search(r"python: \[(.*)\]", (ROOT / ".github/workflows/tests.yml").read_text())[1]
    assert re.findall(r'"([\d.]+)"', matrix) == [named[0], named[-1]]


def test_workflows_run_make_targets_alone():
    called = set()
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        for command in re.findall(r"- run: (.*)", text):
            assert command.startswith("make "), f"{path.name}: {command}"
            called.add(command.split()[1])
        for listed in re.findall(r"target: \[(.*)\]", text):
            called |= set(listed.split(", "))
    called.discard("${{")
    assert called <= TARGETS
    tests = {"test-fast", "test-system", "test-statistical"}
    assert {"lint", "docs", "release-check", "dist"} | tests <= called


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/index.md"])
def test_make_targets_in_the_text_are_there(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= TARGETS


def test_extras_of_others_are_pinned():
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    names = {re.split("==", line)[0] for line in pinned.splitlines() if "==" in line}
    wanted = [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])]
    for requirement in wanted:
        name = re.match(r"[\w-]+", requirement)[0]
        assert name in names | {"pyro-ssl"}, f"{name}: pin it in constraints.txt"
