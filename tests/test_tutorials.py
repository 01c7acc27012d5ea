"""The tutorials run, and their committed outputs are those of their code."""

import struct
from base64 import b64decode

import pytest

from tutorials.build import NOTEBOOKS, code_cells, code_digest, execute, read


def kinds(cell):
    """Which kinds of output a cell has: "stdout", "image/png", and so on."""
    found = set()
    for output in cell.outputs:
        found |= {output.name} if output.output_type == "stream" else set(output.get("data", ()))
    return found


@pytest.mark.stage("system")
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_tutorial_runs_and_shows_what_it_gives(name):
    committed, ran = code_cells(read(name)), code_cells(execute(name, smoke_test=True))
    assert "smoke_test" in ran[0].source
    assert [cell.source for cell in committed] == [cell.source for cell in ran]
    for number, (old, new) in enumerate(zip(committed, ran, strict=True), 1):
        where = f"cell {number} of {name}; write: python -m tutorials.build {name}"
        assert kinds(old) == kinds(new), where
        assert not kinds(new) & {"stderr"}, where


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_of_the_code_beside_them(name):
    notebook = read(name)
    assert notebook.metadata.get("code_digest") == code_digest(notebook), (
        f"{name}: its code was changed after it was run; write: python -m tutorials.build {name}"
    )
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))  # one run, from top to bottom
    assert set(notebook.metadata) == {"kernelspec", "language_info", "code_digest"}
    assert not any(cell.metadata for cell in notebook.cells)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_figures_fit_a_page(name):
    outputs = [output for cell in code_cells(read(name)) for output in cell.outputs]
    figures = [out.data["image/png"] for out in outputs if "image/png" in out.get("data", ())]
    assert figures
    for figure in figures:
        width = struct.unpack(">I", b64decode(figure)[16:20])[0]  # of a PNG's header
        assert width <= 900


def test_an_edit_that_was_not_run_is_noticed():
    notebook = read(next(iter(NOTEBOOKS)))
    code_cells(notebook)[-1].source += "\n# an afterthought"
    assert notebook.metadata["code_digest"] != code_digest(notebook)
