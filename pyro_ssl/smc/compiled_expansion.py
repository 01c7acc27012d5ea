"""The proposal of ``expanded.py`` with its algebra compiled: the same draws, up to rounding."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..kernels import library
from ..kernels.expansion import MAX_DIM, ExpansionSteps
from ..kernels.plain import all_plain
from ..transitions.gaussian import Moments
from .derivatives import EmissionAsks
from .expanded import DEFENSIVE_SHARE, ExpandedProposal
from .proposal import Asks, LookAhead
from .randomness import Randomness

__all__ = ["CompiledExpansion", "expanded_proposal"]


class CompiledExpansion(ExpandedProposal):
    """An :class:`ExpandedProposal` whose steps run compiled where what they are given allows it.

    :param ExpansionSteps compiled: of as many particles.

    Other parameters as for :class:`ExpandedProposal`.
    """

    def __init__(self, compiled: ExpansionSteps, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.compiled = compiled

    def look_ahead(self, t: int, prior: Moments) -> Asks[LookAhead]:
        """Return α̃ and γ̃; see the base class."""
        found = yield from self.asks.expansion(t, prior.mean.detach())
        shapes = (prior.mean.shape[:2], prior.mean.shape, (*prior.mean.shape, self.event_shape[0]))
        fits = all(part.shape == shape for part, shape in zip(found, shapes, strict=True))
        if not (fits and all_plain(*prior, *found)):
            return (yield from self._look_ahead(t, prior, found))
        mode = self.compiled.ahead(*prior, *found)
        at_mode = yield from self.asks.value(t, mode)
        alpha, shift = self.compiled.settle(at_mode)
        return LookAhead(alpha, shift, None)

    def draw(self, t: int, gamma: Any, rows: Tensor) -> Tensor:
        """Draw from γ̃ of each row, or now and then from the transition; see the base class."""
        if gamma is not None:
            return super().draw(t, gamma, rows)
        return self.compiled.draw(rows, self.noise[t], self.defend[t])

    def log_weight(self, t: int, gamma: Any, rows: Tensor, z: Tensor) -> Asks[Tensor]:
        """log p(x_t | z_t) - log α̃ - log [γ̃(z_t) / p(z_t | z_{1:t-1})]; see the base class."""
        if gamma is not None:
            return (yield from super().log_weight(t, gamma, rows, z))
        at_z = yield from self.asks.value(t, z)
        return self.compiled.weigh(rows, z, at_z)

    def finish(self) -> None:
        """Warn as the base class does."""
        self.blind |= self.compiled.blind.bool()
        super().finish()


def expanded_proposal(
    dim: int,
    shape: tuple[int, int, int],
    like: Tensor,
    scale: Tensor | None,
    randomness: Randomness,
    *,
    asks: EmissionAsks,
    name: str,
) -> ExpandedProposal:
    """Return the proposal, compiled where it can be; see :class:`ExpandedProposal`."""
    found, (_, B, P) = library(), shape
    given = (dim, shape, like, scale, randomness)
    if found is None or dim > MAX_DIM or not B or not all_plain(like, scale):
        return ExpandedProposal(*given, asks=asks, name=name)
    compiled = ExpansionSteps(found, (B, P, dim), DEFENSIVE_SHARE, scale)
    return CompiledExpansion(compiled, *given, asks=asks, name=name)
