r"""Draws of other latent sites given the paths: closed forms, Pyro's NUTS or HMC, or all values.

Each update leaves p(θ | z, x, φ) invariant, so together with the sweep of paths and the conjugate
draws it leaves the joint posterior so (Andrieu, Doucet & Holenstein 2010, section 2.4.3). The
potential changes with every sweep: what a kernel keeps of it is thrown away. Step size and mass
matrix are adapted in the warm-up and then stay, so that the kernel is one and the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro.infer.mcmc import HMC, NUTS
from torch import Tensor

from ..gradients import gradients
from ..reading.context import undrawn
from .conjugate import Form, draw_conjugate
from .free import Conditional, FreeSite
from .inner_state import kernel_state, put_kernel

__all__ = ["InnerKernels", "check_inner_kernel"]

#: makes a kernel of Pyro's from ``potential_fn=``
Make = Callable[..., HMC]


def check_inner_kernel(inner_kernel: Any) -> None:
    """Check the argument of that name.

    :raises TypeError: if it is no kernel, and no dict of them.
    """
    makes = inner_kernel.values() if isinstance(inner_kernel, Mapping) else [inner_kernel]
    for make in makes:
        if not callable(make) or isinstance(make, HMC):
            raise TypeError(
                f"inner_kernel is {make!r}, expected NUTS, HMC, or what makes one of them: "
                "inner_kernel=functools.partial(HMC, step_size=0.1, num_steps=5); or a dict of "
                "such by site."
            )


class InnerKernels:
    """Draws the free sites of one chain, block by block.

    :param sites: by name.
    :param inner_kernel: ``NUTS``, ``HMC``, or what makes one from ``potential_fn=``; or a dict of
        such by site: sites of one are drawn together, and those not named by NUTS.
    :param int warmup_steps: updates in which step sizes and mass matrices are adapted.
    :param forms: sites that have a closed form after all; those that the dict names are not drawn
        by it.
    :raises ValueError: if the dict names a site that is not among these.
    """

    def __init__(
        self,
        sites: Mapping[str, FreeSite],
        inner_kernel: Any,
        warmup_steps: int,
        forms: Mapping[str, Form] | None = None,
    ) -> None:
        self.sites, self.warmup_steps = dict(sites), warmup_steps
        by_site = inner_kernel if isinstance(inner_kernel, Mapping) else {}
        self.forms = {name: f for name, f in (forms or {}).items() if name not in by_site}
        moving = [n for n, site in sites.items() if not site.is_finite and n not in self.forms]
        if unknown := sorted(by_site.keys() - set(moving)):
            raise ValueError(
                f"inner_kernel names {unknown}, expected continuous latent sites of the model that "
                f"are not drawn in closed form: {moving}."
            )
        blocks: dict[Any, list[str]] = {}
        for name in moving:
            default = NUTS if by_site else inner_kernel
            blocks.setdefault(by_site.get(name, default), []).append(name)
        self.blocks = [_GradientBlock(make, names) for make, names in blocks.items()]

    def update(self, conditional: Conditional, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Draw each block given the others; the paths are the conditional's."""
        for name, site in self.sites.items():
            if site.is_finite:
                values = {**values, name: _try_all(conditional, site, values)}
        for name, form in self.forms.items():
            values = {**values, name: draw_conjugate(conditional, name, form, values)}
        for block in self.blocks:
            values = block.update(conditional, self.sites, values, self.warmup_steps)
        return values

    def report(self) -> dict[str, dict[str, float]]:
        """Return step size, acceptance rate and divergences of each block's kernel, by site."""
        return {name: block.report() for block in self.blocks for name in block.names}


class _GradientBlock:
    """Sites that one kernel of Pyro's draws together, in unconstrained numbers."""

    def __init__(self, make: Make, names: list[str]) -> None:
        self.names, self._target = names, _Target()
        self.kernel = make(potential_fn=self._target)
        self._is_set_up = False
        self._waiting: dict[str, Any] | None = None  # a state, until the kernel is set up

    def update(
        self,
        conditional: Conditional,
        sites: Mapping[str, FreeSite],
        values: dict[str, Tensor],
        warmup_steps: int,
    ) -> dict[str, Tensor]:
        moving = {name: sites[name] for name in self.names}
        rest = {name: value for name, value in values.items() if name not in moving}
        free = {name: site.free(values[name]).detach() for name, site in moving.items()}
        self._target.aim(conditional, moving, rest)
        # Proposals may lie where a density is NaN: they are refused, and are no error.
        with gradients(), pyro.validation_enabled(False):
            if not self._is_set_up:
                self._set_up(free, warmup_steps)
            self.kernel.clear_cache()  # of another path's potential
            drawn = self.kernel.sample(free)
        with torch.no_grad():
            new = {name: site.constrained(drawn[name])[0] for name, site in moving.items()}
        return values | {name: value.detach() for name, value in new.items()}

    def _set_up(self, free: dict[str, Tensor], warmup_steps: int) -> None:
        self.kernel.initial_params = free
        if self._waiting is None:
            self.kernel.setup(warmup_steps)
        else:  # the step size that a setup looks for is thrown away, so it costs no random number
            with undrawn(next(iter(free.values())).device):
                self.kernel.setup(warmup_steps)
            put_kernel(self.kernel, self._waiting)
        self._is_set_up, self._waiting = True, None

    @property
    def state(self) -> dict[str, Any] | None:
        """What the kernel has adapted to, and how far it is; to be set, to go on from there."""
        return kernel_state(self.kernel) if self._is_set_up else self._waiting

    @state.setter
    def state(self, state: dict[str, Any] | None) -> None:
        self._waiting, self._is_set_up = state, False

    def report(self) -> dict[str, float]:
        """Return what a user asks of such a kernel."""
        kernel = self.kernel
        return {
            "step_size": float(kernel.step_size),
            "accept_prob": float(kernel._mean_accept_prob),
            "divergences": float(len(kernel._divergences)),
        }


class _Target:
    """The potential energy -log p(θ(u) | ...) - log |dθ/du| of unconstrained numbers u."""

    def aim(
        self,
        conditional: Conditional,
        moving: Mapping[str, FreeSite],
        rest: Mapping[str, Tensor],
    ) -> None:
        """Set what is given: from now on it is the potential of this path."""
        self.conditional, self.moving, self.rest = conditional, dict(moving), dict(rest)

    def __call__(self, free: Mapping[str, Tensor]) -> Tensor:
        values, log_jacobian = dict(self.rest), torch.zeros((), device="cpu", dtype=torch.float64)
        for name, site in self.moving.items():
            values[name], log_det = site.constrained(free[name])
            log_jacobian = log_jacobian.to(log_det.device) + log_det
        like = free[next(iter(self.moving))]
        return -(self.conditional.log_prob(values) + log_jacobian).to(like.dtype)


@torch.no_grad()
def _try_all(conditional: Conditional, site: FreeSite, values: dict[str, Tensor]) -> Tensor:
    """Draw each element of a finite site given all others: a Gibbs scan."""
    assert site.values is not None
    now = values[site.name].clone()
    batch = now.shape[: now.dim() - site.event_dim]
    for place in itertools.product(*(range(n) for n in batch)):
        log_p = []
        for value in site.values:
            tried = now.clone()
            tried[place] = value
            log_p.append(conditional.log_prob({**values, site.name: tried}))
        which = torch.distributions.Categorical(logits=torch.stack(log_p)).sample()
        now[place] = site.values[which]
    return now
