"""The kernel moves as it should: its whole transition matrix, and early latents of long paths.

The kernel that returns the reference passes every test of invariance. Here the exact transition
matrix is summed over all random choices, written down from the definition of the sampler for one
sequence and in plain loops; it leaves the posterior invariant, and the sampler follows it.
"""

import itertools
import math
from collections import defaultdict

import pytest
import torch

from pyro_ssl import LSTMTransition
from pyro_ssl.smc import TableEmission, conditional_smc
from pyro_ssl.transitions import PathDistribution
from tests.statistics import ALPHA, by_pairs, chi_square, p_value, random_problem


def systematic_law(weights, first):
    """All ancestor vectors given the first, with their probabilities: u_0 is uniform in an arc."""
    P = len(weights)
    ends = list(itertools.accumulate(weights))
    low, high = ends[first] - weights[first], ends[first]
    cuts = {(end - i / P) % 1.0 for end in ends for i in range(P)}
    cuts = [low, *sorted(cut for cut in cuts if low < cut < high), high]
    law = defaultdict(float)
    for a, b in itertools.pairwise(cuts):
        points = [((a + b) / 2 + i / P) % 1.0 for i in range(1, P)]
        others = [next(p for p in range(P) if point < ends[p] or p == P - 1) for point in points]
        law[(first, *others)] += (b - a) / (high - low)
    return law


def multinomial_law(weights, first):
    others = itertools.product(range(len(weights)), repeat=len(weights) - 1)
    return {(first, *rest): math.prod(weights[a] for a in rest) for rest in others}


LAWS = {"systematic": systematic_law, "multinomial": multinomial_law}


def normalised(weights):
    return [w / sum(weights) for w in weights]


def exact_kernel(problem, P, resampling, ancestor_sampling, proposal_lag, forced_move):
    """p(new path | reference), ``(K^T, K^T)``, summed over every choice that the sampler makes.

    Ancestor sampling is at every step or at none: the phase adds nothing.
    """
    T, _, K = problem.log_emission.shape
    scale = 1.0 if problem.transition_scale is None else problem.transition_scale.item()
    emission = problem.log_emission[:, 0].exp().tolist()
    twist = problem.log_twist
    beta = torch.ones(T, K) if twist is None else twist[:, 0].exp()
    beta = beta.tolist()
    paths = [tuple(path) for path in problem.paths().tolist()]
    prior = {}  # p(z_t | z_{1:t-1}) by z_{1:t}
    for t in range(1, T + 1):
        prefixes = sorted({path[:t] for path in paths})
        log_p = problem.transition.log_prob(torch.tensor(prefixes))[:, -1] * scale
        prior |= dict(zip(prefixes, log_p.exp().tolist(), strict=True))

    def prior_of(reference, prefix, start, stop):
        """p(ref_{start:stop} | prefix, ref up to start)"""
        begun = len(prefix)
        return math.prod(prior[prefix + reference[begun:s]] for s in range(start + 1, stop + 1))

    def weight(prefix):
        """1 / β of the last latent, which takes the twist back"""
        return 1.0 / beta[len(prefix) - 1][prefix[-1]] if prefix else 1.0

    def first_law(prefixes, reference, t):
        """Law of the reference's ancestor: propose by the near future, accept by the far one."""
        if not ancestor_sampling or t == 0:
            return [1.0] + [0.0] * (P - 1)
        middle = min(t + proposal_lag, T)
        near = [weight(z) * prior_of(reference, z, t, middle) for z in prefixes]
        near = normalised(near)
        far = [prior_of(reference, z, middle, T) for z in prefixes]
        law = [q * min(1.0, f / far[0]) for q, f in zip(near, far, strict=True)]
        return [1.0 - sum(law[1:]), *law[1:]]

    def moves(prefixes, reference, t):
        """All ways to extend P prefixes by step t, with their probabilities."""
        joint = [
            [prior[z + (k,)] * emission[t][k] * beta[t][k] for k in range(K)] for z in prefixes
        ]
        weights = normalised([weight(z) * sum(row) for z, row in zip(prefixes, joint, strict=True)])
        proposals = [normalised(row) for row in joint]
        for first, p_first in enumerate(first_law(prefixes, reference, t)):
            law = LAWS[resampling](weights, first) if p_first else {}
            for ancestors, p_ancestors in law.items():
                for z in itertools.product(range(K), repeat=P - 1):
                    p = math.prod(proposals[a][k] for a, k in zip(ancestors[1:], z, strict=True))
                    states = zip(ancestors, (reference[t], *z), strict=True)
                    new = tuple(prefixes[a] + (k,) for a, k in states)
                    yield new, p_first * p_ancestors * p

    def row(reference):
        particles = {((),) * P: 1.0}  # law of the P prefixes; slot 0 is the reference's
        for t in range(T):
            after = defaultdict(float)
            for prefixes, p in particles.items():
                for new, p_new in moves(prefixes, reference, t):
                    after[new] += p * p_new
            particles = after
        out = [0.0] * len(paths)
        for prefixes, p in particles.items():
            for path, share in zip(prefixes, last_law(prefixes), strict=True):
                out[paths.index(path)] += p * share
        return out

    def last_law(prefixes):
        """Law of the final slot: by weight, or Liu's move among the others"""
        w = normalised([weight(z) for z in prefixes])
        if not forced_move:
            return w
        law = [v / (1.0 - w[0]) * min(1.0, (1.0 - w[0]) / (1.0 - v)) for v in w[1:]]
        return [1.0 - sum(law), *law]

    return torch.tensor([row(path) for path in paths])


