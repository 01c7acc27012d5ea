"""Does a model say the same of a step, whatever steps it is given beside it?

A filter that is given new observations alone runs the model on these alone. That is the model of
all steps only where what it says of a step is a function of what it is given for this step: no
number that is counted from the first one, and no look at the step before. Here the model meets the
same steps twice, one after the other, and has to say the same of both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import EmissionNotLocalError
from .context import undrawn
from .program import ModelRun, Program
from .site import name_of, same_density

__all__ = ["check_steps_apart"]


def check_steps_apart(run: ModelRun) -> None:
    """Check a run's model. Where it cannot be given the steps twice, nothing is checked.

    :raises EmissionNotLocalError: if it says other things of the same steps, or has as many steps
        whatever it is given.
    """
    program, T, loop = run.program, run.loop.num_steps, run.loop
    if run.grid.lengths is not None or not T:
        return

    def twice(value: Any) -> Any:
        is_data = isinstance(value, Tensor) and value.dim() and len(value) == T
        return torch.cat([value, value]) if is_data else value

    args = tuple(map(twice, program.args))
    kwargs = {name: twice(value) for name, value in program.kwargs.items()}
    try:
        with undrawn(loop.device):
            again = Program(program.model, args, kwargs, program.given_paths).run(run.latents)
            table = again.grid.table()
    except Exception:  # sizes that happen to be T: it is not to be had twice
        return
    if again.loop.num_steps != 2 * T:
        raise EmissionNotLocalError(
            f'Site "{loop.name}": the loop has {again.loop.num_steps} steps, whatever data the '
            f"model is given, expected as many as these have; write "
            f'ssl_transition("{loop.name}", transition, len(x)) with x an argument of the model.'
        )
    first = run.grid.table()
    for part, inputs in zip(table.split(T), _halves(again.inputs, T), strict=True):
        same = same_density(part, first)
        moved = inputs is not None and run.inputs is not None
        if not same or moved and not torch.equal(inputs, run.inputs):  # type: ignore[arg-type]
            what = "inputs" if same else "log p(x_t | z_t)"
            raise EmissionNotLocalError(
                f'Site "{name_of(run.grid.sites)}": {what}, in the loop of "{loop.name}", changes '
                "with the steps that come before or with their number, expected a function of "
                "what the model is given for the step: a filter that goes on is given new steps "
                "alone. Make it an argument beside the data, of as many steps: model(x, x_before) "
                "or model(x, hour), with x_before[t] or hour[t] in the loop."
            )


def _halves(inputs: Tensor | None, T: int) -> tuple[Tensor | None, ...]:
    return (None, None) if inputs is None else inputs.split(T)
