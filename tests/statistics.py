"""What the tests of laws share: random problems with an exact answer, and goodness of fit.

Every test of a law asks for p > ``ALPHA``; with seeds fixed it passes always or never, and with
``n`` of them a change of seed fails by chance once in 1 / (n ALPHA) times.
"""

import functools
import itertools
import random
from typing import NamedTuple

import pytest
import torch
from scipy import stats
from torch import Tensor

from pyro_ssl import LSTMTransition, MarkovTransition
from pyro_ssl.smc import MarkovSurrogate, TableEmission, conditional_smc
from pyro_ssl.transitions import DiscreteTransition, MultiplicativeLSTMTransition

ALPHA = 1e-6


class Problem(NamedTuple):
    """A small SSL with its data: S sequences in one batch, T steps, K states."""

    transition: DiscreteTransition
    log_emission: Tensor  # (T, S, K)
    lengths: Tensor | None = None  # (S,)
    inputs: Tensor | None = None  # (T, S, input_size)
    transition_scale: Tensor | None = None  # (S,)
    log_twist: Tensor | None = None  # (T, S, K)

    def paths(self) -> Tensor:
        """All K^T paths, ``(K^T, T)``, counting in base K."""
        T, _, K = self.log_emission.shape
        return torch.tensor(list(itertools.product(range(K), repeat=T)))

    def index(self, path: Tensor) -> Tensor:
        """Row of :meth:`paths` at which paths ``(T, ...)`` stand."""
        T, _, K = self.log_emission.shape
        return sum(path[t] * K ** (T - 1 - t) for t in range(T))

    @torch.no_grad()
    def log_joint(self) -> Tensor:
        """log p(z, x) of all paths, ``(S, K^T)``, step by step and from nothing that is tested.

        Paths that are not 0 past their sequence's length have probability 0.
        """
        T, S, K = self.log_emission.shape
        paths = self.paths()
        total = torch.zeros(S, len(paths))
        state, z_prev = self.transition.initial_state((S, len(paths))), None
        for t in range(T):
            u = None if self.inputs is None else self.inputs[t].unsqueeze(1).expand(-1, K**T, -1)
            z = paths[:, t].expand(S, -1)
            logits, state = self.transition.step_logits(z_prev, state, u)
            log_prior = logits.expand(S, len(paths), K).log_softmax(-1)
            log_prior = log_prior.gather(-1, z.unsqueeze(-1)).squeeze(-1)
            if self.transition_scale is not None:
                log_prior = log_prior * self.transition_scale.unsqueeze(-1)
            term, z_prev = log_prior + self.log_emission[t].gather(-1, z), z
            if self.lengths is not None:
                at_zero = torch.where(z == 0, 0.0, -torch.inf)
                term = torch.where((t < self.lengths).unsqueeze(-1), term, at_zero)
            total = total + term
        return total

    def repeat(self, n: int) -> dict:
        """Arguments of ``conditional_smc`` for n copies side by side: a batch of n S."""
        _, S, K = self.log_emission.shape
        each = {"lengths": self.lengths, "transition_scale": self.transition_scale}
        kwargs = {k: None if v is None else v.repeat(n) for k, v in each.items()}
        kwargs["inputs"] = None if self.inputs is None else self.inputs.repeat(1, n, 1)
        if self.log_twist is not None:
            kwargs["twist"] = TableEmission(self.log_twist.repeat(1, n, 1))
        return {
            "transition": self.transition,
            "emission": TableEmission(self.log_emission.repeat(1, n, 1)),
            **kwargs,
        }


class EchoState(NamedTuple):
    """``first`` z_1, and whether there is one yet, each as numbers."""

    first: Tensor
    known: Tensor


