"""Joint beliefs over 2^k states, held against enumeration."""

import itertools
import math

import pytest
import torch

from pyro_ssl.belief import joint_states, most_probable_states, product_belief
from tests.test_device import NoBareFactory


def enumerated(probs):
    """Log-probability of every bit string, by a sum over its bits, unit 0 the highest."""
    k = probs.shape[-1]
    rows = list(itertools.product([False, True], repeat=k))
    bits = torch.tensor(rows, dtype=torch.bool).reshape(2**k, k)
    p = probs.unsqueeze(-2)
    return bits, torch.where(bits, p.log(), (-p).log1p()).sum(-1)


@pytest.mark.parametrize("k", range(11))
def test_product_belief_equals_enumeration(k):
    probs = torch.rand(2, 3, k)
    bits, log_p = enumerated(probs)
    found = product_belief(probs)
    assert found.shape == (2, 3, 2**k)
    torch.testing.assert_close(found, log_p.exp(), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 3), rtol=0, atol=1e-10)
    assert torch.equal(bits.long(), joint_states(k))


@pytest.mark.parametrize("k", range(11))
def test_most_probable_states_equal_the_sorted_enumeration(k):
    probs = torch.rand(2, 3, k)
    bits, log_p = enumerated(probs)
    order = log_p.argsort(-1, descending=True)
    for m in {1, min(5, 2**k), 2**k}:
        found = most_probable_states(probs, m)
        first = order[..., :m]
        assert torch.equal(found.states, bits[first])
        torch.testing.assert_close(found.log_probs, log_p.gather(-1, first), rtol=0, atol=1e-10)


def test_probabilities_of_many_units_are_those_of_their_states():
    probs = torch.rand(4, 200)
    found = most_probable_states(probs, 50)
    p = torch.where(found.states, probs.unsqueeze(1), 1 - probs.unsqueeze(1))
    torch.testing.assert_close(found.log_probs, p.log().sum(-1), rtol=0, atol=1e-10)
    assert torch.equal(found.states[:, 0], probs > 0.5)
    assert (found.log_probs.diff(dim=-1) <= 0).all()
    assert all(len(set(map(tuple, rows.tolist()))) == 50 for rows in found.states)
    # The second best flips the least certain unit, and no state left out is better than the last.
    least = (probs - 0.5).abs().argmin(-1)
    turned = found.states[:, 0] ^ found.states[:, 1]
    assert torch.equal(turned, torch.nn.functional.one_hot(least, 200).bool())
    single = probs.logit().abs().sort(-1).values
    gap = found.log_probs[:, :1] - found.log_probs
    for row in range(4):
        pairs = (single[row, :, None] + single[row]).triu(1)
        small = torch.cat([single[row, :20], pairs[:20, :20][pairs[:20, :20] > 0]])
        assert int((small < gap[row, -1] - 1e-9).sum()) <= 49


def test_certain_units():
    found = most_probable_states(torch.tensor([1.0, 0.0, 0.3]), 8)
    assert found.states[0].tolist() == [True, False, False]
    torch.testing.assert_close(found.log_probs[:2].exp(), torch.tensor([0.7, 0.3]))
    assert (found.log_probs[2:] == -torch.inf).all()
    # Log-odds keep what probabilities round away.
    found = most_probable_states(None, 2, logits=torch.tensor([60.0]))
    expected = torch.tensor([-math.exp(-60.0), -60.0])
    torch.testing.assert_close(found.log_probs, expected, rtol=1e-12, atol=0)


def test_dtype_and_device_follow(device):
    probs = torch.rand(5, 4, dtype=torch.float32, device=device)
    with NoBareFactory():
        values = product_belief(probs), most_probable_states(probs, 3).log_probs
    assert all(v.dtype == torch.float32 and v.device.type == device.type for v in values)


def test_errors_teach():
    with pytest.raises(ValueError, match=r"13 units have 2\^13.*write most_probable_states"):
        product_belief(torch.rand(13))
    with pytest.raises(ValueError, match=r"num_states is 9, expected from 1 to 2\^3"):
        most_probable_states(torch.rand(3), 9)
    with pytest.raises(ValueError, match="num_states is 0"):
        most_probable_states(torch.rand(40), 0)
    with pytest.raises(ValueError, match="either probs or logits; write"):
        most_probable_states(None, 1)
