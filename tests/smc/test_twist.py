"""Twists and where they come from: messages, surrogates, and vectors that look ahead.

That sweeps over states stay exact under any twist is tested with all else: ``test_invariance.py``,
``test_movement.py`` and ``test_evidence.py`` take it as one more factor.
"""

import math

import pytest
import torch
from scipy import stats

from pyro_ssl.exact import LinearEmission, kalman_filter, sample_kalman_paths
from pyro_ssl.smc import (
    LinearSurrogate,
    MarkovSurrogate,
    QuadraticEmission,
    TableEmission,
    conditional_smc,
    fit_surrogate,
)
from pyro_ssl.smc.surrogate import linear_along, surrogate_along
from pyro_ssl.transitions import (
    GaussianLSTMTransition,
    LinearGaussianTransition,
    LSTMTransition,
    MarkovTransition,
    PathDistribution,
)
from tests.smc.test_gaussian import p_values
from tests.statistics import ALPHA, Problem, random_problem

D, E = 2, 3


def vectors(T=4, seed=0):
    """A linear-Gaussian chain, its emission as the oracle and as the sweep takes it, and data."""
    torch.manual_seed(seed)
    matrix = torch.randn(D, D)
    transition = LinearGaussianTransition(
        D,
        matrix=0.8 * matrix / torch.linalg.eigvals(matrix).abs().max(),
        offset=torch.randn(D),
        scale=torch.rand(D) + 0.3,
        initial_mean=torch.randn(D),
        initial_scale=torch.rand(D) + 0.5,
    )
    C, d, r = torch.randn(E, D), torch.randn(E), torch.rand(E) + 0.3
    return transition, LinearEmission(C, d, torch.diag(r.square())), torch.randn(T, 1, E)


def quadratic(emission, x, repeats=1, center=0.3):
    """log N(x; C z + d, R) about a point."""
    C, d, R = emission
    m, P = torch.full((D,), center), torch.linalg.inv(R)
    rest = x - d - C @ m
    constant = -0.5 * ((rest @ P * rest).sum(-1) + torch.logdet(R) + E * math.log(2 * math.pi))
    shape = x.shape[:2]
    parts = (m.expand(*shape, D), constant, rest @ P @ C, (C.T @ P @ C).expand(*shape, D, D))
    return QuadraticEmission(*(part.repeat(1, repeats, *[1] * (part.dim() - 2)) for part in parts))


# --------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("scaled", [False, True])
def test_messages_of_a_chain_are_the_probabilities_of_its_future(scaled):
    """log β_t(k) - log p(x_{t+1:T} | z_t = k), by enumeration, is one number per step."""
    problem = random_problem(3, 5, kind="markov", ragged=True, scaled=scaled)
    T, S, K = problem.log_emission.shape
    chain, emission = problem.transition, TableEmission(problem.log_emission)
    surrogate = MarkovSurrogate(chain.transition_logits.softmax(-1), floor=0.0)
    log_beta = surrogate.twist(emission, problem.lengths, problem.transition_scale).table
    log_matrix = chain.transition_logits.log_softmax(-1).detach()
    for s in range(S):
        power = 1.0 if problem.transition_scale is None else problem.transition_scale[s]
        future = torch.zeros(K)
        for t in range(T - 1, -1, -1):
            if t < problem.lengths[s] - 1:
                inside = power * log_matrix + problem.log_emission[t + 1, s] + future
                future = inside.logsumexp(-1)
            apart = log_beta[t, s] - future
            torch.testing.assert_close(apart - apart[0], torch.zeros(K), atol=1e-9, rtol=0)
        assert (log_beta[problem.lengths[s] - 1 :, s] == 0).all()


def test_messages_with_a_matrix_for_each_step():
    problem = random_problem(3, 4)
    matrices = torch.distributions.Dirichlet(torch.ones(3, 3)).sample((4,))
    log_beta = MarkovSurrogate(matrices, floor=0.0).twist(TableEmission(problem.log_emission)).table
    future = torch.zeros(3)
    for t in (3, 2, 1):
        future = (matrices[t].log() + problem.log_emission[t, 0] + future).logsumexp(-1)
        apart = log_beta[t - 1, 0] - future
        torch.testing.assert_close(apart - apart[0], torch.zeros(3), atol=1e-9, rtol=0)