class Echo(DiscreteTransition):
    """z_1 is uniform, and each later latent is z_1 with probability .8, else uniform.

    All of the memory is long: every step of a reference says as much of any prefix as the next.
    """

    def __init__(self, num_states):
        super().__init__(num_states)
        self.register_buffer("zero", torch.zeros(()))

    def initial_state(self, batch_shape):
        zeros = self.zero.expand(batch_shape)
        return EchoState(zeros.long(), zeros)

    def step_logits(self, z_prev, state, inputs=None):
        K = self.num_states
        if z_prev is None:
            return self.zero.expand(*state.known.shape, K), state
        first = torch.where(state.known > 0, state.first, z_prev)
        logits = (0.2 / K + 0.8 * torch.nn.functional.one_hot(first, K).to(self.zero.dtype)).log()
        return logits, EchoState(first, torch.ones_like(first).to(self.zero.dtype))


def random_problem(
    K: int,
    T: int,
    *,
    kind: str = "lstm",
    sharpness: float = 6.0,
    concentration: float = 0.3,
    ragged: bool = False,
    inputs: bool = False,
    scaled: bool = False,
    twist: str | None = None,
) -> Problem:
    """Draw a model and its data. Sharp ones (the default) are where a wrong sampler shows.

    :param twist: ``"noise"`` of any kind, the last step included; or messages of a ``"chain"`` that
        has nothing to do with the transition.
    """
    S = 2 if ragged else 1
    if kind in ("lstm", "mlstm"):
        cls = LSTMTransition if kind == "lstm" else MultiplicativeLSTMTransition
        transition = cls(K, 4, input_size=2 if inputs else 0)
        for parameter in transition.parameters():
            parameter.data.mul_(sharpness)
    elif kind == "echo":
        transition = Echo(K)
    else:
        transition = MarkovTransition(K)
        for parameter in transition.parameters():
            parameter.data.normal_().mul_(sharpness / 3)
    emission = torch.distributions.Dirichlet(torch.full((K,), concentration)).sample((T, S))
    problem = Problem(
        transition,
        emission.log(),
        lengths=torch.tensor([(T + 1) // 2, T]) if ragged else None,
        inputs=torch.randn(T, S, 2) if inputs else None,
        transition_scale=torch.rand(S) + 0.3 if scaled else None,
    )
    return problem if twist is None else problem._replace(log_twist=wrong_twist(problem, twist))


def wrong_twist(problem: Problem, kind: str) -> Tensor:
    """log β, ``(T, S, K)``, which has little to do with the problem's future."""
    T, S, K = problem.log_emission.shape
    if kind == "noise":
        return 1.5 * torch.randn(T, S, K)
    matrix = torch.distributions.Dirichlet(torch.full((K,), 0.5)).sample((K,))
    emission = TableEmission(problem.log_emission)
    return MarkovSurrogate(matrix).twist(emission, problem.lengths).table


def pairs(case):
    """All pairs of levels, ``{((factor, level), (factor, level)), ...}``."""
    return set(itertools.combinations(case.items(), 2))


def covering_list(factors: dict, allowed, num_cases: int) -> list[dict]:
    """Cases in which every allowed pair of levels occurs; drawn greedily, the same every time.

    :param factors: levels by factor.
    :param allowed: tells whether a case makes sense.
    :param num_cases: at least so many.
    """
    rng = random.Random(0)
    bits = {pair: 1 << i for i, pair in enumerate(_all_pairs(factors))}
    every = sum(bits.values())
    others = {  # of a level: the pairs with another level of its factor
        (name, level): sum(
            bit for pair, bit in bits.items() if any(a == name and b != level for a, b in pair)
        )
        for name, levels in factors.items()
        for level in levels
    }

    def draw():
        while True:
            case = {name: rng.choice(levels) for name, levels in factors.items()}
            if allowed(case):
                return case

    def seen(case):
        """The case's pairs as the bits of a number, which are counted fast."""
        return functools.reduce(lambda left, level: left & ~others[level], case.items(), every)

    missing = functools.reduce(int.__or__, (seen(draw()) for _ in range(5000)))
    cases: list[dict] = []
    while missing or len(cases) < num_cases:
        cases.append(
            max((draw() for _ in range(50)), key=lambda c: (seen(c) & missing).bit_count())
        )
        missing &= ~seen(cases[-1])
    return cases


def _all_pairs(factors):
    """All pairs of levels of two factors, in the order of the factors."""
    levels = [[(name, level) for level in levels] for name, levels in factors.items()]
    for first, second in itertools.combinations(levels, 2):
        yield from itertools.product(first, second)


def by_pairs(*axes):
    """``parametrize`` values of a product of axes: each pair of levels soon, all else nightly.

    What goes wrong where two kinds of things meet, some case that holds the two meets.
    """
    products = list(itertools.product(*(range(len(axis)) for axis in axes)))
    factors = {i: range(len(axis)) for i, axis in enumerate(axes)}
    soon = {tuple(case.values()) for case in covering_list(factors, lambda case: True, 0)}
    return [
        pytest.param(
            *(axis[i] for axis, i in zip(axes, case, strict=True)),
            marks=() if case in soon else pytest.mark.stage("nightly"),
        )
        for case in products
    ]


def staged(kinds, soon, stage="statistical") -> list:
    """Parameters of a stage; those that do not come soon are of the nightly one."""
    stages = [pytest.mark.stage(stage if k in soon else "nightly") for k in kinds]
    return [pytest.param(kind, marks=stage) for kind, stage in zip(kinds, stages, strict=True)]


def chi_square(counts: Tensor, law: Tensor, smallest: float = 10.0) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom; inf where the impossible was seen.

    Cells expected fewer than ``smallest`` times are pooled, and with the rarest other cell if
    even the pool is expected fewer times: so the tail of chi-square holds out to ALPHA.
    """
    if counts[law == 0].any():
        return torch.inf, 1
    law, order = (law.double() / law.sum()).sort(descending=True)
    counts = counts[order].double()
    expected = counts.sum() * law
    n = int((expected >= smallest).sum())
    if 0 < expected[n:].sum() < smallest:
        n -= 1
    if n < 1:
        return 0.0, 0
    expected = torch.cat([expected[:n], expected[n:].sum(0, True)])
    counts = torch.cat([counts[:n], counts[n:].sum(0, True)])
    possible = expected > 0
    statistic = ((counts - expected).square() / expected)[possible].sum().item()
    return statistic, int(possible.sum()) - 1


def p_value(tests: list[tuple[float, int]]) -> float:
    """p-value of independent chi-square tests together."""
    statistic, df = map(sum, zip(*tests, strict=True))
    return float(stats.chi2.sf(statistic, df)) if df else float(statistic != torch.inf)


def one_sweep_p_value(
    problem: Problem,
    num_draws: int,
    num_particles: int,
    posterior: Tensor | None = None,
    **settings,
) -> float:
    """p-value of: one sweep, begun at exact posterior draws, ends in exact posterior draws.

    :param num_draws: in all, over the sequences of the problem.
    :param posterior: of the paths, ``(S, K^T)``, where it is known already.
    """
    S = problem.log_emission.shape[1]
    if posterior is None:
        posterior = problem.log_joint().softmax(-1)
    paths = problem.paths()
    counts = torch.zeros_like(posterior)
    chunks = 10  # each with a phase of its own for ancestor sampling
    n = num_draws // (S * chunks)
    for _ in range(chunks):
        reference = paths[posterior.multinomial(n, replacement=True).T].flatten(0, 1)  # (n S, T)
        sweep = conditional_smc(
            **problem.repeat(n),
            num_particles=num_particles,
            reference=reference.T.contiguous(),
            **settings,
        )
        index = problem.index(sweep.path).reshape(n, S).T
        counts.scatter_add_(1, index, torch.ones(S, n))
    return p_value([chi_square(c, p) for c, p in zip(counts, posterior, strict=True)])
