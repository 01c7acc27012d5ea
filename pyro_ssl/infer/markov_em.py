r"""Exact EM for the Markov version of a model: a baseline, and a start for stochastic EM.

The user's own model, with its LSTM transition replaced by a Markov chain over the same states, is
an HMM; its E-step is exact (forward–backward), so EM leaves the symmetric start in seconds, where
stochastic EM sits on a plateau for very long.

Next file to read: ``expected.py``, its expected counts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Dirichlet
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from ..exact import markov_log_likelihood, sample_markov_paths
from ..reading.checks import require_discrete
from ..reading.context import all_or_nothing
from ..reading.emission import read_emission
from ..reading.program import ModelRun, Program
from ..smc import TableEmission
from ..transitions import MarkovTransition
from .blocks import check_share, programs_of
from .dirichlet import normalised
from .expected import Expected, chain_counts
from .globals import GlobalSites, HasEstimates
from .point import PointSites
from .scores import scored_cells
from .sharded import current, over_ranks, together

__all__ = ["MarkovEM"]


class MarkovEM(HasEstimates):
    r"""Fit the HMM that a model becomes when its transition is a Markov chain.

    :param model: a Pyro model with one ``ssl_transition`` over discrete states, whose Dirichlet
        sites are estimated in closed form.
    :param str dirichlet: ``"mean"`` or ``"mode"`` of each site's posterior given expected counts;
        see :class:`~pyro_ssl.StochasticEM`.
    :param float smoothing: pseudo-counts in each row of the chain, over all K states.
    :param free: of :class:`~pyro_ssl.StochasticEM`: its estimates of sites without a closed form.

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
        self,
        model: Callable[..., Any],
        *,
        dirichlet: str = "mean",
        smoothing: float = 1.0,
        free: PointSites | None = None,
    ) -> None:
        if not 0.0 <= smoothing < math.inf:
            raise ValueError(f"smoothing is {smoothing}, expected pseudo-counts, at least 0.")
        self.model, self.smoothing = model, smoothing
        self._globals = GlobalSites("MarkovEM", kind=dirichlet, free=free)
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
        :param Tensor matrix: ``(K, K)``, see :attr:`matrix`. Without ``smoothing`` a 0 stays 0.
        :param values: of every Dirichlet site of the model, by name.
        :raises ValueError: if the shapes do not fit.

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
        if initial.dim() != 1 or matrix.shape != initial.shape * 2:
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

    def step(self, *args: Any, **kwargs: Any) -> float:
        """One EM iteration on all data; returns -log p(x) before it, in nats.

        Where a plate around the loop is subsampled, both are scaled to all of its sequences.
        """
        return self.epoch([()], *args, **kwargs)

    @together("MarkovEM.epoch")
    @poutine.block()
    def epoch(self, batches: Iterable[Sequence[Any]], *args: Any, **kwargs: Any) -> float:
        """One EM iteration on all data, a batch in memory at a time: the same as :meth:`step`.

        :param batches: for each a tuple of positional arguments of the model, that follow ``args``.
            The model tells which sequences these are by ``pyro.plate(name, N, subsample=index)``.
        :returns: -log p(x) before it, in nats.
        :raises ValueError: if there is no batch, or a sequence in two.

        Example::

            >>> import pyro, pyro.distributions as dist
            >>> from pyro_ssl import MarkovTransition, ssl_transition
            >>> def model(words, index=None):
            ...     phi = pyro.sample("phi", dist.Dirichlet(torch.ones(2, 3)).to_event(1))
            ...     with pyro.plate("documents", words.shape[1], subsample=index) as index:
            ...         for t, z in ssl_transition("z", MarkovTransition(2), len(words)):
            ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[:, index][t])
            >>> words, hmm = torch.randint(3, (7, 10)), MarkovEM(model)
            >>> losses = [hmm.epoch([(words, i) for i in torch.arange(10).split(4)])]
            >>> same_as_step = hmm.epoch([(words,)])
        """
        total: Expected | None = None
        for program in programs_of(self.model, args, kwargs, batches):
            run, now = self._expect(program)
            total = now if total is None else total.plus(now)
        total = over_ranks(total)
        check_share(run, total.share)
        return self._estimate(total.scaled())

    def _estimate(self, total: Expected) -> float:
        """Estimate all anew from the counts of all data; return -log p(x) before it."""
        if self._globals:
            self._globals.estimate(total.counts)
        a, like = self.smoothing / len(self.initial), self.initial
        start, moves = (normalised(n + a, like.dtype).to(like) for n in (total.start, total.moves))
        self._chain = start, moves
        return -float(total.log_p)

    def _expect(self, program: Program) -> tuple[ModelRun, Expected]:
        """Run the model on a batch; return the expected counts there."""
        run, table = self._read(program)
        if missing := sorted(self._globals.sites.keys() - self.values.keys()):
            raise ValueError(
                f"MarkovEM: no value to start from was given for {missing}, found "
                f"{sorted(self.values)}; write hmm.start_from(initial, matrix, {missing[0]}=...)."
            )
        share, given = 1.0 / run.subsample_factor, (run.grid.lengths, run.grid.transition_scale)
        chain = chain_counts(*self._fitted, self._weighed(run, table), *given)

        def objective(probe: ModelRun) -> tuple[Tensor]:
            # Plates scale what they subsample up to all sequences, and what stands outside of them
            # is in every batch: either way a batch has its share.
            elsewhere = probe.log_elsewhere(observed=True) * share
            return ((chain.posterior * probe.grid.table()).sum() + elsewhere,)

        counts = self._globals.statistics(run, objective)[0] if self._globals else {}
        log_p, start, moves = (n.double() for n in (chain.log_p, chain.start, chain.moves))
        return run, Expected(share, log_p, start, moves, counts)

    def _weighed(self, run: ModelRun, table: Tensor) -> Tensor:
        return table  # that expected counts are under

    @all_or_nothing
    @torch.no_grad()
    @poutine.block()
    def log_likelihood(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return log p(x_t | x_{1:t-1}), exact, ``(T,) + batch_shape``."""
        run, table = self._read(Program(self.model, args, kwargs))
        log_p = self._forward(run, table)
        return log_p.reshape((-1,) + run.loop.batch_shape)

    @together("MarkovEM.perplexity")
    @torch.no_grad()
    @poutine.block()
    def perplexity(
        self,
        *args: Any,
        start: int = 0,
        batches: Iterable[Sequence[Any]] | None = None,
        **kwargs: Any,
    ) -> float:
        """Return exp(-mean log p(x_t | x_{1:t-1})) over the observed steps from ``start`` on.

        :param batches: see :meth:`epoch`; the mean is over the steps of all of them.
        :raises ValueError: if nothing is left to score.
        """
        total: Any = 0.0
        num_cells = 0
        for program in programs_of(self.model, args, kwargs, batches):
            run, table = self._read(program)
            cells = scored_cells(run, start, at_least_one=False)
            log_p = self._forward(run, table)
            total = total + log_p[cells].double().sum()
            num_cells += int(cells.sum())
        total, num_cells = current().totals("scores", total, num_cells)
        if not num_cells:
            scored_cells(run, start)  # says so
        return float((-total / num_cells).exp())

    @all_or_nothing
    @torch.no_grad()
    @poutine.block()
    def sample_paths(self, *args: Any, **kwargs: Any) -> Any:
        """Draw z ~ p(z | x) of the HMM, int64, ``batch_shape + (T,)``; by site if several."""
        run, path = self.draw(Program(self.model, args, kwargs))
        return run.result(path)

    def draw(self, program: Program) -> tuple[ModelRun, Tensor]:
        """Draw the samplers' path, ``(T, B)``; see :meth:`sample_paths`."""
        run, table = self._read(program)
        given = {"lengths": run.grid.lengths, "scale": run.grid.transition_scale}
        return run, sample_markov_paths(self.initial, self.matrix, table, **given)

    def _forward(self, run: ModelRun, table: Tensor) -> Tensor:
        lengths, scale = run.grid.lengths, run.grid.transition_scale
        return markov_log_likelihood(*self._fitted, table, lengths=lengths, scale=scale)

    def _read(self, program: Program) -> tuple[ModelRun, Tensor]:
        """Run the model, and return its table too, ``(T, B, K)``.

        The first time, check it and break the symmetry between the states.
        """
        with torch.no_grad(), current().shared(not self._checked or self._chain is None):
            run = program.run(self.values)
            require_discrete(run, "MarkovEM")
            K = run.transition.num_states
            if self._chain is not None and len(self.initial) != K:
                raise ValueError(
                    f"MarkovEM: the chain has {len(self.initial)} states, expected {K}, as "
                    f"many as the model's {type(run.transition).__name__}."
                )
            emission = read_emission(run, verify=is_validation_enabled() and not self._checked)
            if self._checked:
                self._globals.find(run)
            elif self._globals.check(run):
                return self._read(program)
            self._checked = True
            if self._chain is None:
                flat = torch.ones(K, dtype=run.transition.like.dtype, device=run.loop.device)
                self._chain = (flat / K, Dirichlet(flat.expand(K, K)).sample())
                sites = self._globals.sites.items()
                self._globals.values = {name: site.flat_draw() for name, site in sites}
                run = program.run({**run.subsamples, **self.values})
                return run, run.grid.table()
            assert isinstance(emission, TableEmission)
            return run, emission.table
