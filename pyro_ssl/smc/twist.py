r"""Particles that look beyond x_t: twisted proposals.

Let β_t(z_t) > 0 be any guess at p(x_{t+1:T} | z_t), with β_T = 1. Ancestors and latents are drawn
as if it belonged to the emission,

.. math:: α̃_t = ∫ p(z_t | z_{1:t-1}) p(x_t | z_t) β_t(z_t) dz_t, \qquad
          γ̃_t(z_t) = p(z_t | z_{1:t-1}) p(x_t | z_t) β_t(z_t) / α̃_t,

and the weight w_t = 1 / β_t(z_t) takes it back. ``sweep.py`` is right for any α̃ and γ̃, so it is
for any β that does not depend on the reference path: the draws stay exact, and a good guess makes
them nearly independent. Were the transition a Markov chain and β its own backward message, then
w_{t-1} α̃_t would be the same for all particles, and a sweep an independent draw (Whiteley & Lee
2014, "Twisted particle filters"; Guarniero, Johansen & Lee 2017, "The iterated auxiliary particle
filter").

Next file to read: ``surrogate.py``, where β comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .proposal import Asks, LookAhead, Proposal

__all__ = ["TwistedProposal"]


class TwistedProposal(Proposal):
    """A proposal for p(x_t | z_t) β_t(z_t), and the weights that take β back.

    :param Proposal proposal: one of the emission times β.
    :param log_twist: (t, z) to log β_t(z), ``(B, P)``.
    """

    def __init__(self, proposal: Proposal, log_twist: Callable[[int, Tensor], Tensor]) -> None:
        self.proposal, self.log_twist = proposal, log_twist
        self.event_shape, self.dtype = proposal.event_shape, proposal.dtype

    def prior(self, predicted: Any) -> Any:
        """Return that of the proposal within, which knows of no twist; see the base class."""
        return self.proposal.prior(predicted)

    def look_ahead(self, t: int, prior: Any) -> Asks[LookAhead]:
        """Return α̃ and γ̃ of the product; see the base class."""
        return self.proposal.look_ahead(t, prior)

    def draw(self, t: int, gamma: Any, rows: Tensor) -> Tensor:
        """Draw from γ̃; see the base class."""
        return self.proposal.draw(t, gamma, rows)

    def log_weight(self, t: int, gamma: Any, rows: Tensor, z: Tensor) -> Asks[Tensor]:
        """Return -log β_t(z), and what the proposal within has to make up for."""
        log_w = yield from self.proposal.log_weight(t, gamma, rows, z)
        log_beta = self.log_twist(t, z)
        return -log_beta if log_w is None else log_w - log_beta

    def log_prior(self, prior: Any, z: Tensor) -> Tensor:
        """Return log p(z_t | z_{1:t-1}), which β is no part of; see the base class."""
        return self.proposal.log_prior(prior, z)

    def scaled(self, log_prior: Tensor, which: Tensor | slice = slice(None)) -> Tensor:
        """Scale log-probabilities; see the base class."""
        return self.proposal.scaled(log_prior, which)

    def finish(self) -> None:
        """Warn as the proposal within does."""
        self.proposal.finish()
