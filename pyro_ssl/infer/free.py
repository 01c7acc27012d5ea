r"""Latent sites outside the loop that are drawn in no closed form: continuous ones, or finite.

Given the paths, what is left of the model is a Pyro model without loops over unknowns,

.. math:: p(θ \mid z, x, φ) \propto p(z \mid θ) \, p(x \mid z, θ, φ) \, p(θ) \, p(φ \mid θ),

so :class:`Conditional` runs it along the paths, at a cost of O(B T), and ``inner.py`` draws from
it by Pyro's own kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to

from ..errors import LatentSiteError
from ..reading.program import ModelRun
from ..reading.site import base_of

__all__ = ["NUM_DRAWS", "Conditional", "FreeSite", "kind_of"]

#: most values, over all its elements, that a finite site is tried at in one update
MAX_TRIALS = 4096

#: draws of the prior, at the start of a run, that tell what no gradient does: steps in t < cut
NUM_DRAWS = 8


class FreeSite:
    """A latent site of a run, outside its loop.

    :param site: as in a Pyro trace.
    :param str who: the inference class, for messages.
    :raises LatentSiteError: if it can be drawn neither by gradients nor by trying all its values.
    """

    def __init__(self, site: Mapping[str, Any], who: str) -> None:
        fn = site["fn"]
        self.name, self.shape, self.support = site["name"], site["value"].shape, fn.support
        self._value = site["value"].detach()
        if self.support.is_discrete:  # one element is tried after the other
            fn = base_of(fn)
        #: dimensions of one element
        self.event_dim: int = fn.event_dim
        #: values that it can take, ``(N,)`` before the event; ``None``: it is continuous
        self.values: Tensor | None = None
        try:
            if self.support.is_discrete:
                values = fn.enumerate_support(expand=False)
                event = values.shape[values.dim() - fn.event_dim :]
                self.values = values.reshape(len(values), *event)
            else:
                biject_to(self.support)
        except NotImplementedError as error:
            raise LatentSiteError(
                f'Site "{self.name}": latent, of distribution {kind_of(fn)}, which {who} can draw '
                "neither by gradients nor by trying all its values; expected a continuous one, or "
                f'a finite one. Give it: pyro.condition(model, {{"{self.name}": value}}).'
            ) from error
        elements = self.shape[: len(self.shape) - fn.event_dim].numel()
        if self.values is not None and elements * len(self.values) > MAX_TRIALS:
            raise LatentSiteError(
                f'Site "{self.name}": {elements} elements of {len(self.values)} values each, '
                f"expected at most {MAX_TRIALS} in all: {who} tries each of them in every update. "
                "Sum it out by hand: dist.MixtureSameFamily in place of its parameters."
            )

    def check_support(self, other: FreeSite) -> None:
        """Check that its support is the same in another run, at other values of the rest.

        :raises LatentSiteError: if it is not: the map to unconstrained numbers would move with it.
        """
        if self.is_finite or self.shape != other.shape:
            return
        zeros = torch.zeros_like(self.free(self._value))
        if not torch.equal(self.constrained(zeros)[0], other.constrained(zeros)[0]):
            raise LatentSiteError(
                f'Site "{self.name}": its support depends on another latent site, expected a '
                "fixed one; draw it on a fixed support, and scale it: "
                f'{self.name} = upper * pyro.sample("{self.name}", dist.Uniform(0.0, 1.0)).'
            )

    @property
    def is_finite(self) -> bool:
        """Whether it is drawn by trying all its values."""
        return self.values is not None

    def free(self, value: Tensor) -> Tensor:
        """Map a value to unconstrained numbers."""
        return biject_to(self.support).inv(value)

    def constrained(self, free: Tensor) -> tuple[Tensor, Tensor]:
        """Map unconstrained numbers to a value, and log of the Jacobian's determinant."""
        transform = biject_to(self.support)
        value = transform(free)
        return value, transform.log_abs_det_jacobian(free, value).sum()


class Conditional:
    """The log-density of some latent sites outside the loop, given paths and all others.

    :param ModelRun run: of the model at some values.
    :param Tensor path: ``(T, B, ...)``.
    :param fixed: values of the latent sites that do not move, by name.
    :param bool reach_transition: whether those that do may be parameters of the transition.
    """

    def __init__(
        self, run: ModelRun, path: Tensor, fixed: Mapping[str, Tensor], *, reach_transition: bool
    ) -> None:
        self.program, self.path, self.reach_transition = run.program, path, reach_transition
        self.fixed = dict(fixed)
        sites = run.grid.sites
        # Rows of categorical probabilities are looked up; all else is computed along the path.
        self.by_look_up = run.is_discrete and all(site.is_row_per_state() for site in sites)
        batch, event = run.loop.batch_shape, run.transition.event_shape
        self.states = path.reshape(1, len(path), *batch, *event)

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return log p(θ, z, x) up to what does not depend on θ: a scalar, float64."""
        return self.at(values)[0]

    def at(self, values: Mapping[str, Tensor], without: str = "") -> tuple[Tensor, ModelRun]:
        """Return the same, and the run that it is of; without one site's prior."""
        given = {**self.fixed, **values}
        if self.by_look_up:
            run = self.program.run(given)
            inside = run.log_emission(self.path)
        else:
            run = self.program.run(given, self.states)
            inside = torch.stack([site.table() for site in run.grid.sites]).sum((0, 1, 3))
        if self.reach_transition:
            inside = inside + run.log_transition(self.path)
        latent = run.log_elsewhere(observed=False, without=without)
        elsewhere = run.log_elsewhere(observed=True) + latent
        return inside.double().sum() + elsewhere, run


def kind_of(fn: Any) -> str:
    """Name of a distribution's class."""
    return type(base_of(fn)).__name__
