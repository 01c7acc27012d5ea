"""What torch and Pyro raise while they run a model, told with the line of the model that it is."""

from __future__ import annotations

import contextlib
import dis
import traceback
from collections.abc import Iterator
from pathlib import Path

import pyro
import torch

from ..errors import SSLError, model_error
from ..transitions import DiscreteTransition
from .handlers import StateGrid

__all__ = ["named_errors"]

#: where errors are raised that are not the user's own
_FOREIGN = (*torch.__path__, *pyro.__path__)
#: and where the line is not to be looked for
_LIBRARY = (*_FOREIGN, str(Path(__file__).parents[1]), contextlib.__file__)
#: what torch raises from C++, at the line that called it
_FROM_BELOW = (IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
#: what says nothing about the model
_ELSEWHERE = (SSLError, Warning, MemoryError, RecursionError, OSError, ImportError)


@contextlib.contextmanager
def named_errors(grid: StateGrid) -> Iterator[None]:
    """Run a model; say of an error that torch or Pyro raised which line of the model it was.

    What the user's own code raises passes as it is, as do this library's errors.

    :param StateGrid grid: what answers the model's loop.
    :raises ModelError: from the error, and of its kind.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, _ELSEWHERE) or not _is_foreign(error):
            raise
        lines = traceback.extract_tb(error.__traceback__)
        own = [line for line in lines if not line.filename.startswith(_LIBRARY)]
        at = f" at {Path(own[-1].filename).name}:{own[-1].lineno}, {own[-1].line}," if own else ""
        message = f"{_context(grid)}{at} raised {type(error).__name__}: {error}"
        raise model_error(message, type(error)) from error


def _context(grid: StateGrid) -> str:
    """Which loop the model had, and what its body met there."""
    if not grid.answered:
        return "The model, before its loop over time (expected to run up to that),"
    loop = grid.loop
    met = f"t is arange({loop.num_steps})"
    if isinstance(loop.transition, DiscreteTransition):
        K, ones = loop.transition.num_states, (1,) * (1 + len(loop.batch_shape))
        each, states = ("each of ", "tuples of ") if len(loop.drawn) > 1 else ("", "")
        z = loop.name if loop.is_tuple else "z"
        met += f", {each}{z} has shape {(K, *ones)}, all {K} {states}states"
    return (
        f'Site "{loop.name}": the model, expected to run with all steps and states at once (in the '
        f"body {met}, and data are time first, {(loop.num_steps, *loop.batch_shape)}),"
    )


def _is_foreign(error: Exception) -> bool:
    """Whether torch or Pyro raised an error, not a ``raise`` or a slip in the user's own code."""
    last = error.__traceback__
    if last is None or type(error).__module__ != "builtins":
        return False
    while last.tb_next is not None:
        last = last.tb_next
    code = last.tb_frame.f_code
    if code.co_filename.startswith(_FOREIGN):
        return True
    raised = dis.opname[code.co_code[last.tb_lasti]] in ("RAISE_VARARGS", "RERAISE")
    return type(error) in _FROM_BELOW and not raised
