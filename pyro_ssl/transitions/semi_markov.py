r"""A semi-Markov chain as transition: states that last for a time of any distribution.

.. math::
    z_1 \sim π, \qquad p(z_t = i \mid z_{t-1} = i, e) = 1 - h_i(e), \qquad
    p(z_t = j \mid z_{t-1} = i, e) = h_i(e) \, A_{ij} \quad (j \ne i),

where e is how long the state has lasted by t-1, and the hazard h_i(e) = p(d = e | d ≥ e) stands for
any distribution of durations d (Yu 2010, "Hidden semi-Markov models"). A state never follows
itself, so that a path tells where each stay begins: e is a function of z_{1:t-1}, no further
latent. From the last hazard on it stays the same: the tail of the durations is geometric. The first
stay begins at step 1, and the last is cut off at T.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import check_probabilities, check_tensor, whole
from .base import DiscreteTransition, Stepper
from .markov import MarkovTransition

__all__ = ["SemiMarkovState", "SemiMarkovTransition"]


class SemiMarkovState(NamedTuple):
    """``last`` ``(...)`` is z_{t-2}, -1 if there is none, and ``elapsed`` how long it had lasted.

    ``elapsed`` is at most D, from where on it tells nothing more.
    """

    last: Tensor
    elapsed: Tensor


class SemiMarkovTransition(DiscreteTransition):
    """A semi-Markov chain over K states, with hazards for stays of 1, 2, ..., D steps and more.

    :param int num_states: K.
    :param int max_duration: D; from there on a stay ends with the same probability at each step.
    :param Tensor initial: p(z_1), ``(K,)``; a learnable parameter where left out.
    :param Tensor jumps: p(next = j | a stay in i ends), 0 where i = j, ``(K, K)``; likewise.
    :param Tensor durations: p(d) of 1 to D steps in each row, ``(K, D)``: stays are never longer.
        Where left out, log-odds of the hazards are the parameter ``hazard_logits``, ``(K, D)``, 0
        at first.
    :raises ValueError: if a tensor is of another shape, or holds no probabilities.

    The path has a site over K states and no more, so all that takes an
    :class:`~pyro_ssl.LSTMTransition` takes it: the samplers, ``StochasticEM``, several chains in a
    loop. :meth:`expanded` is the same as a Markov chain over K D states, for exact answers.

    Example, of stays of three steps::

        >>> durations = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
        >>> chain = SemiMarkovTransition(2, 3, durations=durations)
        >>> chain.log_prob(torch.tensor([[0, 0, 0, 1, 1], [0, 0, 1, 1, 1]])).sum(-1).exp()
        tensor([0.5000, 0.0000], grad_fn=<ExpBackward0>)
    """

    initial_logits: Tensor
    jump_logits: Tensor

    def __init__(
        self,
        num_states: int,
        max_duration: int,
        *,
        initial: Tensor | None = None,
        jumps: Tensor | None = None,
        durations: Tensor | None = None,
    ) -> None:
        super().__init__(num_states)
        K, where = self.num_states, "SemiMarkovTransition"
        D = self.max_duration = whole(where, "max_duration", max_duration, 1)
        given = {"initial": (initial, (K,)), "jumps": (jumps, (K, K))}
        given |= {"durations": (durations, (K, D))}
        write = (
            f"{where}({K}, {D}, initial=p, jumps=A, durations=d) with p (K,), A (K, K), d (K, D)"
        )
        like: Tensor | None = None
        for name, (value, shape) in given.items():
            if value is not None:
                check_tensor(where, name, value, shape, like=like, write=write)
                like = value
                if name != "jumps" or K > 1:
                    check_probabilities(where, name, value, sums=False)
        if jumps is not None and bool(jumps.detach().diagonal().any()):
            raise ValueError(
                f"{where}: jumps has numbers on its diagonal, expected 0: a state never follows "
                "itself, how long it lasts is in durations; write jumps.fill_diagonal_(0.0)."
            )
        like = torch.empty(()) if like is None else like
        # Given probabilities are buffers, through which gradients and sampled values pass.
        for name, value, shape in (
            ("initial_logits", initial, (K,)),
            ("jump_logits", jumps, (K, K)),
        ):
            if value is None:
                self.register_parameter(name, nn.Parameter(like.new_zeros(shape)))
            else:
                self.register_buffer(name, value.log())
        if durations is None:
            self.hazard_logits = nn.Parameter(like.new_zeros(K, D))
        else:
            self.register_buffer("log_durations", durations.log())

    def initial_state(self, batch_shape: torch.Size | tuple[int, ...]) -> SemiMarkovState:
        """Return that of no latent yet."""
        shape, device = torch.Size(batch_shape), self.initial_logits.device
        none = torch.full(shape, -1, dtype=torch.int64, device=device)
        return SemiMarkovState(none, torch.zeros_like(none))

    def log_hazards(self) -> tuple[Tensor, Tensor]:
        """Return log p(a stay of e steps ends), and log p(it goes on), ``(K, D)`` each."""
        if "hazard_logits" in self._parameters:
            return F.logsigmoid(self.hazard_logits), F.logsigmoid(-self.hazard_logits)
        log_p = self.get_buffer("log_durations")
        at_least = log_p.flip(-1).logcumsumexp(-1).flip(-1)  # log p(d >= e)
        longer = F.pad(at_least[:, 1:], (0, 1), value=-math.inf)
        over = at_least == -math.inf  # no stay comes here
        ends = torch.where(over, 0.0, log_p - at_least)
        return ends, torch.where(over, -math.inf, longer - at_least)

    def table(self) -> Tensor:
        """Return log p(z_t | z_{t-1} = i, e) at ``[i, e - 1]``, ``(K, D, K)``."""
        ends, stays = self.log_hazards()
        K = self.num_states
        if K == 1:
            return torch.zeros_like(ends).unsqueeze(-1)
        itself = torch.eye(K, dtype=torch.bool, device=ends.device)
        jumps = self.jump_logits.masked_fill(itself, -math.inf).log_softmax(-1)
        return torch.where(
            itself.unsqueeze(1), stays.unsqueeze(-1), ends.unsqueeze(-1) + jumps.unsqueeze(1)
        )

    def _lasted(self, z: Tensor, state: SemiMarkovState) -> Tensor:
        """How long z_{t-1}, ``(...)``, has lasted, given the state before it was read."""
        going_on = (state.elapsed + 1).clamp(max=self.max_duration)
        return torch.where(z == state.last, going_on, 1)

    def step_logits(
        self, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> tuple[Tensor, SemiMarkovState]:
        """A row of :meth:`table`; see the base class."""
        return self._step(self.table(), z_prev, state)

    def _step(
        self, table: Tensor, z_prev: Tensor | None, state: SemiMarkovState
    ) -> tuple[Tensor, SemiMarkovState]:
        if z_prev is None:
            return self.initial_logits.expand(*state.last.shape, -1), state
        elapsed = self._lasted(z_prev, state)
        return table[z_prev, elapsed - 1], SemiMarkovState(z_prev, elapsed)

    def stepper(self, inputs: Tensor | None = None) -> Stepper:
        """Return a step function with the table made once; see the base class."""
        self._check_inputs("SemiMarkovTransition.stepper", inputs, ("T", "N"))
        table = self.table().detach()

        @torch.no_grad()
        def step(z_prev: Tensor | None, state: Any, t: int) -> tuple[Tensor, Any]:
            logits, state = self._step(table, z_prev, state)
            return logits.detach(), state

        return step

    def _elapsed(self, z: Tensor, first: Tensor) -> Tensor:
        """How long each of z ``(..., S)`` has lasted; ``first`` ``(...)``: of the first of them."""
        place = torch.arange(z.shape[-1], device=z.device)
        new = F.pad(z[..., 1:] != z[..., :-1], (1, 0))
        begin = torch.where(new, place, 0).cummax(-1).values
        before = torch.where(begin == 0, first.unsqueeze(-1) - 1, 0)  # steps ahead of z
        return (place - begin + 1 + before).clamp(max=self.max_duration)

    def path_logits(self, z: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Teacher-forced logits, by one look-up of rows; see the base class."""
        first = self.initial_logits.expand(*z.shape[:-1], 1, self.num_states)
        if z.shape[-1] < 2:
            return first[..., : z.shape[-1], :]
        read = z[..., :-1]
        elapsed = self._elapsed(read, torch.ones_like(read[..., 0]))
        return torch.cat([first, self.table()[read, elapsed - 1]], -2)

    @torch.no_grad()
    def replay(
        self, z: Tensor, z_prev: Tensor | None, state: Any, inputs: Tensor | None = None
    ) -> Tensor:
        """By one look-up for the rest of the paths; see the base class."""
        if z_prev is None:
            return self.log_prob(z)
        read = torch.cat([z_prev.unsqueeze(-1), z[..., :-1]], -1)
        elapsed = self._elapsed(read, self._lasted(z_prev, state))
        log_p = self.table()[read, elapsed - 1].log_softmax(-1)
        return log_p.gather(-1, z.unsqueeze(-1)).squeeze(-1)

    def expanded(self) -> MarkovTransition:
        """Return the Markov chain of (z_t, e_t) over K D states, numbered ``z * D + e - 1``.

        e_t is how long z_t has lasted, D for D steps or more.

        Example::

            >>> chain = SemiMarkovTransition(2, 3).expanded()
            >>> chain.num_states
            6
        """
        K, D = self.num_states, self.max_duration
        table = self.table().exp()
        initial = table.new_zeros(K, D)
        initial[:, 0] = self.initial_logits.softmax(-1)
        matrix = table.new_zeros(K, D, K, D)
        matrix[..., 0] = table
        stays = table.diagonal(dim1=0, dim2=2).T  # (K, D)
        state = torch.arange(K, device=table.device)
        matrix[state, :, state, 0] = 0.0
        for e in range(D):
            matrix[state, e, state, min(e + 1, D - 1)] += stays[:, e]
        return MarkovTransition(
            K * D, initial=initial.flatten(), matrix=matrix.reshape(K * D, K * D)
        )
