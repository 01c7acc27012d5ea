"""Point estimates of latent sites outside the loop that have no closed form: they are parameters.

The parameter is the site's value, in Pyro's store under its constraint, so that a gradient step on
log p(z, x | θ) + log p(θ) climbs to the mode of p(θ | z, x), as under Pyro's ``AutoDelta``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..errors import LatentSiteError
from .free import FreeSite

__all__ = ["PointSites"]


class PointSites(Messenger):
    """Lets sites of a model take the values of parameters; they stay latent, with their priors.

    The parameters are called ``"map.<site>"``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names = frozenset[str]()

    def take(self, sites: Iterable[FreeSite], who: str) -> None:
        """Take these sites from now on.

        :raises LatentSiteError: on a finite one, which no gradient moves.
        """
        sites = list(sites)
        for site in sites:
            if site.is_finite:
                raise LatentSiteError(
                    f'Site "{site.name}": latent, of finitely many values, which {who} cannot '
                    "estimate by gradients; expected a continuous one. Give it: "
                    f'pyro.condition(model, {{"{site.name}": value}}), or draw it by ParticleGibbs.'
                )
        self.names |= {site.name for site in sites}

    @property
    def values(self) -> dict[str, Tensor]:
        """The estimates, by site."""
        store = pyro.get_param_store()
        known = ((name, f"map.{name}") for name in sorted(self.names))
        return {name: store[key].detach() for name, key in known if key in store}

    def within(self, model: Callable[..., Any]) -> Callable[..., Any]:
        """Return the model under this handler, whatever sites it has taken by then."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with self:
                return model(*args, **kwargs)

        return run

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] not in self.names or msg["is_observed"] or msg["value"] is not None:
            return
        fn = msg["fn"]

        def start() -> Tensor:
            with torch.no_grad():
                value = fn.sample()
                for frame in msg["cond_indep_stack"]:
                    full = frame.full_size or frame.size
                    if frame.vectorized and full != frame.size:  # of all, not of the minibatch
                        dim = frame.dim - fn.event_dim
                        index = torch.arange(full, device=value.device) % frame.size
                        value = value.index_select(dim, index)
            return value

        msg["value"] = pyro.param(
            f"map.{msg['name']}", start, constraint=fn.support, event_dim=fn.event_dim
        )
        msg["done"] = True
        msg["infer"]["_ssl_point"] = True
