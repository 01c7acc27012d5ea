"""Running again what was recorded, at any step and any z_t: one straight function of each kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..smc.derivatives import Expansion
from .recording import LATENT, STEP, Guard, Operation, Recording

__all__ = ["Replay"]

#: operations that torch has under the same name with the same arguments, at half the cost of a call
_PLAIN = set(
    "abs add addmm bitwise_and bitwise_or bmm clamp cos digamma div eq exp expand expm1 ge gt "
    "index_select le lgamma log log1p logical_and logical_not lt mm mul ne neg permute polygamma "
    "pow reciprocal rsqrt select sigmoid sin softplus sqrt square sub sum t tanh transpose "
    "unsqueeze view where xlogy".split()
)


class _Function(NamedTuple):
    """What is returned for some names, and the guards on the way."""

    call: Callable[..., tuple[Any, ...]]
    guards: tuple[bool, ...]

    def __call__(self, given: Tensor, shared: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """``None`` where a guard is not as it was."""
        with torch.no_grad():
            found = self.call(given, shared)
        n = len(self.guards)
        for value, was in zip(found[:n], self.guards, strict=True):
            if bool(value) != was:
                return None
        return found[n:]


class Replay:
    """log p(x_t | z_t) of particles, as recorded.

    What does not depend on z_t is computed once a step.

    :param Recording recording: of one step.
    :param Expansion found: what that computed.
    """

    def __init__(self, recording: Recording, found: Expansion) -> None:
        self._operations, level = recording.operations, recording.level
        results = [recording.name(value) for value in found]
        self._names = {name: _plain(value) for name, value in recording.names.items()}
        guards = dict.fromkeys(recording.guards)
        of_step = [guard for guard in guards if level[guard.name] == STEP]
        of_latent = [guard for guard in guards if level[guard.name] == LATENT]
        needed = self._needed([*results, *(guard.name for guard in of_latent)])
        read = {*results, *(n for op in needed if op.level == LATENT for n in op.reads)}
        #: names that a step's function hands on
        self._shared = sorted(name for name in read if level.get(name) == STEP)
        self._step = self._compiled("step", of_step, self._shared)
        self._value = self._compiled("latent", of_latent, results[:1])
        self._expansion = self._compiled("latent", of_latent, results)
        self._at: tuple[int, tuple[Any, ...] | None] = (-1, None)

    def value(self, t: int, step: Tensor, z: Tensor) -> Tensor | None:
        """Return log p(x_t | z_t = z); ``None`` where the body has to be asked."""
        shared = self._share(t, step)
        found = None if shared is None else self._value(z, shared)
        return None if found is None else found[0]

    def expansion(self, t: int, step: Tensor, z: Tensor) -> Expansion | None:
        """Return its expansion about z; ``None`` where the body has to be asked."""
        shared = self._share(t, step)
        found = None if shared is None else self._expansion(z, shared)
        return None if found is None else Expansion(*found)

    def _share(self, t: int, step: Tensor) -> tuple[Any, ...] | None:
        if self._at[0] != t:
            self._at = t, self._step(step, ())
        return self._at[1]

    def _needed(self, names: Sequence[str]) -> list[Operation]:
        """The operations that some names come from, in order."""
        wanted, needed = set(names), []
        for operation in reversed(self._operations):
            if operation.name in wanted:
                wanted.update(operation.reads)
                needed.append(operation)
        return needed[::-1]

    def _compiled(self, given: str, guards: Sequence[Guard], results: Sequence[str]) -> _Function:
        """A function of the step, or of z_t and what the step's function handed on."""
        level = STEP if given == "step" else LATENT
        returned = [*(guard.name for guard in guards), *results]
        lines = [f"def run({given}, shared):"]
        if level == LATENT and self._shared:
            lines.append(f"    {', '.join(self._shared)}, = shared")
        operations = [op for op in self._needed(returned) if op.level == level]
        last = {name: i for i, op in enumerate(operations) for name in op.reads}
        for i, (name, function, arguments, reads, _) in enumerate(operations):
            call = f"{function}({arguments})" if function else arguments
            lines.append(f"    {name} = {call}")
            gone = {n for n in reads if last[n] == i and n not in returned}
            if gone:  # so that memory is that of one run of the body
                lines.append(f"    del {', '.join(sorted(gone))}")
        lines.append(f"    return ({''.join(name + ', ' for name in returned)})")
        source = "\n".join(lines)
        space = {name: self._names[name] for name in re.findall(r"\bk\d+\b", source)}
        exec(source, space)  # names, numbers and torch's operations: nothing that a user wrote
        return _Function(space["run"], tuple(guard.was for guard in guards))


def _plain(value: Any) -> Any:
    """The function of torch that an operation is, where there is one."""
    if not isinstance(value, torch._ops.OpOverload):
        return value
    name = value._schema.name.removeprefix("aten::")
    if name not in _PLAIN:
        return value
    return getattr(torch, name, None) or getattr(Tensor, name, value)
