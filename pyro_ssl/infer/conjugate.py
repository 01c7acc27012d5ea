r"""Free sites whose conditional has a closed form after all, recognised from values.

As a function of one element θ of such a site, the log-density of all else is

.. math:: L(θ) = s_1 F_1(θ) + s_2 F_2(θ) + \mathrm{const}

with known F: then its gradient at two points gives s_1 and s_2, and at a third it tells whether L
has this form at all, whatever the user's code, and whatever else is given:

============  ===================  =======================  ================================
prior         F_1, F_2             enters, for instance, as  given the rest
============  ===================  =======================  ================================
Gamma         log θ, -θ            a Poisson's rate, a       Gamma(a + s_1, b + s_2)
                                   precision
InverseGamma  -log θ, -1/θ         a variance                InverseGamma(a + s_1, b + s_2)
Normal        θ, -θ²/2             a mean, a coefficient     Normal, precision 1/σ² + s_2
                                   of its own column
Beta          log θ, log(1 - θ)    a Bernoulli's share       Beta(a + s_1, b + s_2)
============  ===================  =======================  ================================

Elements have to be independent of one another given the rest: the third point moves all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from ..gradients import gradients
from ..reading.site import user_scale
from .free import Conditional

__all__ = ["Form", "draw_conjugate", "form_of", "has_form"]

Pair = tuple[Tensor, Tensor]
Values = dict[str, Tensor]


class Form(NamedTuple):
    """A prior's family, and what follows from it."""

    #: of F_1 and F_2
    derivatives: Callable[[Tensor], Pair]
    #: another value of the support, not near
    other: Callable[[Tensor], Tensor]
    #: of the prior and both statistics
    posterior: Callable[[Any, Tensor, Tensor], Any]
    #: least and greatest number in the support
    edges: Callable[[torch.finfo], tuple[float, float]]


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


def _positive(limits: torch.finfo) -> tuple[float, float]:
    return limits.tiny, limits.max


FORMS: Mapping[type, Form] = {
    dist.Gamma: Form(
        lambda v: (1.0 / v, -torch.ones_like(v)),
        lambda v: 1.7 * v,
        _added(dist.Gamma, "concentration", "rate"),
        _positive,
    ),
    dist.InverseGamma: Form(
        lambda v: (-1.0 / v, v**-2),
        lambda v: 1.7 * v,
        _added(dist.InverseGamma, "concentration", "rate"),
        _positive,
    ),
    dist.Normal: Form(
        lambda v: (torch.ones_like(v), -v),
        lambda v: v + 1.0 + v.abs(),
        _normal,
        lambda limits: (limits.min, limits.max),
    ),
    dist.Beta: Form(
        lambda v: (1.0 / v, -1.0 / (1.0 - v)),
        lambda v: torch.where(v < 0.5, 0.5 + v / 2.0, v / 2.0),
        _added(dist.Beta, "concentration1", "concentration0"),
        lambda limits: (limits.tiny, 1.0 - limits.eps),
    ),
}


def form_of(site: Mapping[str, Any]) -> Form | None:
    """Return the form that a site of a run may have, by its prior."""
    scale = user_scale(dict(site))
    if site["mask"] not in (None, True) or isinstance(scale, Tensor) or scale != 1.0:
        return None
    return FORMS.get(type(_base(site["fn"])))


def has_form(conditional: Conditional, name: str, form: Form, values: Values) -> bool:
    """Check at a third point that a site's conditional is of this form."""
    value = values[name]
    s1, s2, _ = _statistics(conditional, name, form, values)
    # no two elements alike, none where it was
    spread = torch.linspace(0.25, 0.75, value.numel(), device=value.device, dtype=value.dtype)
    near, far = value, form.other(form.other(value))
    third = near + (far - near) * spread.reshape(value.shape)
    found, _ = _slope(conditional, name, values | {name: third})
    f1, f2 = form.derivatives(third)
    size = (s1 * f1).abs() + (s2 * f2).abs() + 1.0
    tolerance = 1e-6 if value.dtype == torch.float64 else 1e-3
    return bool(((found - s1 * f1 - s2 * f2).abs() < tolerance * size).all())


def draw_conjugate(conditional: Conditional, name: str, form: Form, values: Values) -> Tensor:
    """Draw a site given the paths and all others, independently of its last value."""
    s1, s2, prior = _statistics(conditional, name, form, values)
    value = values[name]
    with torch.no_grad():
        drawn = form.posterior(_base(prior), s1, s2).expand(value.shape).sample()
        # A draw may underflow to the support's edge, where there is no density.
        least, most = form.edges(torch.finfo(value.dtype))
        return drawn.clamp(least, most)


def _statistics(
    conditional: Conditional, name: str, form: Form, values: Values
) -> tuple[Tensor, Tensor, Any]:
    """s_1 and s_2 of each element, from the slopes at two points; and the prior."""
    near = values[name]
    far = form.other(near)
    g, prior = _slope(conditional, name, values)
    h, _ = _slope(conditional, name, values | {name: far})
    (a, b), (c, d) = form.derivatives(near), form.derivatives(far)
    determinant = a * d - b * c
    return (g * d - h * b) / determinant, (a * h - c * g) / determinant, prior


def _slope(conditional: Conditional, name: str, values: Values) -> tuple[Tensor, Any]:
    """dL/dθ, of the log-density of all else than the site's prior; and that prior."""
    with gradients():
        at = values[name].detach().clone().requires_grad_()
        log_p, run = conditional.at(values | {name: at})
        prior = run.sites[name]["fn"]
        rest = log_p - prior.log_prob(at).double().sum()
        (slope,) = torch.autograd.grad(rest, at, allow_unused=True, materialize_grads=True)
    return slope.detach(), prior


def _base(fn: Any) -> Any:
    while isinstance(fn, dist.Independent):
        fn = fn.base_dist
    return fn
