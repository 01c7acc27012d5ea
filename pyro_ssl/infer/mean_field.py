"""The factorised posterior q(z) = Π_t q_t(z_t) as a Pyro guide: the baseline.

Its ELBO, and what of it is exact, is in ``mean_field_elbo.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from ..exact import markov_marginals
from ..reading.checks import check_placement, require_discrete, require_one_chain
from ..reading.context import Given, all_or_nothing
from ..reading.emission import read_emission
from ..reading.program import ModelRun, Program
from ..smc import TableEmission
from .blocks import programs_of
from .dirichlet import Counts
from .globals import GlobalSites, HasEstimates
from .markov_em import MarkovEM
from .path_memory import sequence_index

__all__ = ["MarkovPart", "MeanFieldGuide"]

#: lower bound of the start values of q
_FLOOR = 1e-3


class MeanFieldGuide(HasEstimates):
    r"""q(z) = Π_t q_t(z_t) with one free categorical per step of each sequence, as a Pyro guide.

    :param model: a Pyro model with one ``ssl_transition`` over discrete states. Dirichlet sites get
        point estimates (:attr:`values`), from their expected counts under q in closed form, so that
        the model learns as under :class:`~pyro_ssl.StochasticEM` and the two differ in the E-step
        alone. Other latent sites, and rows of the transition, take guides of their own, in an
        ``AutoGuideList``.
    :param str dirichlet: ``"mode"`` or ``"mean"`` of each site's posterior given those counts.
    :param float averaging: weight of the past in the counts, in [0, 1); needed with minibatches.
    :param str name: prefix of the parameter's name, ``"<name>.<site>.logits"``.

    Train it with :class:`~pyro_ssl.MeanFieldELBO`, which is exact where it can be. ``Trace_ELBO``
    works too, by a gradient of much higher variance, and leaves :attr:`values` as they are.

    Example::

        >>> from pyro.infer import SVI
        >>> from pyro.optim import Adam
        >>> from pyro_ssl import LSTMTransition, MeanFieldELBO, ssl_transition
        >>> transition = LSTMTransition(3, 8)
        >>> def model(words):
        ...     pyro.module("transition", transition)
        ...     phi = pyro.sample("phi", dist.Dirichlet(torch.ones(3, 6)).to_event(1))
        ...     with pyro.plate("documents", words.shape[1]):
        ...         for t, z in ssl_transition("z", transition, len(words)):
        ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
        >>> guide, words = MeanFieldGuide(model), torch.randint(6, (7, 4))
        >>> svi = SVI(model, guide, Adam({"lr": 0.05}), loss=MeanFieldELBO(num_particles=4))
        >>> losses = [svi.step(words) for _ in range(3)]
        >>> guide.marginals(words).shape, guide.values["phi"].shape
        (torch.Size([7, 4, 3]), torch.Size([3, 6]))
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        dirichlet: str = "mean",
        averaging: float = 0.0,
        name: str = "mean_field",
    ) -> None:
        self.model, self.name = model, name
        self._globals = GlobalSites("MeanFieldGuide", dirichlet, averaging, free=True)
        self._checked = False
        self._pairs: MarkovPart | None = None
        self._path_name = ""

    @all_or_nothing
    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample the path from q, and put the Dirichlet sites at their estimates."""
        run = self.read(Program(self.model, args, kwargs))
        with torch.no_grad():
            emission = read_emission(run)
        assert isinstance(emission, TableEmission)
        impossible = emission.table == -torch.inf  # (T, B, K), as where z is known
        loop, out = run.loop, {}
        with Given(run.subsamples):
            for name in self._globals.sites:
                site = run.sites[name]
                with _open(site["cond_indep_stack"], loop.device):
                    point = dist.Delta(self.values[name], event_dim=site["fn"].event_dim)
                    out[name] = pyro.sample(name, point)
            with _open(loop.plates, loop.device):
                logits = self._logits(run)
                impossible = impossible.transpose(0, 1).reshape(logits.shape)
                q = dist.Categorical(logits=logits.masked_fill(impossible, -torch.inf))
                active = loop.active()
                if active is not None:
                    q = q.mask(active.movedim(0, -1))
                out[loop.name] = pyro.sample(loop.name, q.to_event(1))
        return out

    @all_or_nothing
    def marginals(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return q(z_t = k), ``(T,) + batch_shape + (K,)``; arguments go to the model."""
        with torch.no_grad(), poutine.block():
            run = self.read(Program(self.model, args, kwargs))
            q = self.log_q(run, run.grid.table()).exp()
        return q.transpose(0, 1).reshape(-1, *run.loop.batch_shape, q.shape[-1])

    @all_or_nothing
    def start_from(
        self,
        hmm: MarkovEM,
        *args: Any,
        batches: Iterable[Sequence[Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        """Start q and the Dirichlet sites from a fitted HMM of the same model.

        The transition stays as it is; ``StochasticEM.start_from`` trains it on the HMM's paths.

        :param batches: see :meth:`MarkovEM.epoch`. Unless they hold all sequences q starts flat.
        """
        starts, index = [], []
        with torch.no_grad(), poutine.block():
            for program in programs_of(self.model, args, kwargs, batches):
                run = self.read(program, hmm.values)
                table = run.grid.table()
                q = markov_marginals(hmm.initial, hmm.matrix, table, lengths=run.grid.lengths)
                starts.append(_log_floored(q.transpose(0, 1)))
                index.append(sequence_index(run))
                self._checked = True
        self._globals.values = {n: run.sites[n]["value"].detach() for n in self._globals.sites}
        self._globals.counts = hmm.counts
        log_q = torch.cat(starts)
        if len(log_q) == run.full_shape.numel():
            log_q = torch.zeros_like(log_q).index_copy_(0, torch.cat(index), log_q)
        pyro.get_param_store()[self._param_name(run)] = self._full(run, log_q)

    @property
    def others(self) -> list[str]:
        """Latent sites that take guides of their own, once a model was read."""
        return list(self._globals.free)

    @property
    def own(self) -> set[str]:
        """Latent sites that this guide is over, once a model was read."""
        return {self._path_name, *self._globals.sites}

    def read(
        self,
        program: Program,
        values: dict[str, Tensor] | None = None,
        others: Mapping[str, Tensor] | None = None,
    ) -> ModelRun:
        """Run the model with its Dirichlet sites at their estimates; the first time, draw them.

        :param values: of the Dirichlet sites, for a start; these are not kept.
        :param others: values of other latent sites; by default they come from their prior.
        """
        run = program.run({**(self.values if values is None else values), **(others or {})})
        require_discrete(run, "MeanFieldGuide")
        require_one_chain(run, "MeanFieldGuide")
        self._path_name = run.loop.name
        if self._checked:
            self._globals.find(run)
            return run
        with torch.no_grad():
            read_emission(run, verify=is_validation_enabled())
        self._globals.check(run)
        # Expected counts are those of the emission.
        self._globals.set_free(run, self._globals.in_transition & self._globals.sites.keys())
        if values is None:
            for name in self._globals.sites:
                self._globals.values.setdefault(name, run.sites[name]["value"].detach())
            self._checked = True
        return run

    def log_q(self, run: ModelRun, table: Tensor) -> Tensor:
        """Return log q_t(k), ``(B, T, K)``, -inf where ``table`` ``(T, B, K)`` is."""
        check_placement(run, table)
        with Given(run.subsamples), _open(run.loop.plates, run.loop.device):
            logits = self._logits(run)
        logits = logits.reshape(-1, *logits.shape[-2:])
        possible = table.transpose(0, 1) > -torch.inf
        return logits.masked_fill(~possible, -torch.inf).log_softmax(-1)

    def expected_counts(self, run: ModelRun, q: Tensor) -> Counts:
        """Return the Dirichlet sites' expected counts under q ``(B, T, K)``."""
        if not self._globals:
            return {}

        def objective(probe: ModelRun) -> tuple[Tensor, Tensor]:
            table = probe.grid.table()
            inside = q.transpose(0, 1) * table.clamp(min=torch.finfo(table.dtype).min)
            return inside.sum(), probe.log_elsewhere(observed=True)

        inside, outside = self._globals.statistics(run, objective)
        return {name: n * run.subsample_factor + outside[name] for name, n in inside.items()}

    def update(self, counts: Counts) -> None:
        """Estimate the Dirichlet sites anew from their expected counts."""
        if self._globals:
            self._globals.estimate(counts)

    def markov_part(self, run: ModelRun) -> MarkovPart:
        """The table a of ``mean_field_elbo.py``."""
        if self._pairs is None:
            K, like = run.transition.num_states, run.grid.table()
            self._pairs = MarkovPart(like.new_zeros(K + 1, K), like.new_zeros(K + 1, 1))
        return self._pairs

    def _param_name(self, run: ModelRun) -> str:
        return f"{self.name}.{run.loop.name}.logits"

    def _logits(self, run: ModelRun) -> Tensor:
        """The parameter, ``batch_shape + (T, K)``; to be called within the loop's plates."""

        def start() -> Tensor:
            with torch.no_grad():
                return self._full(run, _log_floored(run.grid.table().softmax(-1).transpose(0, 1)))

        name, store = self._param_name(run), pyro.get_param_store()
        shape = (*run.full_shape, run.loop.num_steps, run.transition.num_states)
        if name in store and tuple(store[name].shape) != shape:
            raise ValueError(
                f'Site "{run.loop.name}": its q is "{name}" of shape {tuple(store[name].shape)}, '
                f"expected {shape}, a row for each step of each sequence; for other data write "
                'MeanFieldGuide(model, name="other").'
            )
        return pyro.param(name, start, event_dim=2)

    def _full(self, run: ModelRun, log_q: Tensor) -> Tensor:
        """Lay log q of all sequences, ``(N, T, K)``, out over the plates; of fewer, start flat."""
        if len(log_q) != run.full_shape.numel():
            log_q = log_q.new_zeros(run.full_shape.numel(), *log_q.shape[1:])
        log_q = log_q.reshape(run.full_shape + log_q.shape[1:])
        # A little noise: states that start alike would stay so.
        return log_q + 0.1 * torch.randn_like(log_q)


class MarkovPart:
    """Running mean of log p(z_t = k | z_{<t}) given z_{t-1} = j: the best table a, row by row."""

    def __init__(self, sums: Tensor, weights: Tensor) -> None:
        self.sums, self.weights = sums, weights  # (K + 1, K), (K + 1, 1); row K: the first step

    def table(self) -> Tensor:
        """Return a, ``(K + 1, K)``, 0 where nothing is known yet."""
        return self.sums / self.weights.clamp(min=1e-6)

    def add(self, previous: Tensor, log_p: Tensor, active: Tensor) -> None:
        """Take in log p(k | z_{<t}) ``(S, B, T, K)`` with z_{t-1} ``(S, B, T)``."""
        weight = active.to(log_p.dtype).expand(previous.shape).reshape(-1, 1)
        log_p = log_p.reshape(-1, log_p.shape[-1]).clamp(min=-100.0) * weight
        for total, term in ((self.sums, log_p), (self.weights, weight)):
            total.mul_(0.9).index_add_(0, previous.reshape(-1), term)


@contextlib.contextmanager
def _open(frames: Iterable[CondIndepStackFrame], device: torch.device):
    """Enter the plates that a model's site stood in."""
    with contextlib.ExitStack() as stack:
        for frame in frames:
            if frame.vectorized:
                full = frame.full_size or frame.size
                how: Any = {"subsample_size": frame.size, "dim": frame.dim, "device": device}
                # A plate that takes all is the same in every guide of a list: one site is enough.
                hidden = poutine.block() if full == frame.size else contextlib.nullcontext()
                with hidden:
                    plate = pyro.plate(frame.name, full, **how)
                stack.enter_context(plate)
        yield


def _log_floored(q: Tensor) -> Tensor:
    return q.clamp(min=_FLOOR).log()
