"""The documentation is true: its code runs, its links lead somewhere, its figures are the results'.

None of this needs Sphinx; ``make docs`` builds the pages, and fails at any warning.
"""

import datetime
import importlib
import inspect
import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import pyro_ssl
from benchmarks._results import Results
from benchmarks.compare.store import Store
from docs import benchmark_tables, generate
from tests.markdown import anchors, links, python_blocks, read_less, run_blocks

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = ("_build", "made", "tutorials")
PAGES = sorted(p for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] not in MADE)
#: no Python: a table of contents, and commands that README's test runs
WITHOUT = ("index", "command_line")
WITH_CODE = [p for p in PAGES if list(python_blocks(p.read_text(encoding="utf-8")))]


def name_of(path):
    return path.relative_to(DOCS).with_suffix("").as_posix()


@pytest.mark.stage("system")
@pytest.mark.parametrize("path", WITH_CODE, ids=name_of)
def test_code_blocks_run(path, monkeypatch, tmp_path):
    monkeypatch.setenv("CI", "true")  # no progress bars
    monkeypatch.chdir(tmp_path)
    read_less(monkeypatch)
    names = run_blocks(path)
    monkeypatch.setitem(sys.modules, "__page__", SimpleNamespace(**names))  # where pickle looks
    for shown in [kind for name, kind in names.items() if name.startswith("Test")]:
        for test in [name for name in dir(shown) if name.startswith("test_")]:
            getattr(shown(), test)()


@pytest.mark.parametrize("path", WITH_CODE, ids=name_of)
def test_code_fits_a_page(path):
    for block in python_blocks(path.read_text(encoding="utf-8")):
        assert max(map(len, block.code.splitlines())) <= 88


