"""Planted data: the process's distribution, and its exact answers against all paths listed."""

import itertools
import math

import pytest
import torch

from pyro_ssl.datasets import PlantedTransition, planted_memory
from pyro_ssl.exact.chains import enumerate_paths
from pyro_ssl.testing import TransitionContract


class TestPlantedTransition(TransitionContract):
    def make(self, num_states=3):
        return PlantedTransition(max(num_states - 1, 1), num_states - max(num_states - 1, 1))


class TestPlantedTransitionOfTwoFillers(TransitionContract):
    def make(self, num_states=3):
        M = 1 if num_states == 1 else num_states - 2
        return PlantedTransition(
            M, num_states - M, cue_probability=0.6, repeat=0.7, slip=0.2, follow=0.3
        )


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-10)


SIZES = [(1, 3), (2, 1), (2, 2), (3, 1), (3, 0)]
DATA_SIZES = [(3, 1), (3, 2), (4, 0)]


def small(M, F, T=5):
    return planted_memory(
        4, T, num_identities=M, num_fillers=F, cue_probability=0.4, repeat=0.6, slip=0.1, seed=3
    )


@pytest.mark.parametrize(("M", "F"), SIZES)
def test_transition_is_the_mixture_over_identities(M, F):
    """p(z) = Σ_i p(i) p(z | i), each by hand from the process's words."""
    transition = PlantedTransition(M, F, cue_probability=0.4, repeat=0.6, slip=0.2, follow=0.7)
    own = 0.8 if M > 1 else 1.0
    paths = torch.tensor(list(itertools.product(range(M + F), repeat=4)))

    def step(z, before, i):
        rho = 1.0 if F == 0 else 0.6 if 0 <= before < M else 0.4
        if z < M:
            return rho * (own if z == i else 0.2 / (M - 1))
        if before < M:
            return (1 - rho) / F
        after = M + (before - M + 1) % F
        return (1 - rho) * ((0.7 if z == after else 0.3 / (F - 1)) if F > 1 else 1.0)

    expected = torch.tensor(
        [
            sum(
                math.prod(step(z, before, i) for before, z in zip([-1, *path], path, strict=False))
                for i in range(M)
            )
            / M
            for path in paths.tolist()
        ]
    )
    close(transition.log_prob(paths).sum(-1).exp(), expected)


@pytest.mark.parametrize(("M", "F"), DATA_SIZES)
def test_posterior_equals_that_of_all_paths(M, F):
    data = small(M, F)
    table = data.log_emission()
    exact, listed = data.transition.posterior(table), enumerate_paths(data.transition, table)
    close(exact.log_likelihood.sum(0), listed.log_evidence)
    one_hot = torch.nn.functional.one_hot(listed.paths, M + F).to(table)  # (N, T, K)
    close(exact.marginals, torch.einsum("bn,ntk->tbk", listed.posterior, one_hot))
    for t in range(len(table)):  # predictions: the evidence of each prefix
        prefix = enumerate_paths(data.transition, table[: t + 1])
        close(exact.log_likelihood[: t + 1].sum(0), prefix.log_evidence)
        # p(i | x) = Σ_z p(i | z) p(z | x), and the state after z is p(i | z)
        state = data.transition.initial_state((len(prefix.paths),))
        for z in (None, *prefix.paths.unbind(1)):
            _, state = data.transition.step_logits(z, state)
        close(exact.identity[t], prefix.posterior @ state.log_identity.exp())


def test_laws_given_the_identity_are_stochastic():
    transition = PlantedTransition(3, 2)
    for i in range(3):
        initial, matrix = transition.conditional(i)
        close(initial.sum(), torch.tensor(1.0))
        close(matrix.sum(-1), torch.ones(5))


def test_data_have_the_law_of_the_transition():
    """Counts of all paths and symbols of two steps: a wrong pass at p < 1e-6 in a million."""
    from scipy.stats import chisquare

    N, M, F = 40_000, 3, 2
    data = planted_memory(N, 3, num_identities=M, num_fillers=F, noise=0.2, slip=0.1)
    K = V = M + F
    paths = torch.cartesian_prod(*[torch.arange(K)] * 3)
    probs = data.transition.log_prob(paths).sum(-1).exp()
    powers = torch.tensor([K * K, K, 1])
    found = torch.bincount((data.z.T * powers).sum(-1), minlength=K**3)
    assert chisquare(found.numpy(), (probs * N).numpy()).pvalue > 1e-6
    pairs = torch.bincount((data.z * V + data.words).flatten(), minlength=K * V).view(K, V)
    expected = pairs.sum(-1, keepdim=True) * data.phi
    assert chisquare(pairs.flatten().numpy(), expected.flatten().numpy(), ddof=K - 1).pvalue > 1e-6


def test_a_cue_names_two_identities_and_two_cues_tell():
    data = planted_memory(
        2_000, 20, num_identities=4, num_fillers=3, noise=1e-6, slip=1e-6, repeat=0.5
    )
    cue = data.z < 4
    names = (data.phi[:4] > 0.1).T[data.words]  # (T, B, M)
    own = torch.nn.functional.one_hot(data.identity, 4).bool().expand_as(names)
    assert names[cue].sum(-1).eq(2).all() and not names[~cue].any()
    assert names[own][cue.flatten()].all()
    left = (names | ~cue.unsqueeze(-1)).all(0).sum(-1)  # identities that all cues allow
    # all cues alike: two are left; else one. The exact posterior says the same.
    exact = data.transition.posterior(data.log_emission()).identity[-1]
    seen = cue.any(0)
    assert set(left[seen].tolist()) == {1, 2}
    torch.testing.assert_close(exact.amax(-1), 1.0 / left, rtol=0.0, atol=1e-3)
    # The sd of this share, of 10,000 cues, is below 0.006: 5 sd, a false alarm in 10^6.
    assert abs(cue[1:][cue[:-1]].double().mean() - 0.5) < 0.03
    close(data.phi.sum(-1), torch.ones(7))


def test_a_seed_gives_the_same_data_and_leaves_the_generator():
    before = torch.get_rng_state()
    first, again, other = (planted_memory(3, 5, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.words, again.words) and torch.equal(first.z, again.z)
    assert not torch.equal(first.words, other.words)


@pytest.mark.parametrize(
    "wrong", [{"num_identities": 0}, {"num_fillers": -1}, {"slip": 0.0}, {"cue_probability": 1.0}]
)
def test_transition_refuses(wrong):
    with pytest.raises(ValueError, match=r"PlantedTransition: .*expected"):
        PlantedTransition(**({"num_identities": 2, "num_fillers": 2} | wrong))


@pytest.mark.parametrize("wrong", [{"num_identities": 2}, {"noise": 0.0}])
def test_planted_memory_refuses(wrong):
    with pytest.raises(ValueError, match=r"planted_memory: .* expected at least 3, and"):
        planted_memory(2, 3, **wrong)
