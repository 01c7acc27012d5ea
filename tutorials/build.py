"""Run tutorials from top to bottom, and keep their outputs.

    python -m tutorials.build                       # all of them, in full
    python -m tutorials.build 03_particle_gibbs     # one

Needs nbclient and ipykernel (``pip install pyro-ssl[test]``). A committed notebook has a digest of
the code whose outputs it shows; ``tests/test_tutorials.py`` fails if code was edited but not run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
#: every tutorial, by its name without the suffix
NOTEBOOKS = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.ipynb"))}

_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# Run before the notebook's own cells: a tutorial must give no warnings.
_SETUP = """
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
warnings.filterwarnings("ignore", module="ipykernel")
"""


def read(name: str) -> NotebookNode:
    """Read a tutorial as it is committed."""
    return nbformat.read(NOTEBOOKS[name], as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the cells that are run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def code_digest(notebook: NotebookNode) -> str:
    """Return a digest of the code of all cells, in order."""
    code = "\n# %%\n".join(cell.source for cell in code_cells(notebook))
    return hashlib.sha256(code.encode()).hexdigest()


def execute(name: str, *, smoke_test: bool) -> NotebookNode:
    """Run a tutorial in a fresh kernel of one thread, from the root; warnings are errors.

    :param bool smoke_test: set ``CI``, by which the notebooks choose small sizes.
    :returns: the notebook with its new outputs, cleaned; no file is written.
    :raises nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    notebook = read(name)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_SETUP))
    env = {key: value for key, value in os.environ.items() if key != "CI"}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"} | ({"CI": "1"} if smoke_test else {})
    # Sockets of its own: two kernels that start at once in one folder may take the same.
    with tempfile.TemporaryDirectory() as sockets:
        client = NotebookClient(
            notebook,
            timeout=None,  # a busy machine is no reason to fail
            startup_timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": str(ROOT)}},
            record_timing=False,
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
            coalesce_streams=True,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
        client.execute(env=env)
    del notebook.cells[0]
    return clean(notebook)


def clean(notebook: NotebookNode) -> NotebookNode:
    """Keep only the metadata that a run needs, and number the cells from 1."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": _KERNEL,
            "language_info": {"name": "python"},
            "code_digest": code_digest(notebook),
        }
    )
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
    for number, cell in enumerate(code_cells(notebook), 1):
        cell.execution_count = number
        for output in cell.outputs:
            output.pop("transient", None)
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
            if "execution_count" in output:
                output.execution_count = number
    return notebook


def main() -> None:
    """Run what is asked for in full, and write it in place."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NOTEBOOKS)}")
    options = parser.parse_args()
    unknown = set(options.names) - set(NOTEBOOKS)
    if unknown:
        parser.error(f"found {', '.join(sorted(unknown))}, expected some of {', '.join(NOTEBOOKS)}")
    for name in options.names or NOTEBOOKS:
        started = time.perf_counter()
        notebook = execute(name, smoke_test=False)
        nbformat.write(notebook, NOTEBOOKS[name])
        print(f"{name}: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
