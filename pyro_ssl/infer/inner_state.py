"""The state of Pyro's HMC and NUTS: step size, mass matrix, and how far they have adapted.

The kernels hold functions and traces, which no file should, between numbers and tensors, which are
all that the next draw hangs on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["kernel_state", "put_kernel"]

#: of the last potential, which changes with every path
_CACHED = {"_z_last", "_potential_energy_last", "_z_grads_last", "_initial_params"}


def kernel_state(kernel: Any) -> dict[str, Any]:
    """Return a kernel's numbers and tensors, and those of the parts that it adapts by.

    Example::

        >>> from pyro.infer.mcmc import NUTS
        >>> kernel = NUTS(potential_fn=lambda z: (z["x"] ** 2).sum(), step_size=0.25)
        >>> state = kernel_state(kernel)
        >>> state["plain"]["_t"], state["parts"]["_adapter"]["plain"]["step_size"]
        (0, 0.25)
    """
    plain, parts, tables = {}, {}, {}
    for name, value in vars(kernel).items():
        if name in _CACHED:
            continue
        if _is_plain(value):
            plain[name] = value
        elif isinstance(value, dict) and all(_is_part(one) for one in value.values()):
            tables[name] = {key: kernel_state(one) for key, one in value.items()}
        elif _is_part(value):
            parts[name] = kernel_state(value)
    return {"plain": plain, "parts": parts, "tables": tables}


def put_kernel(kernel: Any, state: Mapping[str, Any]) -> None:
    """Give a kernel that is set up the state that :func:`kernel_state` returned of one like it."""
    vars(kernel).update(state["plain"])
    for name, part in state["parts"].items():
        put_kernel(getattr(kernel, name), part)
    for name, table in state["tables"].items():
        for key, part in table.items():
            put_kernel(getattr(kernel, name)[key], part)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(key) and _is_plain(one) for key, one in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | Tensor)


def _is_part(value: Any) -> bool:
    """Whether it is an object of Pyro's that adapts."""
    return type(value).__module__.startswith(("pyro.infer.mcmc.", "pyro.ops."))
