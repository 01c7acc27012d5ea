"""``python -m pyro_ssl.train``: the same as ``pyro-ssl fit``, as a module of its own.

Under ``torchrun --nproc-per-node 2 -m pyro_ssl.train book.txt --out runs/book`` the passages are
sharded over its processes, on one machine or on several; see :mod:`pyro_ssl.distributed`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .cli import main as program

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``pyro-ssl fit``.

    :param argv: its arguments; by default those of the command line.
    :returns: the exit code.
    """
    return program(["fit", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
