"""Fidelity against sums by hand; information against its bounds; a small network end to end."""

import math

import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import LanguageModel, LSTMTransition
from pyro_ssl.belief import (
    ExtractedHMM,
    FilterRNN,
    exact_filter,
    fidelity,
    log_predictive,
    mutual_information,
    to_hmm,
    visited_states,
)


def make_hmm(K, V, seed=0):
    torch.manual_seed(seed)
    return ExtractedHMM(
        torch.full((K,), 1 / K),
        dist.Dirichlet(torch.ones(K, K)).sample(),
        dist.Dirichlet(torch.ones(K, V)).sample(),
    )


def test_fidelity_equals_a_sum_by_hand():
    truth, other = make_hmm(3, 4, seed=0), make_hmm(2, 4, seed=1)
    x, lengths = torch.randint(4, (5, 3)), torch.tensor([5, 1, 3])
    found = fidelity(truth, other, x, lengths)
    p, q = truth.filter(x).log_predictive, other.filter(x).log_predictive
    kl, same = {}, []
    for b, n in enumerate(lengths.tolist()):
        for t in range(n):
            kl[t, b] = float((p[t, b].exp() * (p[t, b] - q[t, b])).sum())
            same.append(bool(p[t, b].argmax() == q[t, b].argmax()))
    assert found.num_states == 2
    assert found.kl == pytest.approx(sum(kl.values()) / 9)
    assert found.agreement == pytest.approx(sum(same) / 9)
    assert float(found.kl_by_step[2]) == pytest.approx((kl[2, 0] + kl[2, 2]) / 2)
    assert found.reference_perplexity == pytest.approx(truth.perplexity(x, lengths))
    assert found.surrogate_perplexity == pytest.approx(other.perplexity(x, lengths))


def test_standard_error_is_over_sequences():
    truth, other = make_hmm(3, 4, seed=0), make_hmm(2, 4, seed=1)
    x = torch.randint(4, (5, 6))
    found = fidelity(truth, other, x)
    each = torch.tensor([fidelity(truth, other, x[:, [b]]).kl for b in range(6)])
    assert found.kl == pytest.approx(float(each.mean()))
    assert found.kl_error == pytest.approx(float(each.std()) / math.sqrt(6))
    assert math.isnan(fidelity(truth, other, x[:, :1]).kl_error)


def test_a_surrogate_that_is_the_same():
    truth, x = make_hmm(3, 4), torch.randint(4, (5, 6))
    same = FilterRNN(truth.matrix, truth.emission, truth.initial)
    found = fidelity(truth, same, x)
    assert found.num_states == 3 and found.agreement == 1.0 and abs(found.kl) < 1e-15
    assert fidelity(truth, log_predictive(truth, x), x).num_states == 0


def test_zeros_of_the_reference_cost_nothing():
    log_p = torch.tensor([0.5, 0.5, 0.0]).log().expand(2, 2, 3)
    log_q = torch.tensor([0.25, 0.75, 0.0]).log().expand(2, 2, 3)
    found = fidelity(log_p, log_q, torch.zeros(2, 2, dtype=torch.long))
    assert found.kl == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert found.agreement == 0.0


def test_predictions_of_networks():
    x, lengths = torch.randint(4, (5, 3)), torch.tensor([5, 2, 4])
    model = LanguageModel(4, hidden_size=5)  # in train() mode: dropout must be off all the same
    own = log_predictive(model, x, lengths).gather(-1, x.unsqueeze(-1)).squeeze(-1)
    expected = model.log_likelihood(x, lengths)
    seen = torch.arange(5)[:, None] < lengths
    assert torch.allclose(own[seen], expected[seen], atol=1e-6)
    transition = LSTMTransition(4, 5)
    own = log_predictive(transition, x).gather(-1, x.unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(own.T, transition.log_prob(x.T), atol=1e-12)


def test_information_has_its_exact_bounds():
    truth = make_hmm(3, 4)
    belief = truth.filter(truth.distribution(40).sample((60,)).T).filtered
    marginal = belief[:, 1::2].flatten(0, 1).mean(0)
    entropies = [-(p * p.log()).sum(-1) for p in (marginal, belief[:, 1::2].flatten(0, 1))]
    for h in (belief.log(), belief.log() @ torch.randn(3, 3) + 7):  # any invertible linear map
        found = mutual_information(h, belief)
        assert found.available == pytest.approx(float(entropies[0] - entropies[1].mean()))
        assert found.available - 1e-4 < found.held < found.available + 1e-12
        assert torch.allclose(found.decoded, belief[:, 1::2], atol=0.02)
    assert mutual_information(belief, belief).r_squared == pytest.approx(1.0)
    found = mutual_information(torch.randn(40, 60, 2), belief)
    assert found.held < 0.01 and abs(found.r_squared) < 0.02  # 1,200 held-out steps
    part = mutual_information(belief[..., :1], belief)
    assert 0.1 < part.share < 0.99


def test_errors_teach():
    truth, x = make_hmm(3, 4), torch.randint(4, (5, 3))
    with pytest.raises(ValueError, match="with the same V; write to_hmm"):
        fidelity(truth, make_hmm(3, 5), x)
    with pytest.raises(TypeError, match="found GRU, expected a LanguageModel"):
        log_predictive(torch.nn.GRU(2, 3), x)
    with pytest.raises(ValueError, match="B >= 2 sequences: half are for fitting"):
        mutual_information(torch.randn(5, 1, 2), torch.rand(5, 1, 3))


@pytest.mark.stage("statistical")
@pytest.mark.usefixtures("float32")
def test_an_lstm_trained_on_an_hmm_is_read_as_one():
    """HMMs of more states are nearer, and the largest predicts nearly as well as the true HMM.

    With a quarter of the benchmark's data. Margins are over ten standard errors of the KL (5e-4 at
    most), so another seed matters only through what the network learns.
    """
    turn = torch.eye(4).roll(1, 1)
    emission = torch.full((4, 6), 0.05)
    for state, (first, second) in enumerate([(0, 1), (1, 2), (3, 4), (5, 4)]):
        emission[state, first], emission[state, second] = 0.5, 0.3
    matrix = 0.88 * torch.eye(4) + 0.1 * turn + 0.01 * (turn @ turn + turn @ turn @ turn)
    truth = ExtractedHMM(torch.full((4,), 0.25), matrix, emission)
    words = truth.distribution(100).sample((250,)).T
    train, test = words[:, :125], words[:, 125:]
    model = LanguageModel(6, embedding_size=8, hidden_size=24, dropout=0.0)
    model.fit(train, num_epochs=20, batch_size=10, learning_rate=0.005, disable_progbar=True)
    network = fidelity(truth, model, test)
    assert network.kl < 0.03 and network.agreement > 0.75
    found = [
        fidelity(model, to_hmm(model, train, num_states=n, num_symbols=6), test) for n in (1, 8, 32)
    ]
    assert found[0].kl > 1.2 * found[1].kl > 2 * found[2].kl
    assert found[2].surrogate_perplexity < 1.1 * truth.perplexity(test)
    assert found[0].surrogate_perplexity > 1.1 * truth.perplexity(test)
    belief = exact_filter(truth.matrix, truth.emission, truth.initial, test).filtered
    information = mutual_information(visited_states(model, test), belief)
    assert information.share > 0.9 and information.r_squared > 0.85