def empirical_kernel(problem, P, num_draws, padding=0, **settings):
    """Counts of new paths, by reference: ``(K^T, K^T)``; in a batch with so much padding."""
    T, _, K = problem.log_emission.shape
    paths, N = problem.paths(), K**T
    if padding:
        log_emission = torch.cat([problem.log_emission, torch.randn(padding, 1, K)])
        problem = problem._replace(log_emission=log_emission, lengths=torch.tensor([T]))
    n = num_draws // 20
    start, counts = torch.arange(N).repeat(n), 0
    reference = torch.nn.functional.pad(paths[start].T, (0, 0, 0, padding))
    for _ in range(20):
        sweep = conditional_smc(
            **problem.repeat(N * n), num_particles=P, reference=reference, **settings
        )
        index = (sweep.path[:T] * K ** torch.arange(T - 1, -1, -1)[:, None]).sum(0)
        counts += (start * N + index).bincount(minlength=N * N)
    return counts.reshape(N, N)


# (K, T, P), and the (ancestor_sampling, proposal_lag) that make a difference at such a T
GIBBS = 9  # a lag from T upwards: no Metropolis-Hastings step is left
SHAPES = {
    (2, 1, 2): [(0, 1)],
    (3, 1, 2): [(0, 1)],
    (2, 2, 2): [(0, 1), (1, GIBBS)],
    (3, 2, 2): [(0, 1), (1, GIBBS)],
    (2, 2, 3): [(0, 1), (1, GIBBS)],
    (2, 3, 2): [(0, 1), (1, 1), (1, GIBBS)],
    (2, 3, 3): [(0, 1), (1, 1), (1, GIBBS)],
    (2, 4, 2): [(0, 1), (1, 1), (1, 2)],
}
REDRAWN = [(shape, redraw) for shape, redraws in SHAPES.items() for redraw in redraws]


def settings_of(redraw, resampling, forced_move):
    every, lag = redraw
    return {
        "resampling": resampling,
        "ancestor_sampling": every,
        "proposal_lag": lag,
        "forced_move": forced_move,
    }


AXES = (REDRAWN, tuple(LAWS), (True, False), (None, "noise"))
#: every pair of a shape, a resampling, a kind of final move and a twist; the rest is nightly
CASES = [
    pytest.param(shape, settings_of(redraw, *how), twist, marks=marks)
    for ((shape, redraw), *how, twist), marks, _ in by_pairs(*AXES)
]
EVERY_CASE = [
    (shape, settings_of(redraw, *how), twist)
    for (shape, redraw), *how, twist in itertools.product(*AXES)
]


def name(value):
    value = value.values() if isinstance(value, dict) else value
    return "-".join(map(str, value)) if value and not isinstance(value, str) else str(value)


