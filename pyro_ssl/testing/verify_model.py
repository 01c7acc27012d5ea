"""Is a model read as it is meant? Each check is one function of a model that was run once."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ..errors import NonFiniteError, SMCFailed
from ..gradients import gradients
from ..reading.checks import check_all_learn, check_transition_learns
from ..reading.context import TURNS, Given, own_dims
from ..reading.emission import read_emission
from ..reading.probe import check_emission_is_local
from ..reading.program import ModelRun, Program
from ..reading.site import log_prob
from ..smc import Emission
from ..steps import steps_within
from .report import Check
from .verify_transition import TOLERANCE, gap

__all__ = [
    "MODEL_CHECKS",
    "Subject",
    "check_log_joint",
    "describe",
    "read",
]

#: draws of the latent sites outside the loop, until one gives the data a density
TRIES = 5
#: paths whose log-joint is compared with Pyro's trace
NUM_PATHS = 3


class Subject(NamedTuple):
    """A model under values of its other latents, run once: ``table`` is log p(x_t | z_t).

    Over vectors ``table`` is of the points that ``reading/quadratic.py`` names.
    """

    program: Program
    run: ModelRun
    emission: Emission
    table: Tensor

    def again(self) -> ModelRun:
        """Run the model once more, on the same sequences."""
        return self.program.run(self.run.subsamples)


def read(program: Program) -> Subject:
    """Run a model, and give it the values that its latents outside the loop were drawn with.

    :raises Exception: what the model raises, and what this library says of it.
    """
    for tries_left in reversed(range(TRIES)):
        run = program.run()
        latent = {
            name: site["value"]
            for name, site in run.sites.items()
            if not (site["is_observed"] or isinstance(site["fn"], _Subsample))
        }
        model = poutine.condition(program.model, data=latent) if latent else program.model
        given = Program(model, program.args, program.kwargs)
        try:
            run = given.run(run.subsamples)
            return Subject(given, run, read_emission(run), run.grid.table())
        except (SMCFailed, NonFiniteError):  # a draw from a vague prior may be far from all data
            if not latent or not tries_left:
                raise
    raise AssertionError("unreachable")


def describe(subject: Subject) -> Check:
    """Say what was read."""
    run = subject.run
    size = f"K={run.transition.num_states}" if run.is_discrete else f"D={run.transition.dim}"
    sites = ", ".join(f'"{site.name}"' for site in run.grid.sites)
    shape = f"T={run.loop.num_steps}, B={run.num_sequences}, {size}"
    return Check("runs", "passed", f"{shape}; its body observes {sites}")


def _check_emission_repeats(subject: Subject) -> Check:
    """Two runs give the same emission: no dropout, no randomness, no data that change."""
    name, sites = "emission repeats", subject.run.grid.sites
    again = [site.table() for site in subject.again().grid.sites]
    for site, now in zip(sites, again, strict=True):
        away = gap(now, site.table())
        if away > TOLERANCE[now.dtype] * 1e-2:
            return Check(
                *(name, "failed"),
                f'site "{site.name}": log p(x_t | z_t) of two runs alike differ by {away:.1g}',
                "model.eval() where a module has dropout or batch norm; no torch.rand in the "
                "model, and nothing changed in place (x = x - m, not x -= m).",
            )
    return Check(name, "passed", "two runs give the same log p(x_t | z_t)")


def _check_emission_local(subject: Subject) -> Check:
    """x_t is observed given z_t alone."""
    check_emission_is_local(subject.again(), subject.table)
    return Check("emission local", "passed", "log p(x_t | z_t) hangs on z_t and step t alone")


def _check_weights(subject: Subject) -> Check:
    """No scale stands on the path or on what is observed."""
    run, name = subject.run, "weights"
    scaled = [site.name for site in run.grid.sites if _is_not_one(site.scale)]
    if run.grid.transition_scale is not None:
        scaled.append(run.loop.name)
    if not scaled:
        return Check(name, "passed", "every site counts once")
    return Check(
        *(name, "warning"),
        f"poutine.scale stands on {', '.join(scaled)}: draws are from a posterior with powers of "
        "these densities, and no evidence is that of the data",
        "the model without poutine.scale, unless a tempered posterior is meant; sequences are "
        "weighed by pyro.plate(name, N, subsample=index).",
    )


def _check_learns(subject: Subject) -> Check:
    """All parameters are where an optimiser finds them."""
    with warnings.catch_warnings(record=True) as told, gradients():
        warnings.simplefilter("always")
        run = subject.again()
        check_transition_learns(run)
        objective = run.log_transition(run.any_path()).sum() + run.log_joint(run.any_path())
        check_all_learn(run, objective)
    told = [each for each in told if "in Pyro's store" in str(each.message)]
    if not told:
        return Check("parameters", "passed", "all that require a gradient are in Pyro's store")
    message = " ".join(str(warning.message) for warning in told)
    found, _, write = message.partition("Write ")
    return Check("parameters", "warning", found.strip(), write)


#: what is asked of a model that ran
MODEL_CHECKS = {
    "emission repeats": _check_emission_repeats,
    "emission local": _check_emission_local,
    "weights": _check_weights,
    "parameters": _check_learns,
}


def check_log_joint(subject: Subject) -> Check:
    """The log-joint of paths is that of Pyro's own trace, site by site."""
    name, run, worst = "Pyro's trace", subject.run, (0.0, "", 0.0, 0.0)
    for _ in range(NUM_PATHS):
        path = _random_path(run)
        ours, theirs = _by_site(run, path), _by_trace(subject, path)
        if ours.keys() != theirs.keys():
            odd = sorted(ours.keys() ^ theirs.keys())
            return Check(
                *(name, "failed"),
                f"sites {odd} are met by Pyro's trace or by the samplers, not by both",
                "a body that observes the same sites whatever z and t are.",
            )
        for site, (value, size) in theirs.items():
            away = gap(ours[site] / size, value / size)
            worst = max(worst, (away, site, float(ours[site]), float(value)))
    away, site, found, expected = worst
    if away <= TOLERANCE[run.transition.like.dtype] * 0.1:
        return Check(name, "passed", f"log-joint of {NUM_PATHS} paths agrees at every site")
    return Check(
        *(name, "failed"),
        f'site "{site}": log-density of a path is {found:.6g} as the samplers read it, '
        f"{expected:.6g} in poutine.trace",
        "a body that indexes by the whole of z, as in phi[z], whatever its shape: (T, B) in a "
        "trace, (K, 1, 1) under the samplers; data time first, masks and scales (T, B).",
    )


