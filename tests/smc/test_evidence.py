"""exp(Σ_t log_likelihood) of unconditional SMC is unbiased for p(x), whatever P."""

import pytest
import torch

from pyro_ssl import MarkovTransition
from pyro_ssl.smc import TableEmission, conditional_smc
from tests.statistics import Problem, random_problem

KINDS = [
    {"K": 3, "T": 4},
    {"K": 2, "T": 6, "ragged": True, "inputs": True},
    {"K": 3, "T": 3, "kind": "markov", "ragged": True, "scaled": True},
]


def evidence_ratios(problem, num_draws, num_particles, **settings):
    """Ẑ / Z, ``(num_draws, S)``."""
    sweep = conditional_smc(**problem.repeat(num_draws), num_particles=num_particles, **settings)
    log_z = sweep.log_likelihood.sum(0).reshape(num_draws, -1)
    return (log_z - problem.log_joint().logsumexp(-1)).exp()


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
@pytest.mark.parametrize("num_particles", [1, 2, 4, 16])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_evidence_is_unbiased(kind, num_particles, resampling):
    """Within 4 standard errors, which are at most 0.001: false alarms, 6e-5 for each of 40."""
    torch.manual_seed(torch.initial_seed() + KINDS.index(kind))
    problem = random_problem(sharpness=4.0, concentration=1.0, **kind)
    n = 200_000 // (num_particles + 7)
    chunks, error = [], torch.inf
    while len(chunks) < 2 or (error > 1e-3).any():
        chunks.append(evidence_ratios(problem, n, num_particles, resampling=resampling))
        ratios = torch.cat(chunks)
        error = ratios.std(0) / len(ratios) ** 0.5
    assert ((ratios.mean(0) - 1).abs() <= 4 * error).all()


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("num_particles", [1, 4])
@pytest.mark.parametrize("twist", ["chain", "noise"])
def test_twisted_evidence_is_unbiased(twist, num_particles, n=200_000):
    """Within 4.5 standard errors, for 4 means: a false alarm once in 37,000 runs.

    Wrong twists spread the weights, so this one is weak: its logarithm is divided by 4.
    """
    problem = random_problem(3, 4, sharpness=4.0, concentration=1.0, ragged=True, twist=twist)
    problem = problem._replace(log_twist=problem.log_twist / 4)
    ratios = evidence_ratios(problem, n // num_particles, num_particles)
    error = ratios.std(0) / len(ratios) ** 0.5
    assert ((ratios.mean(0) - 1).abs() <= 4.5 * error).all() and (error < 0.01).all()


@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_first_step_is_exact(resampling):
    """At T=1 all particles have the same weight, and the estimate no error."""
    problem = random_problem(4, 1)
    ratio = evidence_ratios(problem, 5, 3, resampling=resampling)
    assert torch.allclose(ratio, torch.ones(5, 1), rtol=1e-12, atol=0)


def test_one_particle_gives_the_product_of_its_predictions():
    """At P=1 log p̂(x_t) is log Σ_k p(k | z_{1:t-1}) p(x_t | k) of the one path."""
    problem = random_problem(3, 5)
    sweep = conditional_smc(**problem.repeat(20), num_particles=1)
    log_prior = problem.transition.path_logits(sweep.path.T).log_softmax(-1).transpose(0, 1)
    expected = (log_prior + problem.log_emission).logsumexp(-1)
    assert torch.allclose(sweep.log_likelihood, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("conditional", [False, True])
def test_nothing_is_added_past_the_length(conditional):
    problem = random_problem(3, 6, ragged=True)._replace(lengths=torch.tensor([0, 2, 6]))
    emission = problem.log_emission[:, :1].repeat(1, 3, 1)
    emission[2:, 1] = torch.nan  # padding may hold anything
    emission[:, 0] = -torch.inf
    problem = problem._replace(log_emission=emission)
    reference = torch.zeros(6, 3, dtype=torch.long) if conditional else None
    sweep = conditional_smc(
        **problem.repeat(1), num_particles=4, reference=reference, ancestor_sampling=1
    )
    past = torch.arange(6)[:, None] >= problem.lengths
    assert (sweep.log_likelihood[past] == 0).all() and (sweep.path[past] == 0).all()
    assert sweep.log_likelihood.isfinite().all() and not sweep.failed.any()
    assert (sweep.log_likelihood[~past] != 0).all()


@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_impossible_data_have_evidence_zero(resampling):
    """Where all particles die: -inf at that step, a mark on the sequence, none on the others."""
    chain = MarkovTransition(2, initial=torch.tensor([1.0, 0.0]), matrix=torch.eye(2))
    emission = torch.zeros(4, 3, 2)
    emission[2, 1] = torch.tensor([-torch.inf, 0.0])
    emission[3, 2] = torch.nan
    sweep = conditional_smc(chain, TableEmission(emission), 5, resampling=resampling)
    assert sweep.failed.tolist() == [False, True, True]
    assert sweep.log_likelihood[2, 1] == -torch.inf and sweep.log_likelihood[3, 2].isnan()
    assert (sweep.log_likelihood[:, 0] == 0).all() and (sweep.path[:, 0] == 0).all()


@pytest.mark.parametrize("T, K", [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_smallest_sizes(T, K):
    problem = Problem(MarkovTransition(K), torch.zeros(T, 1, K))
    sweep = conditional_smc(**problem.repeat(1), num_particles=1)
    assert sweep.path.shape == (T, 1) and sweep.z.shape == (T, 1, 1)
    empty = conditional_smc(problem.transition, TableEmission(torch.zeros(T, 0, K)), 3)
    assert empty.path.shape == (T, 0) and empty.log_likelihood.shape == (T, 0)
