"""Resampling: exact values at the edges of floating point, and the law of the ancestors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_ssl.smc import multinomial, systematic
from pyro_ssl.smc.resampling import RESAMPLING, invert_cdf
from tests.smc.test_movement import LAWS
from tests.statistics import ALPHA, chi_square, p_value

ONE_BELOW = 1 - 2**-53  # the largest uniform
WEIGHTS = [[0.2, 0.5, 0.3], [0.9, 0.06, 0.04], [1e-3, 1.0, 1e-3], [0.0, 3.0, 1.0], [0.1, 0.2, 0.0]]


@pytest.mark.parametrize(
    "weights, u, expected",
    [
        ([1.0, 2.0, 1.0], 0.0, 0),
        ([1.0, 2.0, 1.0], 0.25, 1),  # exactly at an edge: the cell that begins there
        ([1.0, 2.0, 1.0], 0.2499, 0),
        ([0.0, 2.0, 1.0], 0.0, 1),  # a uniform of exactly 0 and a weight of 0
        ([2.0, 0.0, 0.0], ONE_BELOW, 0),
        ([5e-324, 0.0], 0.75, 0),  # u times the total rounds to the total
        ([1e-300, 1e-12, 1e-300], 0.5, 1),
        ([1.0, 1e-9], 1 - 1e-10, 1),  # kept in float64
        ([0.0, 0.0, 0.0], 0.5, 2),  # no weight at all: an index, whatever it is
    ],
)
def test_inversion(weights, u, expected):
    cdf = torch.tensor(weights).cumsum(-1)
    assert invert_cdf(cdf, torch.tensor([u])).item() == expected


@pytest.mark.stage("system")
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.floats(0, ONE_BELOW), st.data())
def test_weight_zero_is_never_drawn(weights, u, data):
    weights = torch.tensor(weights, dtype=torch.float64)
    if weights.sum() == 0 or not weights.sum().isfinite():
        return
    first = data.draw(st.sampled_from(weights.nonzero().flatten().tolist()))
    uniforms = torch.full((1, len(weights)), u, dtype=torch.float64)
    for resample in RESAMPLING.values():
        for given_first in (None, torch.tensor([first])):
            ancestors = resample(weights.unsqueeze(0), given_first, uniforms)
            assert (weights[ancestors] > 0).all()
            assert given_first is None or ancestors[0, 0] == first


@pytest.mark.parametrize("P", [1, 2, 7, 50])
def test_float32_sums_that_miss_the_total(P):
    weights = torch.rand(300, P, dtype=torch.float32) * (torch.rand(300, P) < 0.5)
    weights[:, 0] += 1e-3
    u = torch.full((300, P), 1 - 2**-24, dtype=torch.float32)
    for resample in RESAMPLING.values():
        assert (weights.gather(-1, resample(weights, None, u)) > 0).all()


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("scheme", RESAMPLING)
def test_law_given_the_first_ancestor(scheme, weights, n=30_000):
    P = len(weights)
    for first in range(P):
        if weights[first] == 0:
            continue
        law = LAWS[scheme]([w / sum(weights) for w in weights], first)
        rows = torch.tensor(weights).expand(n, P)
        ancestors = RESAMPLING[scheme](rows, torch.full((n,), first), torch.rand(n, P))
        powers = P ** torch.arange(P)
        counts = (ancestors * powers).sum(-1).bincount(minlength=P**P)
        probabilities = torch.zeros(P**P)
        for others, p in law.items():
            probabilities[(torch.tensor(others) * powers).sum()] += p
        assert p_value([chi_square(counts, probabilities)]) > ALPHA


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("scheme", RESAMPLING)
def test_every_slot_follows_the_weights(scheme, weights, n=30_000):
    """Unconditionally, and also with slot 0 drawn first: what the conditional form rests on."""
    law, P = torch.tensor(weights) / sum(weights), len(weights)
    rows = law.expand(n, P)
    for first in (None, law.expand(n, P).multinomial(1).squeeze(-1)):
        ancestors = RESAMPLING[scheme](rows, first, torch.rand(n, P))
        for slot in ancestors.T:
            assert p_value([chi_square(slot.bincount(minlength=P), law)]) > ALPHA


def test_systematic_counts_miss_their_expectation_by_less_than_one():
    weights = torch.rand(1000, 8)
    expected = 8 * weights / weights.sum(-1, keepdim=True)
    first = weights.multinomial(1).squeeze(-1)
    for given_first in (None, first):
        counts = torch.nn.functional.one_hot(systematic(weights, given_first, torch.rand(1000, 8)))
        assert ((counts.sum(1) - expected).abs() < 1 + 1e-9).all()


def test_systematic_depends_on_one_uniform_and_multinomial_on_all():
    weights, u = torch.rand(100, 6), torch.rand(100, 6)
    other = torch.cat([u[:, :1], torch.rand(100, 5)], 1)
    assert systematic(weights, None, u).equal(systematic(weights, None, other))
    assert multinomial(weights, None, u)[:, 0].equal(multinomial(weights, None, other)[:, 0])
    assert not multinomial(weights, None, u).equal(multinomial(weights, None, other))


@pytest.mark.parametrize("name", RESAMPLING)
def test_one_first_ancestor_for_all_is_a_tensor_of_it(name):
    weights, u = torch.rand(5, 4), torch.rand(5, 4)
    for first in range(4):
        expected = RESAMPLING[name](weights, torch.full((5,), first), u)
        assert torch.equal(RESAMPLING[name](weights, first, u), expected)
