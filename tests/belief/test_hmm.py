"""Extraction: a chain gives itself, a gate its kernel, and known states are counted exactly."""

import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import LanguageModel, LSTMTransition, MarkovTransition, ParticleFilter
from pyro_ssl.belief import (
    ExtractedHMM,
    FilterRNN,
    GateRNN,
    kmeans,
    product_belief,
    to_hmm,
    to_pomdp,
    visited_states,
)
from pyro_ssl.exact.chains import enumerate_paths


@pytest.fixture
def hmm():
    matrix = dist.Dirichlet(torch.ones(3, 3)).sample()
    emission = dist.Dirichlet(torch.ones(3, 4)).sample()
    return ExtractedHMM(torch.tensor([0.2, 0.3, 0.5]), matrix, emission)


# ------------------------------------------------------------------------------- exact sources


@pytest.mark.parametrize("given", [True, False])
def test_a_markov_chain_is_itself(hmm, given):
    chain = hmm.transition if given else MarkovTransition(3)
    if not given:
        for parameter in chain.parameters():
            parameter.data.normal_(0, 3)
    found, z = to_hmm(chain), torch.randint(3, (7, 5))
    assert torch.allclose(found.initial, chain.initial_logits.softmax(-1), atol=1e-15)
    assert torch.allclose(found.matrix, chain.transition_logits.softmax(-1), atol=1e-15)
    with torch.no_grad():
        expected = chain.log_prob(z.T).sum(-1)
    assert torch.allclose(found.log_prob(z), expected, atol=1e-12)
    again = to_hmm(found.transition)
    assert torch.allclose(again.matrix, found.matrix, atol=1e-15)
    assert torch.equal(to_hmm(chain, emission=hmm.emission).emission, hmm.emission)


def test_a_gate_is_its_kernel():
    gate, a = GateRNN(4, 3), torch.randn(3)
    found, pomdp = to_hmm(gate, evidence=a), to_pomdp(gate)
    assert torch.equal(found.matrix, pomdp.kernel(a))
    assert torch.allclose(found.initial, product_belief(a.sigmoid()))  # h_0 = 0
    assert torch.equal(to_hmm(pomdp, evidence=a).matrix, found.matrix)
    z = torch.randint(8, (5, 2))
    steps = found.matrix[z[:-1], z[1:]].log().sum(0) + found.initial[z[0]].log()
    assert torch.allclose(found.log_prob(z), steps, atol=1e-12)


def test_scores_equal_enumeration_and_discrete_hmm(hmm):
    x = torch.randint(4, (5, 6))
    exact = enumerate_paths(hmm.transition, hmm.emission.T.log()[x]).log_evidence
    assert torch.allclose(hmm.log_prob(x), exact, atol=1e-12)
    assert torch.allclose(hmm.distribution(5).log_prob(x.T), exact, atol=1e-12)
    assert hmm.perplexity(x) == pytest.approx(float((-exact.sum() / 30).exp()))
    lengths = torch.tensor([5, 4, 3, 2, 1, 5])
    x[1:, 4] = -1  # padding is never read
    short = torch.stack([hmm.log_prob(x[:n, [b]])[0] for b, n in enumerate(lengths.tolist())])
    assert torch.allclose(hmm.log_prob(x, lengths), short, atol=1e-12)
    assert hmm.perplexity(x, lengths) == pytest.approx(float((-short.sum() / 20).exp()))


def test_what_is_impossible_has_probability_0():
    shown = to_hmm(
        MarkovTransition(2, initial=torch.tensor([1.0, 0.0]), matrix=torch.eye(2).flip(0))
    )
    x = torch.tensor([[0, 0, 1], [1, 1, 0], [0, 1, 1]])
    assert shown.log_prob(x).tolist() == [0.0, -torch.inf, -torch.inf]
    assert shown.distribution(3).log_prob(x[:, 0]).item() == pytest.approx(0.0)