def test_messages_where_nothing_explains_the_data_leave_it_to_the_sweep():
    """The step at which all particles die is the one that cannot be explained, not the first."""
    emission = torch.zeros(4, 2, 3)
    emission[2, 0] = -torch.inf
    twist = MarkovSurrogate(torch.eye(3)).twist(TableEmission(emission))
    assert twist.table.isfinite().all()
    sweep = conditional_smc(MarkovTransition(3), TableEmission(emission), 4, twist=twist)
    assert sweep.failed.tolist() == [True, False]
    assert sweep.log_likelihood[:2, 0].isfinite().all()


@pytest.mark.parametrize("center", [0.0, 40.0])
def test_information_filter_is_the_future_of_a_linear_chain(center):
    """log β_t(z) + c is log p(x_{t+1:T} | z_t = z): the Kalman evidence of what is left."""
    transition, emission, x = vectors(T=5)
    surrogate = fit_surrogate(transition, 5)
    log_beta = surrogate.twist(quadratic(emission, x, center=center)).function
    for t in range(4):
        points = torch.randn(6, D)
        exact = []
        for z in points:
            rest = LinearGaussianTransition(
                D,
                matrix=transition.matrix,
                offset=transition.offset,
                scale=transition.scale,
                initial_mean=transition.matrix @ z + transition.offset,
                initial_scale=transition.scale,
            )
            exact.append(kalman_filter(rest, emission, x[t + 1 :]).log_likelihood.sum())
        found = log_beta.each(lambda part, t=t: part[t, 0]).value(points)
        apart = found - torch.stack(exact)
        torch.testing.assert_close(apart - apart[0], torch.zeros(6), atol=1e-8, rtol=0)


def test_information_filter_ends_with_the_sequence():
    transition, emission, x = vectors(T=5)
    pair = quadratic(emission, x, repeats=2)
    surrogate = fit_surrogate(transition, 5)
    ragged = surrogate.twist(pair, torch.tensor([3, 5])).function
    alone = surrogate.twist(quadratic(emission, x[:3])).function
    torch.testing.assert_close(ragged.precision[:3, 0], alone.precision[:, 0])
    torch.testing.assert_close(ragged.linear[:3, 0], alone.linear[:, 0])
    assert (ragged.precision[2:, 0] == 0).all() and (ragged.precision[3, 1] != 0).any()


# -------------------------------------------------------------------------------------- surrogates


def test_a_chain_is_its_own_surrogate():
    chain = MarkovTransition(4)
    chain.transition_logits.data.normal_()
    matrix = chain.transition_logits.softmax(-1)
    torch.testing.assert_close(fit_surrogate(chain, 9).matrix, matrix.detach(), atol=1e-5, rtol=0)


def test_a_driven_chain_has_a_matrix_for_each_step():
    """Rows lean on the mean over steps by 10 steps' worth: with 20,000 paths, by a thousandth."""
    chain = MarkovTransition(2, input_size=1)
    chain.transition_logits.data.normal_()
    chain.input_weight.data.normal_(0, 2)
    inputs = torch.randn(3, 1, 1)
    matrix = fit_surrogate(chain, 3, inputs=inputs, num_paths=20_000).matrix
    for t in (1, 2):
        exact = (chain.transition_logits + chain.input_weight @ inputs[t, 0]).softmax(-1)
        exact = 0.98 * exact + 0.01
        torch.testing.assert_close(matrix[t], exact.detach(), atol=5e-3, rtol=0)


