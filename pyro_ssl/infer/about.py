"""What tells runs apart: settings, data and model in a few words and digests each.

A run goes on from a checkpoint only where all of these are as they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor

from ..reading.program import ModelRun
from ..reading.site import base_of
from ..smc import Surrogate

__all__ = ["described", "digest", "model_of"]


def digest(value: Tensor | None) -> str | None:
    """Return a tensor's dtype, shape and the hash of its content.

    Example::

        >>> digest(torch.zeros(2, 3, dtype=torch.long))
        'int64 (2, 3) 17b0761f'
    """
    if value is None:
        return None
    flat = value.detach().cpu().contiguous().flatten()
    content = hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).hexdigest()
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)} {content[:8]}"


def described(value: Any) -> Any:
    """Return a setting as JSON holds it: numbers and text as they are, functions by their names.

    Example::

        >>> described(partial(dict, a=1)), described(torch.nn.Linear)
        ({'of': 'dict', 'args': [], 'a': 1}, 'Linear')
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return digest(value)
    if isinstance(value, Mapping):
        return {str(name): described(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [described(one) for one in value]
    if isinstance(value, partial):
        args = [described(one) for one in value.args]
        return {"of": described(value.func), "args": args, **described(value.keywords)}
    if isinstance(value, PyroOptim):
        kwargs = getattr(value, "kwargs", {})
        scheduler = getattr(value, "pt_scheduler_constructor", None)
        made, args = described(value.pt_optim_constructor), described(value.pt_optim_args)
        found = {"of": made, "args": args, "clip": described(value.pt_clip_args)}
        return found if scheduler is None else found | {described(scheduler): described(kwargs)}
    if isinstance(value, Surrogate):
        return {type(value).__name__: described(vars(value))}
    return getattr(value, "__qualname__", type(value).__name__)


def model_of(runs: Iterable[ModelRun], *, values: bool) -> dict[str, Any]:
    """Return the latent sites and the parameters of some runs of a model.

    :param bool values: whether the parameters are to have the same values, or shapes alone.
    """
    found: dict[str, Any] = {}
    for run in runs:
        T, shape = run.loop.num_steps, tuple(run.full_shape)
        for name, size in zip(run.paths.names, run.paths.sizes, strict=True):
            found[f"path {name}"] = f"{shape} sequences of {T} steps, {size or 'vector'} states"
        for name, site in run.sites.items():
            if not site["is_observed"]:
                found[f"prior of {name}"] = _prior(site["fn"])
        parameters = {name: site["value"] for name, site in run.params.items()}
        if values:
            own = run.transition.state_dict()
            parameters |= {f"{type(run.transition).__name__}.{n}": v for n, v in own.items()}
        for name, value in parameters.items():
            found[f"parameter {name}"] = digest(value) if values else str(tuple(value.shape))
    return found


def _prior(fn: Any) -> str:
    """A distribution's kind, shape, and the digest of its parameters."""
    fn = base_of(fn)
    own = {name: described(getattr(fn, name, None)) for name in getattr(fn, "arg_constraints", {})}
    if not own and hasattr(fn, "base_dist"):  # transformed, and of no name
        transforms = [type(transform).__name__ for transform in fn.transforms]
        own = {"base": _prior(fn.base_dist), "transforms": transforms}
    hashed = hashlib.sha256(repr(sorted(own.items())).encode()).hexdigest()[:8]
    return f"{type(fn).__name__} {tuple(getattr(fn, 'batch_shape', ()))} {hashed}"
