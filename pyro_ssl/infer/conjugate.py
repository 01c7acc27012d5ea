r"""Free sites whose conditional has a closed form after all, recognised from values.

As a function of one element θ of such a site, the log-density of all else is

.. math:: L(θ) = s_1 F_1(θ) + s_2 F_2(θ) + \mathrm{const}

with known F: its slope at two points gives s_1 and s_2, and at a third it tells whether L has this
form at all, whatever the user's code, and whatever else is given:

============  ==================  ==============================  ============================
prior         F_1, F_2            enters, for instance, as        given the rest
============  ==================  ==============================  ============================
Gamma         log θ, -θ           a Poisson's rate, a precision   Gamma(a + s_1, b + s_2)
InverseGamma  -log θ, -1/θ        a variance                      InverseGamma(a + s_1, b + s_2)
Normal        θ, -θ²/2            a mean                          Normal, precision 1/σ² + s_2
Beta          log θ, log(1 - θ)   a Bernoulli's share             Beta(a + s_1, b + s_2)
============  ==================  ==============================  ============================

Elements have to be independent of one another given the rest: the third point moves all of them.
Slopes are weighed by w(θ), so that w L' is linear in θ or 1/θ, and is taken where it is a number.
A slope sees no step, as that of a change point in t < θ, so L itself is compared too: between these
points, and at the start with draws of the prior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from ..errors import LatentSiteError
from ..gradients import gradients
from ..reading.site import base_of, user_scale
from .free import NUM_DRAWS, Conditional

__all__ = ["Form", "draw_conjugate", "form_of", "has_form"]

Pair = tuple[Tensor, Tensor]
Edges = tuple[float, float]
Values = dict[str, Tensor]


class Form(NamedTuple):
    """A prior's family, and what follows from it."""

    weight: Callable[[Tensor], Tensor]
    #: F_1 and F_2
    functions: Callable[[Tensor], Pair]
    #: w F_1' and w F_2'
    terms: Callable[[Tensor], Pair]
    #: a point where slopes are numbers: the value, unless it is extreme
    near: Callable[[Tensor], Tensor]
    #: another point, which tells s_2 from s_1
    far: Callable[[Tensor], Tensor]
    #: of the prior and both statistics
    posterior: Callable[[Any, Tensor, Tensor], Any]
    #: least and greatest number in the support
    edges: Callable[[torch.finfo], Edges]
    #: whether s_1 has a sign, as s_2 has
    is_count: bool = True


def _normal(prior: Any, s1: Tensor, s2: Tensor) -> Any:
    precision = prior.scale**-2 + s2.clamp(min=0.0)
    mean = (prior.loc * prior.scale**-2 + s1) / precision
    return dist.Normal(mean, precision.rsqrt())


def _added(family: Any, first: str, second: str) -> Callable[[Any, Tensor, Tensor], Any]:
    """A posterior whose parameters are the prior's and the statistics."""

    def posterior(prior: Any, s1: Tensor, s2: Tensor) -> Any:
        # Rounding may leave -1e-7 of nothing.
        return family(
            getattr(prior, first) + s1.clamp(min=0.0), getattr(prior, second) + s2.clamp(min=0.0)
        )

    return posterior


def _moderate(v: Tensor) -> Tensor:
    """1 in place of a number whose cube, or that of its inverse, is none."""
    least = torch.finfo(v.dtype).tiny ** (1.0 / 3.0)
    return torch.where((v > least) & (v < 1.0 / least), v, 1.0)


def _across(v: Tensor) -> Tensor:
    """A point beyond 1: of w L' one statistic shows below it, and the other above."""
    return torch.where(v < 1.0, 2.0 * v + 1.0, v / (v + 2.0))


def _positive(limits: torch.finfo) -> Edges:
    return limits.tiny, limits.max


FORMS: Mapping[type, Form] = {
    dist.Gamma: Form(
        weight=lambda v: v,
        functions=lambda v: (v.log(), -v),
        terms=lambda v: (torch.ones_like(v), -v),
        near=_moderate,
        far=_across,
        posterior=_added(dist.Gamma, "concentration", "rate"),
        edges=_positive,
    ),
    dist.InverseGamma: Form(
        weight=lambda v: v,
        functions=lambda v: (-v.log(), -1.0 / v),
        terms=lambda v: (-torch.ones_like(v), 1.0 / v),
        near=_moderate,
        far=_across,
        posterior=_added(dist.InverseGamma, "concentration", "rate"),
        edges=_positive,
    ),
    dist.Normal: Form(
        weight=torch.ones_like,
        functions=lambda v: (v, -v.square() / 2.0),
        terms=lambda v: (torch.ones_like(v), -v),
        near=lambda v: v,
        far=lambda v: v + 1.0 + v.abs(),
        posterior=_normal,
        edges=lambda limits: (limits.min, limits.max),
        is_count=False,
    ),
    dist.Beta: Form(
        weight=lambda v: v * (1.0 - v),
        functions=lambda v: (v.log(), (-v).log1p()),
        terms=lambda v: (1.0 - v, -v),
        near=lambda v: v.clamp(1e-6, 1.0 - 1e-6),  # beyond, torch clamps probabilities
        far=lambda v: torch.where(v < 0.5, 0.5 + v / 2.0, v / 2.0),
        posterior=_added(dist.Beta, "concentration1", "concentration0"),
        edges=lambda limits: (limits.tiny, 1.0 - limits.eps),
    ),
}