@pytest.mark.stage("system")
def test_rows_are_means_over_all_that_came_before():
    """Against the sum over all paths: Σ_z p(z_{1:t-1}) p(k | z_{1:t-1}), by z_{t-1}."""
    problem = random_problem(2, 4, sharpness=4.0)
    paths, transition = problem.paths(), problem.transition
    p = transition.path_logits(paths).softmax(-1)  # (N, T, K)
    prefix = transition.log_prob(paths).cumsum(-1).exp()
    total, count = torch.zeros(2, 2), torch.zeros(2)
    for t in range(1, 4):
        again = 2 ** (4 - t)  # how often a prefix stands in the list
        total.index_add_(0, paths[:, t - 1], prefix[:, t - 1, None] * p[:, t] / again)
        count.index_add_(0, paths[:, t - 1], prefix[:, t - 1] / again)
    exact = (0.98 * total / count.unsqueeze(-1) + 0.01).detach()
    found = fit_surrogate(transition, 4, num_paths=40_000).matrix
    torch.testing.assert_close(found, exact, atol=0.01, rtol=0)
    draws = PathDistribution(transition, 4, batch_shape=(40_000,)).sample()
    along = MarkovSurrogate.from_sums(*surrogate_along(transition, draws.T)).matrix
    torch.testing.assert_close(along, exact, atol=0.01, rtol=0)


def test_sums_along_paths_end_with_the_sequence():
    transition, path = LSTMTransition(3, 4, dropout=0.5).train(), torch.randint(3, (6, 2))
    total, count = surrogate_along(transition, path, torch.tensor([4, 0]))
    alone = surrogate_along(transition, path[:4, :1])
    torch.testing.assert_close((total, count), alone)
    assert transition.training


def test_the_linear_fit_finds_a_linear_chain():
    """As noise-free as a place is: also where one coordinate is the sum of another."""
    matrix = torch.tensor([[1.0, 1.0], [0.0, 0.99]])
    scale, offset = torch.tensor([1e-4, 1e-2]), torch.tensor([0.0, 0.01])
    chain = GaussianChain(matrix, offset, scale)
    found = fit_surrogate(chain, 100)
    torch.testing.assert_close(found.matrix, matrix, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.covariance, torch.diag(scale.square()), atol=1e-9, rtol=0)
    torch.testing.assert_close(
        found.offset, offset + matrix @ found.center - found.center, atol=1e-5, rtol=0
    )


class GaussianChain(LinearGaussianTransition):
    """A linear chain that does not say that it is one."""

    def __init__(self, matrix, offset, scale):
        super().__init__(
            2,
            matrix=matrix,
            offset=offset,
            scale=scale,
            initial_mean=torch.zeros(2),
            initial_scale=torch.ones(2),
        )


def test_a_linear_chain_is_found_along_its_paths():
    """From few points: what is regressed is the mean, which has no noise."""
    matrix, scale = torch.tensor([[1.0, 1.0], [0.0, 0.99]]), torch.tensor([1e-4, 1e-2])
    chain = GaussianChain(matrix, torch.tensor([0.0, 0.01]), scale)
    path = PathDistribution(chain, 30, batch_shape=(2,)).sample().transpose(0, 1)
    lengths = torch.tensor([30, 12])
    found = linear_along(chain, path, lengths)
    torch.testing.assert_close(found.matrix, matrix, atol=1e-4, rtol=0)
    path[12:, 1] = 1e9  # past the length
    torch.testing.assert_close(linear_along(chain, path, lengths).matrix, found.matrix)
    nothing = linear_along(chain, path[:1])
    assert (nothing.matrix == 0).all() and (nothing.covariance == torch.eye(2)).all()
    assert (fit_surrogate(chain, 1).matrix == 0).all()


def test_a_fit_is_a_function_of_parameters_and_random_numbers():
    transition = GaussianLSTMTransition(2, 4)
    torch.manual_seed(1)
    one = fit_surrogate(transition, 20)
    torch.manual_seed(1)
    assert torch.equal(one.matrix, fit_surrogate(transition, 20).matrix)
    assert one.covariance.diagonal().min() > 0


# ----------------------------------------------------------------------------- sweeps over states


