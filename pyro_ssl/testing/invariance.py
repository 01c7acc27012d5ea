"""Is the sampler exact on your model? A test that needs no oracle.

:func:`invariance_test` starts one sweep at exact posterior draws, made by enumerating all paths,
and asks whether the sweep ends at exact posterior draws. There is no burn-in and no
autocorrelation, so with 100,000 replicates small errors show.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from ..arguments import at_least
from ..errors import NonFiniteError, SMCFailed
from ..exact import Enumeration, enumerate_paths
from ..infer.estep import SMCSettings, draw_paths
from ..infer.twisting import Twisting
from ..reading.checks import require_discrete
from ..reading.context import all_or_nothing
from ..reading.emission import read_emission
from ..reading.program import ModelRun, Program
from ..smc import TableEmission
from ..steps import steps_within

__all__ = ["InvarianceResult", "chi_square", "chi_square_tail", "invariance_test"]

#: with more paths than this, each has too few replicates for a test
MAX_PATHS = 10_000
#: rows of particles that are swept at a time
MAX_ROWS = 2**16


class InvarianceResult(NamedTuple):
    """What :func:`invariance_test` found.

    ``p_value`` of the hypothesis that the sweep leaves the posterior invariant; ``statistic`` and
    ``num_degrees`` the chi-square statistic behind it and its degrees of freedom.
    ``change_rate`` ``(T, B)`` is how often z_t changed in the sweep, and ``independent_rate`` how
    often it would between two independent posterior draws; both are 0 past a sequence's length.
    """

    p_value: float
    statistic: float
    num_degrees: int
    change_rate: Tensor
    independent_rate: Tensor


@all_or_nothing
@torch.no_grad()
@poutine.block()
def invariance_test(
    model: Callable[..., Any],
    *args: Any,
    num_particles: int = 3,
    num_replicates: int = 100_000,
    resampling: str = "systematic",
    ancestor_sampling: int = 1,
    twist: Any = None,
    seed: int = 0,
    **kwargs: Any,
) -> InvarianceResult:
    r"""Test that one conditional sweep leaves the exact posterior of a small model invariant.

    For each sequence: enumerate its K\ :sup:`T` paths, draw ``num_replicates`` of them from their
    exact posterior, make *one* sweep from each, and compare the distribution of the results with
    the posterior (chi-square). Latent sites other than the path are drawn once from their prior,
    and kept. Give few particles, 2 or 3: that is where errors show.

    If all is right, the p-value is uniform: below 0.01 once in a hundred seeds. So ask for
    ``p_value > 1e-6``, and never repeat a test until it passes.

    Invariance alone is no proof: a sampler that returns its reference passes. Look at
    ``change_rate`` too; where it is far below ``independent_rate``, the chain hardly moves.

    :param model: a Pyro model with one ``ssl_transition``; further arguments go to it.
    :param int num_particles: P.
    :param int num_replicates: sweeps for each sequence.
    :param str resampling: ``"systematic"`` or ``"multinomial"``.
    :param int ancestor_sampling: redraw the reference's ancestor every so many steps; 0: never.
    :param twist: lets particles look ahead; see :class:`~pyro_ssl.ParticleGibbs`. Here it is used
        whether it helps or not. Errors of resampling show more without, where weights differ.
    :param int seed: of all draws; the state of the caller's generators is left as it was.
    :raises ValueError: if there are too many paths to enumerate.

    Example::

        >>> import pyro, pyro.distributions as dist
        >>> from pyro_ssl import LSTMTransition, ssl_transition
        >>> transition = LSTMTransition(num_states=2, hidden_size=3)
        >>> def model(x):                                                     # (T, B)
        ...     with pyro.plate("sequences", x.shape[1]):
        ...         for t, z in ssl_transition("z", transition, len(x)):
        ...             pyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=x[t])
        >>> result = invariance_test(model, torch.randn(3, 2), num_replicates=1000)
        >>> result.p_value > 1e-6
        True
        >>> result.change_rate.shape
        torch.Size([3, 2])
    """
    if not at_least(1, num_replicates):
        raise ValueError(f"num_replicates is {num_replicates}, expected at least 1, an integer.")
    settings = SMCSettings(num_particles, resampling, ancestor_sampling)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        run = Program(model, args, kwargs).run()
        require_discrete(run, "invariance_test")
        settings = replace(settings, surrogate=Twisting(twist).candidate(run))
        emission = read_emission(run, verify=True)
        assert isinstance(emission, TableEmission)
        exact = _enumerate(run, emission.table)
        return _replicate(run, emission.table, exact, settings, num_replicates)


def _enumerate(run: ModelRun, table: Tensor) -> Enumeration:
    """All paths of each sequence, with the posterior that the sweep should leave invariant."""
    T, _, K = table.shape
    if K**T > MAX_PATHS:
        raise ValueError(
            f'Site "{run.loop.name}": K^T = {K}^{T} paths are too many to be compared one by one, '
            f"expected at most {MAX_PATHS}; test the same model with fewer states, or on its "
            f"first {int(math.log(MAX_PATHS, K))} steps."
        )
    prior = enumerate_paths(
        run.transition, torch.zeros_like(table), inputs=run.inputs, lengths=run.grid.lengths
    )
    log_prior, scale = prior.log_joint, run.grid.transition_scale  # (B, N)
    if bool(log_prior.isnan().any()):
        raise NonFiniteError(
            f'Site "{run.loop.name}": log p(z) of a path is NaN, expected numbers or -inf; check '
            "the transition's parameters and inputs."
        )
    if scale is not None:
        log_prior = torch.where(log_prior == -torch.inf, log_prior, log_prior * scale[:, None])
    steps = torch.arange(T, device=table.device)
    if run.grid.lengths is not None:
        within = steps_within(run.grid.lengths, T)
        table = torch.where(within.unsqueeze(-1), table, 0.0)
    log_joint = log_prior + table[steps, :, prior.paths].sum(1).T
    impossible = (log_joint == -torch.inf).all(-1)
    if bool(impossible.any()):
        raise SMCFailed(
            f'Site "{run.loop.name}": no path has a positive probability given sequence '
            f"{int(impossible.nonzero()[0])}, expected one at least; give the transition or the "
            "emission a floor."
        )
    return Enumeration(prior.paths, log_joint)


def _replicate(
    run: ModelRun, table: Tensor, exact: Enumeration, settings: SMCSettings, num_replicates: int
) -> InvarianceResult:
    T, B, _ = table.shape
    posterior = exact.posterior.double()  # (B, N)
    counts = torch.zeros_like(posterior)
    changed = torch.zeros(T, B, dtype=torch.float64, device=table.device)
    # At least ten sweeps, since a sweep draws one schedule of ancestor sampling for all replicates.
    chunk = max(1, min(MAX_ROWS // max(B * settings.num_particles, 1), num_replicates // 10))
    for start in range(0, num_replicates, chunk):
        n = min(chunk, num_replicates - start)
        index = torch.multinomial(posterior, n, replacement=True)  # (B, n)
        reference = exact.paths[index.T].flatten(0, 1).T.contiguous()  # (T, n B)
        _, path = draw_paths(run, TableEmission(table.repeat(1, n, 1)), reference, settings)
        changed += (path != reference).unflatten(1, (n, B)).double().sum(1)
        index = exact.index(path.T.unflatten(0, (n, B))).T
        counts.scatter_add_(1, index, torch.ones_like(index, dtype=counts.dtype))
    tests = [chi_square(n, p) for n, p in zip(counts, posterior, strict=True)]
    statistic, degrees = sum(s for s, _ in tests), sum(d for _, d in tests)
    return InvarianceResult(
        chi_square_tail(statistic, degrees),
        statistic,
        degrees,
        changed / num_replicates,
        _independent_rate(exact, table.shape[-1]),
    )


def chi_square(counts: Tensor, probs: Tensor, smallest: float = 10.0) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom; inf where a path of probability 0 was seen.

    Cells expected fewer than ``smallest`` times are pooled, with the next one if even the pool is
    expected fewer times, so that chi-square is a good approximation far out in its tail.
    """
    if bool((counts[probs == 0] > 0).any()):
        return torch.inf, 1
    probs, order = probs.sort(descending=True)
    counts, expected = counts[order], counts.sum() * probs
    num_alone = int((expected >= smallest).sum())
    if num_alone < len(probs) and expected[num_alone:].sum() < smallest:
        num_alone = max(num_alone - 1, 0)
    expected = torch.cat([expected[:num_alone], expected[num_alone:].sum(0, keepdim=True)])
    counts = torch.cat([counts[:num_alone], counts[num_alone:].sum(0, keepdim=True)])
    cells = expected > 0
    statistic = ((counts - expected).square() / expected)[cells].sum()
    return statistic.item(), max(int(cells.sum()) - 1, 0)


def chi_square_tail(statistic: float, degrees: int) -> float:
    """P-value of a statistic; 0 where it is inf."""
    if degrees == 0 or statistic == torch.inf:
        return float(statistic != torch.inf)
    half = torch.tensor([degrees / 2, statistic / 2], dtype=torch.float64, device="cpu")
    return torch.special.gammaincc(half[0], half[1]).item()


def _independent_rate(exact: Enumeration, K: int) -> Tensor:
    """1 - Σ_k p(z_t = k | x)², ``(T, B)``."""
    one_hot = torch.nn.functional.one_hot(exact.paths, K).to(exact.posterior.dtype)  # (N, T, K)
    marginal = torch.einsum("bn,ntk->tbk", exact.posterior, one_hot)
    return 1.0 - marginal.square().sum(-1)