def test_every_page_that_teaches_use_has_code():
    taught = [
        p for p in PAGES if p.parent.name in ("howto", "coming_from") and p.stem not in WITHOUT
    ]
    assert len(taught) >= 13
    assert set(taught) | {DOCS / "index.md"} <= set(WITH_CODE)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path):
    for link in links(path.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        if found.relative_to(DOCS).parts[0] == "tutorials":
            found = ROOT / "tutorials" / found.name  # where they are copied from
            assert found.exists() or found.stem == "index", link
            continue
        if found.relative_to(DOCS).parts[:2] == ("made", "figures"):
            figures = [Path(f).name for b in benchmark_tables.BENCHMARKS for f in b.figures]
            assert found.name in figures, link
            continue
        assert found.exists(), link
        text = found.read_text(encoding="utf-8")
        if found == DOCS / "benchmarks.md":  # whose sections are made
            text += "".join(f"\n## {b.title}\n" for b in benchmark_tables.BENCHMARKS)
        assert not anchor or anchor in anchors(text), link


def test_every_page_is_in_a_table_of_contents():
    listed = set()
    for path in PAGES:
        trees = re.findall(r"```\{toctree\}\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
        for line in "\n".join(trees).splitlines():
            if line and not line.startswith(":"):
                listed.add((path.parent / line).with_suffix(".md").resolve())
    assert set(PAGES) - listed == {DOCS / "index.md"}


def test_every_public_name_has_a_page():
    """Of every room that lists its names, and so of all names on top."""
    paged = {path.stem for path in (DOCS / "api").glob("*.md")} - {"index"}
    rooms = {"mini"}
    for path in (ROOT / "pyro_ssl").iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists():
            rooms.add(path.stem)
    inner = {"__init__", "arguments", "bench", "checkpoint", "demo", "gradients", "loop"}
    inner |= {"__main__", "cli", "loop_arguments", "reading", "storage", "train"}
    assert paged == rooms - inner
    documented = set()
    for room in paged - {"mini"}:
        documented |= set(importlib.import_module(f"pyro_ssl.{room}").__all__)
        assert f"automodule:: pyro_ssl.{room}\n" in (DOCS / "api" / f"{room}.md").read_text()
    index = (DOCS / "api" / "index.md").read_text(encoding="utf-8")
    for name in pyro_ssl.__all__:
        assert name in documented
        assert re.search(rf"~pyro_ssl\.\w+\.{name}`", index), name


def test_names_in_the_text_are_there():
    for path in PAGES:
        for name in re.findall(r"\{py:\w+\}`~?([\w.]+)`", path.read_text(encoding="utf-8")):
            module, _, last = name.rpartition(".")
            assert inspect.getdoc(getattr(importlib.import_module(module), last)), (path, name)


def test_gallery_shows_every_tutorial(tmp_path):
    generate.make_tutorials(tmp_path)
    text = (tmp_path / "tutorials" / "index.md").read_text(encoding="utf-8")
    notebooks = sorted(path.stem for path in generate.NOTEBOOKS.glob("*.ipynb"))
    assert re.findall(r"^:link: (\w+)$", text, re.M) == notebooks
    for name in notebooks:
        picture = (tmp_path / "made" / "thumbnails" / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 1000
        assert (tmp_path / "tutorials" / f"{name}.ipynb").exists()


def test_a_tutorial_without_a_picture_is_told(tmp_path):
    path = tmp_path / "empty.ipynb"
    path.write_text('{"cells": [{"cell_type": "markdown", "source": ["# A title\\n"]}]}')
    with pytest.raises(ValueError, match="empty.ipynb: found title 'A title'.*0 pictures"):
        generate.read_tutorial(path)


@pytest.mark.parametrize("benchmark", benchmark_tables.BENCHMARKS, ids=lambda b: b.title)
def test_benchmark_tables_are_made_of_results(benchmark):
    text = benchmark_tables.text_of(benchmark)
    path = benchmark_tables.RESULTS / benchmark.results
    known = benchmark_tables.measured(path) if path.suffix == ".json" else {}
    where = known.get("machine", benchmark.machine)
    for told in (benchmark.command, benchmark.date, where, benchmark.results):
        assert told in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) >= 4 or text.count("\n", text.index("```text")) >= 4
    for row in rows:
        assert row.endswith("|") and row.count("|") >= 3
    assert not re.search(r"\bnan\b|\binf\b|None", text)


def test_benchmark_tables_follow_the_results(tmp_path):
    """A figure is changed in the results, and the page changes with it."""
    benchmark = next(b for b in benchmark_tables.BENCHMARKS if b.results == "learning/python.json")
    text = (benchmark_tables.RESULTS / benchmark.results).read_text(encoding="utf-8")
    perplexity = re.search(r'"perplexity": (212\.\d+)', text)[1]
    path = tmp_path / "python.json"
    path.write_text(text.replace(perplexity, "912.5"), encoding="utf-8")
    before = benchmark.tables(benchmark_tables.RESULTS / benchmark.results)
    assert "212.0 ± 3.7" in before and "212.0 ± 3.7" not in benchmark.tables(path)


def test_results_say_where_and_when(tmp_path):
    results = Results(tmp_path / "one.json", {})
    results.add("0", {"perplexity": 2.0})
    found = benchmark_tables.measured(results.path)
    assert found["date"] == datetime.date.today().isoformat() and "torch" in found["machine"]
    store = Store("corpus", tmp_path)
    store.add("pg", 0, {"machine": "one"})
    store.add("pg", 1, {"machine": "another"})
    assert benchmark_tables.measured(store.path) == {"machine": "another; one"}


def test_every_result_has_a_section():
    shown = {b.results for b in benchmark_tables.BENCHMARKS}
    for path in benchmark_tables.RESULTS.rglob("*.json"):
        name = path.relative_to(benchmark_tables.RESULTS).as_posix()
        assert name in shown or name.split("/")[0] in shown, f"{name}: add it to BENCHMARKS"


def test_reports_are_set_apart():
    made = benchmark_tables.as_markdown("A line\n| a |\n|---|\n| 1 |\nx   1\ny   2\n")
    assert made == "A line\n\n| a |\n|---|\n| 1 |\n\n```text\nx   1\ny   2\n```"


def test_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {pyro_ssl.__version__}\n" in citation
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"\nlicense: {project['license']}\n" in citation


def test_blocks_of_other_packages_run_where_these_are(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\na = 1\n```\n\n```python torch\nb = a + 1\n```\n\n"
                    "```python no_such_package\nc = 1 / 0\n```\n")  # fmt: skip
    names = run_blocks(page)
    assert names["b"] == 2 and "c" not in names
    assert torch.get_default_dtype() == torch.float32
    page.write_text("text\n\n```python\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as told:
        run_blocks(page)
    assert told.traceback[-1].lineno == 3  # counted from 0: the page's own line