def test_discrete_hmm_draws_from_it(hmm):
    x = hmm.distribution(4).sample((20_000,))
    first = torch.bincount(x[:, 0], minlength=4) / 20_000
    assert torch.allclose(first, hmm.initial @ hmm.emission, atol=0.02)  # 5.6 s.e.
    second = torch.bincount(x[:, 1], minlength=4) / 20_000
    assert torch.allclose(second, hmm.initial @ hmm.matrix @ hmm.emission, atol=0.02)


def test_particle_filter_s_evidence_is_the_exact_one(hmm):
    """An HMM extracted from a network, in ``ssl_transition``: E[Z-hat / Z] = 1.

    |z| < 4 for the mean over 4,000 copies of a sequence, for two sequences: a change of seed fails
    by chance once in 8,000 times.
    """
    network = GateRNN(4, 5)
    for parameter in network.parameters():
        parameter.data.mul_(4)
    extracted = to_hmm(network, hmm.distribution(30).sample((40,)).T, num_states=6, num_symbols=4)
    for x in hmm.distribution(12).sample((2,)):
        copies = x[:, None].expand(-1, 4000)
        ratio = ParticleFilter(extracted.model, 8, twist=None).log_evidence(copies)
        ratio = (ratio - extracted.log_prob(x[:, None])).exp()
        assert ratio.std() > 0.01
        assert abs(ratio.mean() - 1) < 4 * ratio.std() / len(ratio) ** 0.5


# ---------------------------------------------------------------------------------- clustering


def test_kmeans_finds_blobs():
    truth = 10 * torch.randn(5, 3)
    label = torch.randint(5, (400,))
    found = kmeans(truth[label] + 0.01 * torch.randn(400, 3), 5)
    assert torch.cdist(truth, found).min(-1).values.max() < 0.01
    assert torch.cdist(truth, found).argmin(-1).unique().numel() == 5


def test_kmeans_on_fewer_places_than_clusters():
    points = torch.tensor([[0.0], [1.0]]).repeat(5, 1)
    assert set(kmeans(points, 4).flatten().tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match="found 3 points for num_clusters=4"):
        kmeans(points[:3], 4)


def test_known_states_are_counted_exactly(hmm):
    z = torch.randint(3, (10, 4))
    x, lengths = torch.randint(4, (10, 4)), torch.tensor([10, 1, 4, 7])
    place = 10 * torch.randn(3, 2)
    h = place[z].masked_fill((torch.arange(10)[:, None] >= lengths).unsqueeze(-1), torch.nan)
    found = to_hmm(h, x, lengths, num_states=3, num_symbols=4, pseudo_count=0.6, symbol_weight=0)
    name = found.states(place, torch.zeros(3, dtype=torch.long))  # the cluster of each true state
    start, moves, symbols = torch.zeros(3), torch.zeros(3, 3), torch.zeros(3, 4)
    for b, n in enumerate(lengths.tolist()):
        start[name[z[0, b]]] += 1
        for t in range(n):
            symbols[name[z[t, b]], x[t, b]] += 1
            if t:
                moves[name[z[t - 1, b]], name[z[t, b]]] += 1
    for count, part in ((start, "initial"), (moves, "matrix"), (symbols, "emission")):
        count += 0.6 / count.shape[-1]
        assert torch.allclose(getattr(found, part), count / count.sum(-1, keepdim=True), atol=1e-12)


def test_language_model_s_states_are_after_the_symbol():
    model, x = LanguageModel(4, hidden_size=5), torch.randint(4, (6, 3))
    h = visited_states(model, x)
    own = model.log_likelihood(x)[1:]
    predicted = model.head(h[:-1]).log_softmax(-1)
    assert torch.allclose(predicted.gather(-1, x[1:, :, None]).squeeze(-1), own, atol=1e-6)


def test_states_of_the_other_sources():
    x = torch.randint(4, (6, 3))
    transition = LSTMTransition(4, 5)
    h = visited_states(transition, x)
    with torch.no_grad():
        assert torch.allclose(
            transition.head(h[:-1]), transition.path_logits(x.T).transpose(0, 1)[1:], atol=1e-12
        )
    lstm = torch.nn.LSTM(4, 5)
    one_hot = torch.eye(4)[x]
    assert torch.equal(visited_states(lstm, x), lstm(one_hot)[0])
    gate = GateRNN(4, 2)
    assert torch.equal(visited_states(gate, x), gate.sequence(one_hot)[0])


