"""Interventions on a belief: the read-out becomes what was wanted, the rest stays, exactly."""

import pyro.distributions as dist
import pytest
import torch

from pyro_ssl.belief import ExtractedHMM, belief_readout, mutual_information
from pyro_ssl.errors import NonFiniteError

K, H, N = 3, 6, 400


def beliefs(n=N):
    return dist.Dirichlet(torch.ones(K)).sample((n,))


@pytest.fixture
def world():
    """States that hold the log-odds of a belief, and as much else, in mixed-up units."""
    belief, mix = beliefs(), torch.randn(H, H)
    inner = torch.cat([belief.log(), torch.randn(N, H - K)], -1)
    return belief, inner, mix, inner @ mix, belief_readout(inner @ mix, belief, ridge=0.0)


def test_reads_what_is_there(world):
    belief, _, _, h, readout = world
    torch.testing.assert_close(readout.belief(h), belief, rtol=0, atol=1e-4)
    assert readout.belief(h.view(20, 20, H)).shape == (20, 20, K)
    torch.testing.assert_close(readout.covariance, torch.cov(h.T))


def test_the_read_out_becomes_the_belief(world):
    _, _, _, h, readout = world
    wanted = beliefs()
    torch.testing.assert_close(readout.belief(readout.move(h, wanted)), wanted, rtol=0, atol=1e-9)
    own = readout.belief(h)
    torch.testing.assert_close(readout.move(h, own), h, rtol=0, atol=1e-8)


def test_of_all_such_states_it_is_the_nearest(world):
    """Any other change to the same belief is longer, by the covariance's own measure."""
    _, _, _, h, readout = world
    change = readout.move(h, beliefs()) - h
    precision = torch.linalg.inv(readout.covariance)
    centred = readout.weight - readout.weight.mean(-1, keepdim=True)
    basis = torch.linalg.svd(centred.T)[2][K - 1 :]  # leaves the read-out as it is
    torch.testing.assert_close(basis @ centred, torch.zeros(H - K + 1, K), rtol=0, atol=1e-8)
    inner = (change @ precision @ basis.T) / change.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(inner, torch.zeros_like(inner), rtol=0, atol=1e-6)


def test_units_of_the_states_do_not_matter(world):
    """The same states in other coordinates are moved to the same places."""
    belief, inner, mix, h, readout = world
    wanted, other = beliefs(), belief_readout(inner, belief, ridge=0.0)
    # Both are the read-out of least cross-entropy, up to how far L-BFGS went.
    moved = other.move(inner, wanted) @ mix
    torch.testing.assert_close(moved, readout.move(h, wanted), rtol=0, atol=0.02)


def test_controls_are_as_long_and_one_keeps_the_belief(world):
    _, _, _, h, readout = world
    change = readout.move(h, beliefs()) - h
    precision = torch.linalg.inv(readout.covariance)

    def length(x):
        return ((x @ precision) * x).sum(-1).sqrt()

    state = torch.get_rng_state()
    random, kept = readout.beside(change)
    assert torch.equal(state, torch.get_rng_state())
    for control in (random, kept):
        torch.testing.assert_close(length(control), length(change))
    torch.testing.assert_close(readout.belief(h + kept), readout.belief(h), rtol=0, atol=1e-8)
    assert (readout.belief(h + random) - readout.belief(h)).abs().max() > 0.1
    assert torch.equal(readout.beside(change)[0], random)
    assert not torch.equal(readout.beside(change, seed=1)[0], random)


def test_a_filter_predicts_from_the_belief_that_it_is_given():
    """A network whose state is the filter's log-belief: the prediction is the HMM's, exactly."""
    matrix = dist.Dirichlet(torch.ones(K, K)).sample()
    emission = dist.Dirichlet(torch.ones(K, 4)).sample()
    hmm = ExtractedHMM(torch.full((K,), 1 / K), matrix, emission)
    belief = hmm.filter(torch.randint(4, (30, 20))).filtered
    h, wanted = belief.log(), dist.Dirichlet(torch.ones(K)).sample((30, 20))
    readout = belief_readout(h, belief, ridge=0.0)
    found = readout.move(h, wanted).softmax(-1) @ matrix @ emission
    torch.testing.assert_close(found, wanted @ matrix @ emission, rtol=0, atol=1e-4)


def test_is_the_read_out_that_measures_information():
    belief = beliefs(N * 2).view(N, 2, K)
    h = belief.log() + 0.5 * torch.randn(N, 2, K)
    readout = belief_readout(h[:, ::2], belief[:, ::2])
    expected = mutual_information(h, belief).decoded
    torch.testing.assert_close(readout.belief(h[:, 1::2]), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "call, kind, message",
    [
        (lambda r, h, b: r.move(h, b.round()), ValueError, "belief has probabilities of 0"),
        (lambda r, h, b: r.move(h, b[..., :2]), ValueError, r"expected \(..., 3\)"),
        (lambda r, h, b: r.move(h, 2 * b), ValueError, "add up to 2"),
        (lambda r, h, b: belief_readout(h, b[1:]), ValueError, r"belief has shape \(399, 3\)"),
        (lambda r, h, b: belief_readout(h / 0.0, b), NonFiniteError, "of h are not finite"),
        (lambda r, h, b: r.beside(h, seed=-1), ValueError, "seed is -1"),
    ],
)
def test_refuses(world, call, kind, message):
    belief, _, _, h, readout = world
    with pytest.raises(kind, match=message):
        call(readout, h, torch.eye(K)[belief.argmax(-1)] if "of 0" in message else belief)