def _random_path(run: ModelRun) -> Tensor:
    """A path ``(T, B, ...)``, of any states, or drawn from the prior over vectors."""
    if not run.is_discrete:
        return run.flatten(run.loop.distribution(run.loop.drawn[0]).sample())
    path = torch.randint_like(run.zero_path(), run.transition.num_states)
    lengths = run.loop.lengths
    if lengths is None:
        return path
    return path * steps_within(lengths.reshape(-1), len(path))


def _by_site(run: ModelRun, path: Tensor) -> dict[str, Tensor]:
    """Log-density of each site as the samplers read it, float64 scalars."""
    factor = run.subsample_factor
    found = {_paths_of(run): factor * run.log_transition(path).double().sum()}
    if run.is_discrete:
        terms = {site.name: site.path(path) for site in run.grid.sites}
    else:
        points = path.reshape(1, len(path), *run.loop.batch_shape, path.shape[-1])
        again = run.program.run(run.subsamples, points)
        terms = {site.name: site.table() for site in again.grid.sites}
    found |= {name: factor * term.double().sum() for name, term in terms.items()}
    for name, site in run.sites.items():
        if not isinstance(site["fn"], _Subsample):
            found[name] = _terms(site, site["fn"].log_prob(site["value"])).sum()
    return found


def _by_trace(subject: Subject, path: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Log-density of each site in Pyro's trace, and 1 + the sum of the sizes of its terms."""
    run, program = subject.run, subject.program
    given = {**run.paths.split(run.unflatten(path)), **run.subsamples}
    # What is masked may be no possible value, which validation would refuse.
    quiet = pyro.validation_enabled(False)
    with TURNS, quiet, poutine.block(), poutine.trace() as tracer, own_dims(), Given(given):
        program.model(*program.args, **program.kwargs)
        fillers = {site.name: site.a_possible_value() for site in run.grid.sites}
    found: dict[str, tuple[Any, Any]] = {}
    for name, site in tracer.trace.nodes.items():
        own = site["type"] == "sample" and not site["infer"].get("_deterministic")
        if not own or isinstance(site["fn"], _Subsample):
            continue
        if name in run.sites or name in run.paths.names:
            log_p = site["fn"].log_prob(site["value"])
        else:  # as in the loop: no clamp stands between a probability and its logarithm
            log_p = log_prob(site["fn"], _filled(site, fillers.get(name)))
        terms = _terms(site, log_p)
        key = _paths_of(run) if name in run.paths.names else name
        size = terms.abs().where(terms.isfinite(), 0.0).sum()
        value, known = found.get(key, (0.0, 1.0))
        found[key] = value + terms.sum(), known + size
    return found


def _paths_of(run: ModelRun) -> str:
    """Name of the paths of a loop, all together."""
    return ", ".join(run.paths.names)


def _terms(site: dict[str, Any], log_p: Tensor) -> Tensor:
    return scale_and_mask(log_p, site["scale"], site["mask"]).double()


def _filled(site: dict[str, Any], filler: Tensor | None) -> Tensor:
    """The value of a site, with a possible one where it is masked."""
    value, mask, event = site["value"], site["mask"], (1,) * site["fn"].event_dim
    if filler is None or not isinstance(mask, Tensor):
        return value
    return torch.where(mask.reshape(mask.shape + event), value, filler)


def _is_not_one(scale: Tensor | float) -> bool:
    return bool((scale != 1.0).any()) if isinstance(scale, Tensor) else scale != 1.0
