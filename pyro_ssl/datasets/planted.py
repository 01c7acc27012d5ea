r"""Data with a long memory planted in them, of which everything is known exactly.

Every sequence has one identity i, uniform over M, that shows only in its cues. At each step comes
a cue, or one of F fillers, from a small Markov chain among fillers:

.. math::
    z_t = \begin{cases} \text{cue } j & \text{with probability } ρ_t\,p(j \mid i) \\
    \text{filler } f & \text{with probability } (1 - ρ_t)\,p(f \mid z_{t-1}) \end{cases}
    \qquad p(j = i \mid i) = 1 - \text{slip}

A cue's symbol names a pair of identities, of which its own is one: one cue leaves two identities
possible, two different cues tell which. (With four identities or more there are more pairs than
cue states, so that a latent path cannot merely copy the symbols.) ρ_t may be larger after a cue:
then cues come in bursts, by which even a Markov chain can tell them apart.

A Markov chain over z forgets the identity at the first filler: what links cues across fillers is
long memory. Given the identity, z is a Markov chain: so M forward-backward passes give the
evidence, predictions and marginals exactly.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..exact.chains import markov_log_likelihood, markov_marginals
from ..transitions import DiscreteTransition
from .arguments import as_ids, generator, integer, real

__all__ = [
    "PlantedMemory",
    "PlantedPosterior",
    "PlantedState",
    "PlantedTransition",
    "planted_memory",
]


class PlantedState(NamedTuple):
    """``log_identity`` ``(..., M)``: log p(i | z_{1:t-1})."""

    log_identity: Tensor


class PlantedPosterior(NamedTuple):
    """Exact answers on ``(T, B)`` data.

    ``log_likelihood`` ``(T, B)`` is log p(x_t | x_{1:t-1}), whose sum over steps is the log
    evidence; ``marginals`` ``(T, B, K)`` is p(z_t | x_{1:T}); ``identity`` ``(T, B, M)`` is
    p(i | x_{1:t}), so that its last row is the posterior given everything.
    """

    log_likelihood: Tensor
    marginals: Tensor
    identity: Tensor


class PlantedTransition(DiscreteTransition):
    r"""p(z_t | z_{1:t-1}) of the planted process, with the identity summed out.

    States 0 to M - 1 are the cues, M to K - 1 = M + F - 1 the fillers.

    :param int num_identities: M.
    :param int num_fillers: F; with none every step is a cue.
    :param float cue_probability: ρ_t after a filler and at first, in (0, 1).
    :param float repeat: ρ_t after a cue, in (0, 1).
    :param float slip: probability that a cue is another identity's, in (0, 1). More than 0, or a
        path of two identities would be impossible, and every ELBO of a factorised posterior -∞.
    :param float follow: probability that filler f is followed by f + 1, of the F in a circle, given
        that it is followed by a filler. After a cue any comes.

    Example::

        >>> transition = PlantedTransition(3, 2)
        >>> z = torch.tensor([0, 3, 4, 3, 0])                       # the cue comes back
        >>> other = torch.tensor([0, 3, 4, 3, 1])
        >>> bool(transition.log_prob(z)[-1] - transition.log_prob(other)[-1] > 3)
        True
    """

    def __init__(
        self,
        num_identities: int,
        num_fillers: int,
        *,
        cue_probability: float = 0.3,
        repeat: float = 0.3,
        slip: float = 0.01,
        follow: float = 0.9,
    ) -> None:
        M, F = (
            integer(value, name, "PlantedTransition", least=None)
            for name, value in (("num_identities", num_identities), ("num_fillers", num_fillers))
        )
        if M < 1 or F < 0:
            raise ValueError(
                f"PlantedTransition: found {M} identities and {F} fillers, expected at least 1 and "
                "0; write PlantedTransition(num_identities=3, num_fillers=2)."
            )
        cue_probability, repeat, slip, follow = (
            _share(value, name)
            for name, value in {
                **{"cue_probability": cue_probability, "repeat": repeat},
                **{"slip": slip, "follow": follow},
            }.items()
        )
        super().__init__(M + F)
        self.num_identities, self.num_fillers = M, F
        cue = _sharp(M, 1.0 - slip)  # p(cue j | identity i) in row i
        rate = cue.new_full((M + F + 1, 1), cue_probability)  # of cues after each state; K: first
        rate[:M] = repeat
        if not F:
            rate.fill_(1.0)
        filler = torch.cat([cue.new_full((1, F), 1.0 / max(F, 1)), _sharp(F, follow).roll(1, -1)])
        filler = filler[[0] * M + list(range(1, F + 1)) + [0]]  # (K + 1, F)
        self.log_cue: Tensor
        self.log_rate: Tensor
        self.log_filler: Tensor
        self.register_buffer("log_cue", cue.log())
        self.register_buffer("log_rate", rate.log())
        self.register_buffer("log_filler", ((1.0 - rate) * filler).log())

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> PlantedState:
        """Return the uniform distribution of the identity."""
        M = self.num_identities
        return PlantedState(self.log_cue.new_full((*batch_shape, M), -math.log(M)))

    def step_logits(
        self, z_prev: Tensor | None, state: PlantedState, inputs: Tensor | None = None
    ) -> tuple[Tensor, PlantedState]:
        """Weigh the identities by the last latent, and mix what each expects; see the base."""
        log_identity = state.log_identity
        if z_prev is None:
            z_prev = torch.full_like(log_identity[..., 0], self.num_states, dtype=torch.long)
        log_identity = (log_identity + self._evidence()[z_prev]).log_softmax(-1)
        return self._mix(log_identity, z_prev), PlantedState(log_identity)

    def path_logits(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Teacher-forced logits, by one cumulative sum; see the base class."""
        start = torch.full_like(z[..., :1], self.num_states)
        previous = torch.cat([start, z[..., :-1]], -1)[..., : z.shape[-1]]
        log_identity = self._evidence()[previous].cumsum(-2).log_softmax(-1)  # (..., T, M)
        return self._mix(log_identity, previous)

    def conditional(self, identity: int) -> tuple[Tensor, Tensor]:
        """Return p(z_1 | i) ``(K,)`` and p(z_t | z_{t-1}, i) ``(K, K)`` of one identity."""
        cue = self.log_cue[identity] + self.log_rate
        probs = torch.cat([cue, self.log_filler], -1).exp()  # (K + 1, K)
        return probs[-1], probs[:-1]

    @torch.no_grad()
    def posterior(self, log_emission: Tensor) -> PlantedPosterior:
        """Return the exact posterior, by forward-backward given each identity.

        :param Tensor log_emission: log p(x_t | z_t = k), ``(T, B, K)``.
        """
        chains = [self.conditional(i) for i in range(self.num_identities)]
        given = [markov_log_likelihood(*chain, log_emission) for chain in chains]
        # log p(i, x_{1:t}), (T, B, M)
        log_joint = torch.stack(given, -1).cumsum(0) - math.log(self.num_identities)
        log_evidence = log_joint.logsumexp(-1)  # (T, B)
        before = torch.cat([torch.zeros_like(log_evidence[:1]), log_evidence[:-1]])
        identity = log_joint.softmax(-1)
        marginals = torch.stack([markov_marginals(*chain, log_emission) for chain in chains], -1)
        marginals = (marginals * identity[-1].unsqueeze(-2)).sum(-1)
        return PlantedPosterior(log_evidence - before, marginals, identity)

    def _evidence(self) -> Tensor:
        """What a latent tells of the identity, up to a constant: 0 for fillers; ``(K + 1, M)``."""
        neutral = self.log_cue.new_zeros(self.num_fillers + 1, self.num_identities)
        return torch.cat([self.log_cue.T, neutral])

    def _mix(self, log_identity: Tensor, previous: Tensor) -> Tensor:
        cues = (log_identity.unsqueeze(-1) + self.log_cue).logsumexp(-2)
        return torch.cat([cues + self.log_rate[previous], self.log_filler[previous]], -1)


