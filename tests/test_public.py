"""The public face: about twenty names on top, rooms loaded when they are asked for."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pyro_ssl

ROOT = Path(__file__).parents[1]
ROOMS = ("belief", "datasets", "distributed", "estimators", "exact", "plotting", "testing")
SOURCES = [*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("tutorials/*.ipynb")]


def test_names_on_top():
    assert len(pyro_ssl.__all__) <= 23
    for name in pyro_ssl.__all__:
        assert getattr(pyro_ssl, name).__doc__


def test_rooms_are_attributes_that_are_loaded_when_asked_for():
    lazy = ["belief", "datasets", "plotting", "testing"]
    code = f"""
import sys, pyro_ssl
loaded = [room for room in {lazy} if "pyro_ssl." + room in sys.modules]
assert loaded == [], loaded
assert "matplotlib" not in sys.modules
for room in {[*ROOMS, "mini"]}:
    assert getattr(pyro_ssl, room).__name__ == "pyro_ssl." + room
    assert room in dir(pyro_ssl)
assert callable(pyro_ssl.invariance_test) and callable(pyro_ssl.verify)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        pyro_ssl.nothing  # noqa: B018


def code_of(path):
    if path.suffix == ".py":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    lines = "\n".join(code).split("\n")
    return "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_tutorials_and_benchmarks_use_public_names_alone(path):
    for node in ast.walk(ast.parse(code_of(path))):
        if not isinstance(node, ast.ImportFrom) or node.level:
            continue
        module = (node.module or "").split(".")
        if module[0] == "pyro_ssl":
            names = [alias.name for alias in node.names]
            assert len(module) <= 2, f"from {node.module}: a room of a room"
            assert not [n for n in names if n.startswith("_")], f"from {node.module}: {names}"
