"""Hit rates and reciprocal ranks, against all orders of what ties."""

import itertools
from fractions import Fraction

import pytest
import torch

from pyro_ssl.models import ranks_of


def by_hand(scores, x, k):
    """Mean of hit@k and of 1 / rank over all orders that sort the scores."""
    hits, reciprocals, orders = 0, Fraction(0), 0
    for order in itertools.permutations(range(len(scores))):
        sorted_scores = [scores[v] for v in order]
        if sorted_scores != sorted(scores, reverse=True):
            continue
        rank = order.index(x) + 1
        orders, hits = orders + 1, hits + (rank <= k)
        reciprocals += Fraction(1, rank)
    return hits / orders, float(reciprocals / orders)


@pytest.mark.parametrize("levels", [1, 2, 3, 100])
def test_all_orders_of_ties(levels):
    V = 5
    scores = torch.randint(levels, (12, V)).double() - 1.0
    scores[0, :2] = -torch.inf  # what cannot come, and does
    x = torch.randint(V, (12,))
    x[0] = 1
    ranks = ranks_of(scores, x)
    for k in range(1, V + 2):
        expected = [by_hand(s, int(v), k) for s, v in zip(scores.tolist(), x, strict=True)]
        hits, reciprocals = (torch.tensor(e) for e in zip(*expected, strict=True))
        assert ranks.hit(k).allclose(hits, rtol=1e-12, atol=0)
        assert ranks.reciprocal().allclose(reciprocals, rtol=1e-12, atol=0)


def test_constant_scores_are_worth_a_blind_guess():
    ranks = ranks_of(torch.zeros(3, 4, 20, dtype=torch.float32), torch.randint(20, (3, 4)))
    assert ranks.hit(5).equal(torch.full((3, 4), 0.25, dtype=torch.float64))
    assert ranks.hit(20).eq(1.0).all() and ranks.hit(21).eq(1.0).all()


def test_scores_alone_count_in_order():
    """Any rising function of the scores gives the same, in any integer type of what came."""
    scores, x = torch.randn(7, 3, 9), torch.randint(9, (7, 3))
    ranks = ranks_of(scores, x)
    again = ranks_of(3.0 * scores.exp() - 1.0, x.to(torch.uint8))
    assert ranks.better.equal(again.better) and ranks.tied.equal(again.tied)
    assert ranks.tied.eq(1).all()


def test_nothing_to_rank():
    ranks = ranks_of(torch.randn(0, 4), torch.zeros(0, dtype=torch.long))
    assert ranks.hit(1).shape == ranks.reciprocal().shape == (0,)


@pytest.mark.parametrize(
    ("scores", "x", "error", "told"),
    [
        ([[0.0]], torch.zeros(1).long(), TypeError, "scores is a list.*torch.as_tensor"),
        (torch.zeros(2, 3), [0, 1], TypeError, "x is a list, expected a tensor"),
        (torch.zeros(2, 3), torch.zeros(2), TypeError, "dtype torch.float32.*x.long()"),
        (torch.zeros(2, 3), torch.zeros(3).long(), ValueError, r"shape \(2, 3\) and x \(3,\)"),
        (torch.zeros(()), torch.zeros(()).long(), ValueError, r"shape \(\) and x \(\)"),
        (torch.zeros(2, 0), torch.zeros(2).long(), ValueError, r"shape \(2, 0\)"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), ValueError, "x from 0 to 3, expected 0 to.*= 2"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), ValueError, "x from -1 to 0.*Leave padding out"),
        (torch.tensor([[0.0, torch.nan]]), torch.tensor([0]), ValueError, "scores hold NaN"),
    ],
)
def test_what_cannot_be_ranked_is_told(scores, x, error, told):
    with pytest.raises(error, match=told):
        ranks_of(scores, x)


@pytest.mark.parametrize("k", [0, -1, 1.5, None])
def test_lists_have_one_guess_at_least(k):
    with pytest.raises(ValueError, match=f"k is {k}, expected 1 or more"):
        ranks_of(torch.zeros(2, 3), torch.zeros(2).long()).hit(k)