def test_a_chain_under_its_own_twist_is_an_independent_draw():
    """All ancestors' weights are equal, so log Ẑ has no variance but that of the first floor."""
    torch.manual_seed(3)
    chain = MarkovTransition(3)
    for parameter in chain.parameters():
        parameter.data.normal_(0, 2)
    log_emission = torch.distributions.Dirichlet(torch.full((3,), 0.5)).sample((30, 1)).log()
    problem = Problem(chain, log_emission)
    twist = fit_surrogate(chain, 30).twist(TableEmission(log_emission)).table
    sweep = conditional_smc(
        **problem._replace(log_twist=twist).repeat(50), num_particles=3, ancestor_sampling=0
    )
    log_z = sweep.log_likelihood.sum(0)
    assert log_z.std() < 1e-2
    assert (sweep.effective_size > 3 - 1e-3).all()
    plain = conditional_smc(**problem.repeat(50), num_particles=3)
    assert plain.log_likelihood.sum(0).std() > 0.5


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("kind", ["wrong", "own"])
@pytest.mark.parametrize("every", [0, 1])
def test_twisted_vectors_keep_the_exact_law(kind, every, n=20_000):
    """From Kalman draws to Kalman draws; each of 4 x 16 p-values above ALPHA."""
    transition, emission, x = vectors()
    draws = sample_kalman_paths(transition, emission, x.expand(-1, 2 * n, -1))  # (T, 2n, D)
    given = quadratic(emission, x, repeats=n)
    twist = twist_of(kind, transition, given)
    after = conditional_smc(
        transition, given, 3, draws[:, :n].contiguous(), ancestor_sampling=every, twist=twist
    ).path
    assert min(p_values(draws[:, n:].transpose(0, 1), after.transpose(0, 1))) > ALPHA
    independent = kind == "own" and not every
    assert (after != draws[:, :n]).any(-1).double().mean() > (0.99 if independent else 0.2)


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("kind", ["wrong", "own"])
def test_twisted_evidence_is_kalmans(kind, n=20_000):
    """|z| < 4.5 for 2 means: a false alarm once in 70,000 runs."""
    transition, emission, x = vectors()
    exact = kalman_filter(transition, emission, x).log_likelihood.sum()
    given = quadratic(emission, x, repeats=n)
    sweep = conditional_smc(transition, given, 4, twist=twist_of(kind, transition, given))
    ratio = (sweep.log_likelihood.sum(0) - exact).exp()
    assert (ratio.mean() - 1).abs() < 4.5 * ratio.std() / math.sqrt(n) + 1e-9
    if kind == "own":
        assert ratio.std() < 1e-6


def twist_of(kind, transition, emission):
    if kind == "own":
        return fit_surrogate(transition, len(emission.function.center)).twist(emission)
    wrong = LinearSurrogate(torch.randn(D, D) / 2, torch.randn(D), 0.5 * torch.eye(D))
    return wrong.twist(emission)


def test_a_twist_of_another_kind_or_shape_is_told():
    table, vector = TableEmission(torch.zeros(4, 1, 3)), quadratic(*vectors()[1:])
    with pytest.raises(ValueError, match=r"\(4, 2, 3\), expected a TableEmission of \(4, 1, 3\)"):
        conditional_smc(MarkovTransition(3), table, 2, twist=TableEmission(torch.zeros(4, 2, 3)))
    with pytest.raises(ValueError, match="expected a TableEmission"):
        conditional_smc(MarkovTransition(3), table, 2, twist=vector)
    with pytest.raises(ValueError, match="expected a QuadraticEmission"):
        conditional_smc(LinearGaussianTransition(D), vector, 2, twist=table)


def test_effective_size_is_that_of_the_weights():
    problem = random_problem(3, 4)
    sweep = conditional_smc(**problem.repeat(1), num_particles=5)
    w = sweep.chosen_by / sweep.chosen_by.sum(-1, keepdim=True)
    torch.testing.assert_close(sweep.effective_size, 1 / w.square().sum(-1))
    assert ((sweep.effective_size >= 1) & (sweep.effective_size <= 5 + 1e-9)).all()
    assert stats.rankdata(w[0, 0]).std() == 0  # at the first step all are equal