class PlantedMemory(NamedTuple):
    """Data and the truth about them: ``words`` and ``z`` ``(T, B)``, ``identity`` ``(B,)``, φ
    ``(K, V)``, and the process's :class:`PlantedTransition`.
    """

    words: Tensor
    z: Tensor
    identity: Tensor
    phi: Tensor
    transition: PlantedTransition

    def log_emission(self, words: Tensor | None = None) -> Tensor:
        """Return log p(x_t | z_t = k), ``(T, B, K)``, of these words or of others.

        :raises ValueError: if a word is not one of the V.
        """
        words = self.words if words is None else as_ids(words, "PlantedMemory.log_emission")
        low, high = (int(words.min()), int(words.max())) if words.numel() else (0, 0)
        if not 0 <= low <= high < self.phi.shape[1]:
            raise ValueError(
                f"PlantedMemory.log_emission: found words from {low} to {high}, expected 0 to "
                f"V - 1 = {self.phi.shape[1] - 1}. Write words of the same planted_memory."
            )
        return self.phi.log().T[words]


def planted_memory(
    num_sequences: int,
    num_steps: int,
    *,
    num_identities: int = 3,
    num_fillers: int = 1,
    cue_probability: float = 0.3,
    repeat: float = 0.3,
    noise: float = 0.1,
    slip: float = 0.01,
    follow: float = 0.9,
    seed: int = 0,
) -> PlantedMemory:
    r"""Draw sequences from the planted process.

    Cue i emits the M - 1 symbols of the pairs {i, j} alike, filler f its own symbol; beyond that
    any symbol may come by noise.

    :param int num_sequences: B.
    :param int num_steps: T.
    :param int num_identities: M, at least 3: there is one pair of two.
    :param float noise: share of symbols that are uniform over all V = M (M - 1) / 2 + F.
    :param int seed: of these draws alone; the global generator is left as it is.

    Further parameters are those of :class:`PlantedTransition`.

    Example::

        >>> data = planted_memory(num_sequences=5, num_steps=8, seed=1)
        >>> data.words.shape, data.phi.shape
        (torch.Size([8, 5]), torch.Size([4, 4]))
        >>> exact = data.transition.posterior(data.log_emission())
        >>> exact.identity[-1].argmax(-1).shape
        torch.Size([5])
    """
    caller = "planted_memory"
    num_sequences = integer(num_sequences, "num_sequences", caller, least=0)
    num_steps = integer(num_steps, "num_steps", caller)
    num_identities = integer(num_identities, "num_identities", caller, least=None)
    noise, draw = real(noise, "noise", caller), generator(seed, caller)
    if num_identities < 3 or not 0.0 < noise < 1.0:
        raise ValueError(
            f"planted_memory: found num_identities={num_identities} and noise={noise}, expected "
            "at least 3, and a number in (0, 1)."
        )
    transition = PlantedTransition(
        num_identities,
        num_fillers,
        cue_probability=cue_probability,
        repeat=repeat,
        slip=slip,
        follow=follow,
    )
    M, K = num_identities, transition.num_states
    pairs = list(itertools.combinations(range(M), 2))
    V = len(pairs) + transition.num_fillers
    phi = transition.log_cue.new_full((K, V), noise / V)
    for symbol, pair in enumerate(pairs):
        phi[list(pair), symbol] += (1.0 - noise) / (M - 1)
    phi[M:, len(pairs) :].diagonal().add_(1.0 - noise)

    identity = torch.randint(M, (num_sequences,), generator=draw, device="cpu")
    chains = [transition.conditional(i) for i in range(M)]
    probs = torch.stack([torch.cat([later, first[None]]) for first, later in chains])
    path = [torch.full_like(identity, K)]  # row K: before the first step
    for _ in range(num_steps):
        now = probs[identity, path[-1]]  # (B, K)
        path.append(torch.multinomial(now, 1, generator=draw).squeeze(-1))
    z = torch.stack(path)[1:]
    words = torch.multinomial(phi[z.flatten()], 1, generator=draw).view_as(z)
    return PlantedMemory(words, z, identity, phi, transition)


def _share(value: float, name: str) -> float:
    share = real(value, name, "PlantedTransition")
    if not 0.0 < share < 1.0:
        raise ValueError(f"PlantedTransition: {name} is {value}, expected one in (0, 1).")
    return share


def _sharp(size: int, diagonal: float) -> Tensor:
    """A stochastic matrix with this diagonal, and the rest spread evenly."""
    rest = (1.0 - diagonal) / max(size - 1, 1)
    matrix = torch.full((size, size), rest, device="cpu", dtype=torch.get_default_dtype())
    return matrix.fill_diagonal_(diagonal if size > 1 else 1.0)
