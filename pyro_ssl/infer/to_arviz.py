"""Draws as ArviZ keeps them: one data set of named dimensions for each group.

ArviZ 0.x holds them in its ``InferenceData``, 1.x in xarray's ``DataTree``. Both are made of xarray
data sets, so these are made here, and only the last line asks which of the two is installed.

Next file to read: ``particle_gibbs.py``, whose draws they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ..reading.paths import PathSites
from ..reading.program import ModelRun, Program

__all__ = ["draws_to_arviz"]

#: a variable: its values, and the names of their dimensions
Variable = tuple[Tensor, list[str]]
SAMPLE = ["chain", "draw"]


@torch.no_grad()
def draws_to_arviz(
    program: Program,
    paths: PathSites,
    samples: dict[str, Tensor],
    stats: dict[str, Tensor],
    log_likelihood: bool,
) -> Any:
    """Return draws, with the data that they are given, as ``InferenceData`` or ``DataTree``.

    :param PathSites paths: which of them are paths.
    :param dict samples: by site, ``(C, S, ...)``.
    :param dict stats: of each draw, ``(C, S)``.
    :param bool log_likelihood: whether to score every draw, which runs the model once for each.
    :raises ImportError: if ArviZ is not installed.
    """
    arviz, xarray = _arviz()
    run = _run_under(program, paths, samples, 0, 0)
    groups = {
        "posterior": {name: (value, _dims(run, name, value)) for name, value in samples.items()},
        "sample_stats": {name: (value, SAMPLE) for name, value in stats.items()},
        "log_likelihood": _log_likelihood(run, samples) if log_likelihood else {},
        "observed_data": dict(_observed(run)),
        "constant_data": dict(_constant(run)),
    }
    about = {"inference_library": "pyro_ssl", "sample_dims": SAMPLE}
    made = {
        group: xarray.Dataset(
            {name: (dims, value.cpu().numpy()) for name, (value, dims) in variables.items()},
            coords=_coordinates(variables),
            attrs=about if SAMPLE[0] in _coordinates(variables) else {},
        )
        for group, variables in groups.items()
        if variables
    }
    if hasattr(arviz, "InferenceData"):
        return arviz.InferenceData(**made)
    return xarray.DataTree.from_dict(made)


def _arviz() -> tuple[Any, Any]:
    try:
        with warnings.catch_warnings():  # 0.x announces 1.x once a day
            warnings.simplefilter("ignore")
            import arviz
            import xarray
    except ImportError as error:
        raise ImportError(
            f"to_arviz() needs ArviZ ({error}), which is an extra of this library, expected it to "
            "be installed; write pip install 'pyro-ssl[arviz]'."
        ) from error
    return arviz, xarray


def _run_under(
    program: Program, paths: PathSites, samples: dict[str, Tensor], c: int, s: int
) -> ModelRun:
    """Run the model under one draw of its latents outside the loop."""
    return program.run({n: v[c, s] for n, v in samples.items() if n not in paths.names})


def _batch_dims(run: ModelRun) -> list[str]:
    """Names of the dimensions of the plates around the loop: ``sequence`` where there is one."""
    frames = {frame.dim: frame.name for frame in run.loop.plates}
    n = len(run.loop.batch_shape)
    if n == 1:
        return ["sequence"]
    return [frames.get(dim, f"plate_{-dim}") for dim in range(-n, 0)]


def _dims(run: ModelRun, name: str, value: Tensor) -> list[str]:
    """Names of the dimensions of a site's draws ``(C, S, ...)``."""
    dims = list(SAMPLE)
    if name in run.paths.names:
        dims += [*_batch_dims(run), "time"]
    return _filled(dims, name, value)


def _filled(dims: list[str], name: str, value: Tensor) -> list[str]:
    """Name the dimensions beyond these as ArviZ does."""
    return dims + [f"{name}_dim_{i}" for i in range(value.dim() - len(dims))]


def _observed(run: ModelRun) -> Iterator[tuple[str, Variable]]:
    """What is observed in the loop, time first, and outside of it."""
    dims, shape = ["time", *_batch_dims(run)], (run.loop.num_steps, *run.loop.batch_shape)
    for site in run.grid.sites:
        value, event = site.value, site.fn.event_shape
        batch = value.shape[: value.dim() - len(event)]
        if len(batch) > len(shape):
            if batch[0] != 1:
                continue  # made of the state: no datum
            value = value[0]
        value = value.expand(shape + value.shape[value.dim() - len(event) :])
        yield site.name, (value, _filled(dims, site.name, value))
    for name, node in run.sites.items():
        if node["is_observed"] and not isinstance(node["fn"], _Subsample):
            yield name, (node["value"].detach(), _filled([], name, node["value"]))


def _constant(run: ModelRun) -> Iterator[tuple[str, Variable]]:
    """Lengths, and exogenous inputs, time first."""
    lengths, inputs, batch = run.loop.lengths, run.loop.inputs, _batch_dims(run)
    if lengths is not None:
        yield "lengths", (lengths, batch)
    if inputs is not None:
        yield "inputs", (inputs.movedim(-2, 0), ["time", *batch, "input"])


def _log_likelihood(run: ModelRun, samples: dict[str, Tensor]) -> dict[str, Variable]:
    """log p(x | z, θ) of each observed site: in the loop of each sequence, summed over time."""
    C, S = next(iter(samples.values())).shape[:2]
    each = [_scores(run, samples, c, s) for c in range(C) for s in range(S)]
    found: dict[str, Variable] = {}
    in_loop = {site.name for site in run.grid.sites}
    for name in each[0]:
        value = torch.stack([scores[name] for scores in each]).unflatten(0, (C, S))
        dims = SAMPLE + (_batch_dims(run) if name in in_loop else [])
        found[name] = value, _filled(dims, name, value)
    return found


def _scores(run: ModelRun, samples: dict[str, Tensor], c: int, s: int) -> dict[str, Tensor]:
    """The same of one draw, by site, float64."""
    draw = {name: value[c, s] for name, value in samples.items()}
    others = {name: value for name, value in draw.items() if name not in run.paths.names}
    path = run.flatten(run.paths.join(draw))  # (T, B, ...)
    event = run.transition.event_shape
    states = path.reshape(1, len(path), *run.loop.batch_shape, *event)
    now = run.program.run(others, states)
    shape = run.loop.batch_shape
    found = {x.name: x.table().double().sum((0, 2)).reshape(shape) for x in now.grid.sites}
    for name, node in now.sites.items():
        if node["is_observed"] and not isinstance(node["fn"], _Subsample):
            log_p = node["fn"].log_prob(node["value"])
            found[name] = scale_and_mask(log_p, node["scale"], node["mask"]).double()
    return found


def _coordinates(variables: dict[str, Variable]) -> dict[str, list[int]]:
    """Number the entries of each dimension."""
    sizes = {
        dim: size
        for value, dims in variables.values()
        for dim, size in zip(dims, value.shape, strict=True)
    }
    return {dim: list(range(size)) for dim, size in sizes.items()}
