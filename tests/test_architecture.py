"""The shape of the package: rooms that import downwards only, small files, small functions."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pyro_ssl"
FILES = sorted(PACKAGE.rglob("*.py"))

#: Rooms from the ground up: each imports only from itself and from those before it.
ROOMS = (
    "errors distributed arguments gradients steps storage checkpoint cells transitions kernels "
    "loop_arguments loop primitive smc exact reading infer datasets models estimators belief "
    "plotting pages testing demo bench cli train __main__"
).split()

MAX_LINES, MAX_FUNCTION = 300, 50


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path):
    """Modules of the package that a file imports, wherever in it, also for type checkers alone."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _statements(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            name = ".".join([*(base if node.level else []), *filter(None, [node.module])])
            if name.split(".")[0] == "pyro_ssl":
                yield from (_resolve(name, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "pyro_ssl")


def _statements(node):
    """All statements within a node: no expression holds one."""
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        for inner in getattr(node, field, ()):
            yield inner
            yield from _statements(inner)


def _resolve(module, name):
    """The module that ``from module import name`` runs."""
    inner = PACKAGE.parent / Path(*module.split("."), name)
    return f"{module}.{name}" if inner.with_suffix(".py").exists() or inner.is_dir() else module


@pytest.fixture(scope="module")
def graph():
    """Of each module, those that it imports."""
    return {module_of(path): set(imports_of(path)) for path in FILES}


def room(module):
    return module.split(".")[1] if "." in module else ""


def test_imports_run_downwards(graph):
    wrong = []
    for module in graph:
        if room(module) in ROOMS:
            level = ROOMS.index(room(module))
            above = {m for m in graph[module] if room(m) not in ROOMS[: level + 1]}
            wrong += [f"{module} imports {sorted(above)}, which stand above it"] * bool(above)
    assert not wrong


def test_every_room_has_a_level(graph):
    assert {room(m) for m in graph} - {*ROOMS, "", "mini"} == set()
    assert not graph.get("pyro_ssl.mini"), "mini.py is read alone"


def test_no_circle(graph):
    """A package's own modules import one another, never the package."""
    done, on_path = set(), []

    def visit(module):
        assert module not in on_path, " imports ".join([*on_path[on_path.index(module) :], module])
        if module not in done:
            on_path.append(module)
            for other in sorted(graph.get(module, ())):
                visit(other)
            done.add(on_path.pop())

    for module in graph:
        visit(module)


def test_files_and_functions_are_small():
    large = []
    for path in FILES:
        text = path.read_text()
        tree, code = ast.parse(text), _code_lines(text)
        if text.count("\n") > MAX_LINES:
            large.append(f"{path}: {text.count(chr(10))} lines")
        for node in _statements(tree):
            if isinstance(node, ast.FunctionDef):
                size = sum(node.body[0].lineno <= line <= node.end_lineno for line in code)
                large += [f"{path}: {node.name} has {size} lines of code"] * (size > MAX_FUNCTION)
    assert not large


def _code_lines(text):
    """Numbers of the lines that hold code: no comment, no docstring, nothing empty."""
    layout = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    code = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in layout | {tokenize.COMMENT}:
            code |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        first = (
            node.body[0] if isinstance(getattr(node, "body", None), list) and node.body else None
        )
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            code -= set(range(first.lineno, first.end_lineno + 1))
    return code