@pytest.mark.parametrize("shape, settings, twist", CASES, ids=name)
def test_exact_kernel_leaves_the_posterior_invariant(shape, settings, twist):
    K, T, P = shape
    torch.manual_seed(torch.initial_seed() + 10 * K + T)
    problem = random_problem(K, T, sharpness=4.0, twist=twist)
    kernel = exact_kernel(problem, P, **settings)
    posterior = problem.log_joint()[0].softmax(-1)
    assert torch.allclose(kernel.sum(-1), torch.ones(K**T), rtol=0, atol=1e-12)
    assert torch.allclose(posterior @ kernel, posterior, rtol=0, atol=1e-12)


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("shape, settings, twist", CASES, ids=name)
def test_sampler_follows_the_exact_kernel(shape, settings, twist, num_draws=8_000):
    """From each reference, each of 282 p-values above ALPHA."""
    K, T, P = shape
    torch.manual_seed(torch.initial_seed() + 10 * K + T)
    problem = random_problem(K, T, sharpness=8.0, twist=twist)
    kernel = exact_kernel(problem, P, **settings)
    counts = empirical_kernel(problem, P, num_draws, **settings)
    for row, law in zip(counts, kernel, strict=True):
        assert p_value([chi_square(row, law)]) > ALPHA


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("shape, settings, twist", EVERY_CASE, ids=name)
def test_sampler_follows_the_exact_kernel_in_many_draws(shape, settings, twist):
    test_sampler_follows_the_exact_kernel(shape, settings, twist, num_draws=400_000)


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("resampling", LAWS)
@pytest.mark.parametrize("ancestor_sampling, proposal_lag", [(0, 1), (1, 1), (1, GIBBS)])
def test_padding_and_scale_follow_the_exact_kernel(
    resampling, ancestor_sampling, proposal_lag, num_draws=8_000
):
    """From each reference, each of 6 x 8 p-values above ALPHA."""
    torch.manual_seed(torch.initial_seed() + 3)
    settings = {
        "resampling": resampling,
        "ancestor_sampling": ancestor_sampling,
        "proposal_lag": proposal_lag,
        "forced_move": True,
    }
    problem = random_problem(2, 3, sharpness=12.0)._replace(transition_scale=torch.tensor([0.4]))
    kernel = exact_kernel(problem, 2, **settings)
    counts = empirical_kernel(problem, 2, num_draws, padding=2, **settings)
    for row, law in zip(counts, kernel, strict=True):
        assert p_value([chi_square(row, law)]) > ALPHA


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("sharpness", [1.0, 6.0])
@pytest.mark.usefixtures("float32")
def test_early_latents_of_long_paths_move(sharpness, K=10, T=200, V=50, B=40, num_sweeps=10):
    """A sweep changes each of the first ten latents at least a fifth as often as a fresh draw does.

    The data are drawn from the model, so their own path is a draw from the posterior; a large
    unconditional sweep gives one more. Without ancestor sampling, multinomial resampling moves
    none of them, and systematic resampling too few of a sharp model. A false alarm once in 1,000
    seeds: the rates are at least 1.4 times the bar, with a standard error below a tenth of it.
    """
    transition = LSTMTransition(K, 16)
    for parameter in transition.parameters():
        parameter.data.mul_(sharpness)
    truth = PathDistribution(transition, T, batch_shape=(B,)).sample().T.contiguous()
    phi = torch.distributions.Dirichlet(torch.full((K, V), 0.3)).sample()
    x = torch.distributions.Categorical(phi[truth]).sample()
    emission = TableEmission(phi.log()[:, x].permute(1, 2, 0).contiguous())
    fresh = conditional_smc(transition, emission, 300).path
    apart = (fresh != truth).double().mean(1)[:10]
    for resampling in LAWS:
        path, changed = truth, torch.zeros(10)
        for _ in range(num_sweeps):
            new = conditional_smc(
                transition, emission, 10, path, resampling=resampling, ancestor_sampling=10
            ).path
            changed += (new != path).double().mean(1)[:10] / num_sweeps
            path = new
        assert (changed >= 0.2 * apart).all(), resampling


@pytest.mark.parametrize("resampling", LAWS)
@pytest.mark.parametrize("ancestor_sampling", [0, 1])
def test_one_particle_never_moves(resampling, ancestor_sampling):
    problem = random_problem(3, 5, ragged=True)
    reference = torch.randint(3, (5, 200))
    past = torch.arange(5)[:, None] >= problem.lengths.repeat(100)
    reference = reference.masked_fill(past, 0)
    settings = {"resampling": resampling, "ancestor_sampling": ancestor_sampling}
    sweep = conditional_smc(**problem.repeat(100), num_particles=1, reference=reference, **settings)
    assert sweep.path.equal(reference)


def test_forced_move_leaves_the_reference_slot():
    """At T=1 a forced move is an independent draw from the posterior, an unforced one is not."""
    problem = random_problem(3, 1)
    posterior = problem.log_joint().softmax(-1)
    forced = exact_kernel(problem, 2, "systematic", 0, 1, True)
    free = exact_kernel(problem, 2, "systematic", 0, 1, False)
    assert torch.allclose(forced, posterior.expand(3, 3), rtol=0, atol=1e-12)
    assert torch.allclose(free, (posterior + torch.eye(3)) / 2, rtol=0, atol=1e-12)
