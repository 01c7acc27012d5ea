r"""Exact EM for the Markov version of a model: a baseline, and a start for stochastic EM.

The user's own model, with its LSTM transition replaced by a Markov chain over the same states, is
an HMM; its E-step is exact (forward–backward), so EM leaves the symmetric start in seconds, where
stochastic EM sits on a plateau for very long.

Expected counts are gradients of log p(x) (Eisner 2016, "Inside-outside and forward-backward
algorithms are just backprop"): with respect to log-emissions, the posterior p(z_t | x); with
respect to log transition probabilities, expected transitions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Dirichlet
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from ..exact import markov_log_likelihood, sample_markov_paths
from ..gradients import gradients
from ..reading.checks import require_discrete
from ..reading.context import all_or_nothing
from ..reading.emission import read_emission
from ..reading.program import ModelRun, Program
from ..transitions import MarkovTransition
from .dirichlet import normalised
from .globals import GlobalSites, HasEstimates
from .scores import perplexity, scored_cells

__all__ = ["MarkovEM"]


class MarkovEM(HasEstimates):
    r"""Fit the HMM that a model becomes when its transition is a Markov chain.

    :param model: a Pyro model with one ``ssl_transition`` over discrete states. Its Dirichlet
        sites are estimated in closed form; ``pyro.param`` sites stay as they are.
    :param str dirichlet: ``"mean"`` or ``"mode"`` of each site's posterior given expected counts;
        see :class:`~pyro_ssl.StochasticEM`.
    :param float smoothing: pseudo-counts in each row of the Markov chain, spread over the K
        states; rows that are hardly visited then do not overfit.

    Example::

        >>> import pyro, pyro.distributions as dist
        >>> from pyro_ssl import LSTMTransition, ssl_transition
        >>> transition = LSTMTransition(3, 8)
        >>> def model(words):
        ...     phi = pyro.sample("phi", dist.Dirichlet(torch.ones(3, 6)).to_event(1))
        ...     with pyro.plate("documents", words.shape[1]):
        ...         for t, z in ssl_transition("z", transition, len(words)):
        ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
        >>> words = torch.randint(6, (7, 4))
        >>> hmm = MarkovEM(model)
        >>> losses = [hmm.step(words) for _ in range(5)]
        >>> hmm.log_likelihood(words).shape
        torch.Size([7, 4])
    """

    def __init__(
        self, model: Callable[..., Any], *, dirichlet: str = "mean", smoothing: float = 1.0
    ) -> None:
        self.model, self.smoothing = model, smoothing
        self._globals = GlobalSites("MarkovEM", kind=dirichlet)
        self._chain: tuple[Tensor, Tensor] | None = None
        self._checked = False

    def __copy__(self) -> MarkovEM:
        """Return a copy whose fit continues independently."""
        twin = object.__new__(type(self))
        twin.__dict__ |= self.__dict__ | {"_globals": copy.copy(self._globals)}
        return twin

    @property
    def initial(self) -> Tensor:
        """p(z_1), ``(K,)``."""
        return self._fitted[0]

    @property
    def matrix(self) -> Tensor:
        """p(z_t = j | z_{t-1} = i) in row i, ``(K, K)``."""
        return self._fitted[1]

    @property
    def _fitted(self) -> tuple[Tensor, Tensor]:
        if self._chain is None:
            raise RuntimeError("Nothing is fitted yet; write hmm.step(*args) first.")
        return self._chain

    @property
    def transition(self) -> MarkovTransition:
        """The fitted chain, to put in place of the model's transition."""
        return MarkovTransition(len(self.initial), initial=self.initial, matrix=self.matrix)

    def start_from(self, initial: Tensor, matrix: Tensor, **values: Tensor) -> MarkovEM:
        """Begin EM here, in place of random draws; return this object.

        :param Tensor initial: p(z_1), ``(K,)``.
        :param Tensor matrix: p(z_t = j | z_{t-1} = i) in row i, ``(K, K)``. A 0 stays 0 under EM,
            except through ``smoothing``.
        :param values: of every Dirichlet site of the model, by its name.
        :raises ValueError: if the shapes do not fit; :meth:`step` says which site has no value.

        Example::

            >>> import pyro, pyro.distributions as dist
            >>> from pyro_ssl import MarkovTransition, ssl_transition
            >>> def model(words):
            ...     phi = pyro.sample("phi", dist.Dirichlet(torch.ones(2, 3)).to_event(1))
            ...     with pyro.plate("documents", words.shape[1]):
            ...         for t, z in ssl_transition("z", MarkovTransition(2), len(words)):
            ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
            >>> phi = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
            >>> hmm = MarkovEM(model).start_from(torch.ones(2) / 2, torch.ones(2, 2) / 2, phi=phi)
            >>> hmm.perplexity(torch.tensor([[0], [1], [2]]))
            3.6...
        """
        K = len(initial)
        if initial.shape != (K,) or matrix.shape != (K, K):
            raise ValueError(
                f"MarkovEM.start_from: found initial {tuple(initial.shape)} and matrix "
                f"{tuple(matrix.shape)}, expected (K,) and (K, K)."
            )
        self._chain, self._globals.values = (initial.detach(), matrix.detach()), dict(values)
        return self

    def for_model(self, model: Callable[..., Any]) -> MarkovEM:
        """Return this fit for another model of the same emission and as many states."""
        twin = copy.copy(self)
        twin.model, twin._checked = model, False
        return twin

    @all_or_nothing
    @poutine.block()
    def step(self, *args: Any, **kwargs: Any) -> float:
        """One EM iteration on all data; returns -log p(x) before it, in nats."""
        program = Program(self.model, args, kwargs)
        run = self._run(program)
        if missing := sorted(self._globals.sites.keys() - self.values.keys()):
            raise ValueError(
                f"MarkovEM: no value to start from was given for {missing}, found "
                f"{sorted(self.values)}; write hmm.start_from(initial, matrix, {missing[0]}=...)."
            )
        log_initial = self.initial.log().requires_grad_()
        log_matrix = self.matrix.log().requires_grad_()
        with gradients():
            table = run.grid.table().detach().requires_grad_()
            log_p = self._forward(run, table, log_initial.exp(), log_matrix.exp()).sum()
            wanted = (table, log_initial, log_matrix)
            posterior, from_start, moves = torch.autograd.grad(
                log_p, wanted, materialize_grads=True
            )

        def objective(probe: ModelRun) -> tuple[Tensor]:
            elsewhere = probe.log_elsewhere(observed=True)
            return ((posterior * probe.grid.table()).sum() + elsewhere,)

        if self._globals:
            counts = self._globals.statistics(run, objective)[0]
            self._globals.estimate(counts)
        K = len(self.initial)
        self._chain = (
            normalised(from_start + self.smoothing / K),
            normalised(moves + self.smoothing / K),
        )
        return -log_p.item()

    @all_or_nothing
    @torch.no_grad()
    @poutine.block()
    def log_likelihood(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return log p(x_t | x_{1:t-1}), exact, ``(T,) + batch_shape``."""
        run = self._run(Program(self.model, args, kwargs))
        log_p = self._forward(run, run.grid.table(), self.initial, self.matrix)
        return log_p.reshape((-1,) + run.loop.batch_shape)

    @all_or_nothing
    @torch.no_grad()
    @poutine.block()
    def perplexity(self, *args: Any, start: int = 0, **kwargs: Any) -> float:
        """Return exp(-mean log p(x_t | x_{1:t-1})) over the observed steps from ``start`` on.

        :raises ValueError: if nothing is left to score.
        """
        run = self._run(Program(self.model, args, kwargs))
        cells = scored_cells(run, start)
        return perplexity(self._forward(run, run.grid.table(), self.initial, self.matrix), cells)

    @all_or_nothing
    @torch.no_grad()
    @poutine.block()
    def sample_paths(self, *args: Any, **kwargs: Any) -> Tensor:
        """Draw z ~ p(z | x) of the HMM, int64, ``batch_shape + (T,)``."""
        run = self._run(Program(self.model, args, kwargs))
        path = sample_markov_paths(
            self.initial,
            self.matrix,
            run.grid.table(),
            lengths=run.grid.lengths,
            scale=run.grid.transition_scale,
        )
        return run.unflatten(path)

    def _forward(self, run: ModelRun, table: Tensor, initial: Tensor, matrix: Tensor) -> Tensor:
        return markov_log_likelihood(
            initial, matrix, table, lengths=run.grid.lengths, scale=run.grid.transition_scale
        )

    def _run(self, program: Program) -> ModelRun:
        """Run the model; the first time, check it and break the symmetry between the states."""
        with torch.no_grad():
            run = program.run(self.values)
            require_discrete(run, "MarkovEM")
            K = run.transition.num_states
            if self._chain is not None and len(self.initial) != K:
                raise ValueError(
                    f"MarkovEM: the chain has {len(self.initial)} states, expected {K}, as "
                    f"many as the model's {type(run.transition).__name__}."
                )
            read_emission(run, verify=is_validation_enabled() and not self._checked)
            if self._checked:
                self._globals.find(run)
            else:
                self._globals.check(run)
                self._checked = True
            if self._chain is not None:
                return run
            flat = torch.ones(K, dtype=run.transition.like.dtype, device=run.loop.device)
            self._chain = (flat / K, Dirichlet(flat.expand(K, K)).sample())
            self._globals.values = {n: s.flat_draw() for n, s in self._globals.sites.items()}
            return program.run({**run.subsamples, **self.values})