def form_of(site: Mapping[str, Any]) -> Form | None:
    """Return the form that a site of a run may have, by its prior."""
    scale = user_scale(dict(site))
    if site["mask"] not in (None, True) or isinstance(scale, Tensor) or scale != 1.0:
        return None
    return FORMS.get(type(base_of(site["fn"])))


def has_form(conditional: Conditional, name: str, form: Form, values: Values) -> bool:
    """Check that a site's conditional is of this form, given the path and these other values.

    Draws of the prior tell of steps that lie elsewhere than about the present value.
    """
    found = _statistics(conditional, name, form, values)
    if found is None:
        return False
    with torch.no_grad():
        draws = form.near(found.prior.sample((NUM_DRAWS,)).expand(NUM_DRAWS, *found.near.shape))
        each = [conditional.at(values | {name: draw}, without=name)[0] for draw in draws]
    right = [_adds_up(form, found, *pair) for pair in zip(draws, each, strict=True)]
    return bool(torch.stack(right).all())


def draw_conjugate(conditional: Conditional, name: str, form: Form, values: Values) -> Tensor:
    """Draw a site given the paths and all others, independently of its last value.

    :raises LatentSiteError: if its conditional is not of this form here.
    """
    found, value = _statistics(conditional, name, form, values), values[name]
    if found is None:
        raise LatentSiteError(
            f'Site "{name}": given the other sites, its posterior had a closed form when the run '
            "began, and has none where they are now, expected one throughout; write "
            f'inner_kernel={{"{name}": NUTS}}.'
        )
    with torch.no_grad():
        posterior = form.posterior(base_of(found.prior), found.s1, found.s2)
        drawn = posterior.expand(value.shape).sample()
        # A draw may underflow to the support's edge, where there is no density.
        return drawn.clamp(*form.edges(torch.finfo(value.dtype)))


class _Found(NamedTuple):
    """s_1 and s_2 of each element; the prior; a point, and L there."""

    s1: Tensor
    s2: Tensor
    prior: Any
    near: Tensor
    log_p: Tensor


def _statistics(conditional: Conditional, name: str, form: Form, values: Values) -> _Found | None:
    """What a draw needs; ``None`` where the form does not hold."""
    near = form.near(values[name])
    far = form.far(near)
    g, here, prior = _slope(conditional, name, form, values, near)
    h, there, _ = _slope(conditional, name, form, values, far)
    (a, b), (c, d) = form.terms(near), form.terms(far)
    determinant = a * d - b * c
    s1, s2 = (g * d - h * b) / determinant, (a * h - c * g) / determinant
    # no two elements alike, none where it was
    spread = torch.linspace(0.25, 0.75, near.numel(), device=near.device, dtype=near.dtype)
    third = near + (far - near) * spread.reshape(near.shape)
    slope, between, _ = _slope(conditional, name, form, values, third)
    f1, f2 = form.terms(third)
    error = _tolerance(near) * ((s1 * f1).abs() + (s2 * f2).abs() + 1.0)
    holds = (slope - s1 * f1 - s2 * f2).abs() < error
    holds &= s2 * f2.abs() > -error
    if form.is_count:
        holds &= s1 * f1.abs() > -error
    found = _Found(s1, s2, prior, near, here)
    right = [_adds_up(form, found, *pair) for pair in ((far, there), (third, between))]
    return found if bool(torch.stack([holds.all(), *right]).all()) else None  # one look, on a GPU


def _adds_up(form: Form, found: _Found, point: Tensor, log_p: Tensor) -> Tensor:
    """Whether L at another point is what the statistics say: a slope sees no step."""
    pairs = zip(form.functions(point), form.functions(found.near), strict=True)
    moved = [(f - f_near).double() for f, f_near in pairs]
    rise = torch.stack([found.s1 * moved[0], found.s2 * moved[1]])
    rounding = 100.0 * torch.finfo(point.dtype).eps * (log_p.abs() + found.log_p.abs())
    # Ten times that of slopes: to a far point the statistics carry their own rounding.
    error = 10.0 * _tolerance(point) * (rise.abs().sum() + 1.0) + rounding
    ruled_out = found.log_p.isneginf()  # the path, by labels
    return ruled_out | ((log_p - found.log_p - rise.sum()).abs() < error)


def _tolerance(like: Tensor) -> float:
    return 1e-6 if like.dtype == torch.float64 else 1e-3


def _slope(
    conditional: Conditional, name: str, form: Form, values: Values, point: Tensor
) -> tuple[Tensor, Tensor, Any]:
    """w L' at a point, and L, the log-density of all else than the site's prior; and that prior."""
    with gradients():
        at = point.detach().clone().requires_grad_()
        log_p, run = conditional.at(values | {name: at}, without=name)
        slope = torch.zeros_like(at)
        if log_p.requires_grad:
            (slope,) = torch.autograd.grad(log_p, at, allow_unused=True, materialize_grads=True)
    return form.weight(point) * slope.detach(), log_p.detach(), run.sites[name]["fn"]