def test_no_state_mixes_symbols_where_there_are_enough(hmm):
    x = hmm.distribution(50).sample((40,)).T
    network = FilterRNN(hmm.matrix, hmm.emission, hmm.initial)
    found = to_hmm(network, x, num_states=9, num_symbols=4, pseudo_count=0)
    assert set(found.emission.unique().tolist()) == {0.0, 1.0}
    states = found.states(visited_states(network, x), x)
    assert torch.equal(found.emission.argmax(-1)[states], x)
    assert found.refine(x, num_epochs=2).perplexity(x) < found.perplexity(x)  # from zeros, too


@pytest.mark.stage("system")
def test_an_extracted_filter_comes_near_the_truth():
    """From the exact filter's own states: counting loses a little, and EM regains a part of it.

    Perplexities are of 50,000 held-out symbols in 1,000 sequences, the same for all; they differ
    by at most 0.2 % by chance.
    """
    emission = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4]])
    hmm = ExtractedHMM(torch.full((3,), 1 / 3), 0.7 * torch.eye(3) + 0.1, emission)
    words = hmm.distribution(50).sample((2000,)).T
    train, test = words[:, :1000], words[:, 1000:]
    network = FilterRNN(hmm.matrix, hmm.emission, hmm.initial)
    one, many = (to_hmm(network, train, num_states=n, num_symbols=4) for n in (1, 16))
    assert 0.998 * hmm.perplexity(test) < many.perplexity(test) < 1.01 * hmm.perplexity(test)
    assert one.perplexity(test) > 1.05 * hmm.perplexity(test)
    scores = [many.refine(train, num_epochs=n).perplexity(train) for n in (0, 1, 3)]
    assert scores[0] > scores[1] > scores[2]


def test_refining_starts_from_here(hmm):
    x, lengths = torch.randint(4, (5, 6)), torch.tensor([5, 4, 3, 2, 1, 5])
    same = hmm.refine(x, num_epochs=0)
    assert torch.equal(same.matrix, hmm.matrix) and torch.allclose(same.emission, hmm.emission)
    other = x.clone()
    other[1:, 4] = 0  # past its length
    ragged = [hmm.refine(data, lengths, num_epochs=2).matrix for data in (x, other)]
    assert torch.allclose(*ragged, atol=1e-12)


def test_errors_teach(hmm):
    gate, x = GateRNN(4, 3), torch.randint(4, (6, 3))
    with pytest.raises(ValueError, match="without words.*write to_hmm.network, words, num_states"):
        to_hmm(gate)
    with pytest.raises(ValueError, match="found a LSTM with evidence.*to_hmm.to_pomdp"):
        to_hmm(torch.nn.LSTM(4, 3), evidence=torch.zeros(3))
    with pytest.raises(ValueError, match="visits no states"):
        to_hmm(to_pomdp(gate), x, num_states=2)
    with pytest.raises(TypeError, match="found GRU, expected a LanguageModel"):
        to_hmm(torch.nn.GRU(4, 3), x, num_states=2)
    with pytest.raises(ValueError, match="reads 2 exogenous inputs"):
        to_hmm(LSTMTransition(4, 3, input_size=2), x, num_states=2)
    with pytest.raises(ValueError, match="the chain reads 2 inputs per step"):
        to_hmm(MarkovTransition(3, input_size=2))
    with pytest.raises(ValueError, match=r"found states \(3, 6, 2\) for symbols \(6, 3\)"):
        to_hmm(torch.randn(3, 6, 2), x, num_states=2)
    with pytest.raises(ValueError, match="no centres"):
        hmm.states(torch.zeros(3), torch.tensor(0))
    with pytest.raises(ValueError, match="a row of emission is no distribution"):
        ExtractedHMM(hmm.initial, hmm.matrix, hmm.emission * 2)
