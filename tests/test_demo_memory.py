"""The pair of histories that the demonstration shows, against a search by hand."""

from itertools import combinations

import pytest
import torch

from pyro_ssl.datasets import Vocabulary, batchify
from pyro_ssl.demo import memory
from pyro_ssl.demo.memory import markov_row, most_different, remember
from pyro_ssl.infer import MarkovEM
from pyro_ssl.models import TopicalSSL
from pyro_ssl.transitions import LSTMTransition, MarkovTransition


def by_hand(path, predicted, lengths, at_least):
    """All pairs of places with the same last topic, each by its definition."""
    places = [(b, t) for b, n in enumerate(lengths) for t in range(at_least, n)]
    apart = {}
    for (b, t), (c, u) in combinations(places, 2):
        if path[b, t - 1] == path[c, u - 1]:
            p, q = predicted[b, t].tolist(), predicted[c, u].tolist()
            apart[b, t, c, u] = sum(abs(x - y) for x, y in zip(p, q, strict=True)) / 2
    return apart


@pytest.mark.parametrize("rows", [1, 4, 512])
def test_the_pair_is_the_one_that_a_search_finds(rows, monkeypatch):
    monkeypatch.setattr(memory, "_ROWS", rows)
    transition = LSTMTransition(3, 5).eval()
    for parameter in transition.parameters():
        torch.nn.init.normal_(parameter, std=2.0)
    path = torch.randint(3, (4, 9))
    lengths = [9, 7, 2, 9]
    active = torch.arange(9) < torch.tensor(lengths).unsqueeze(1)
    with torch.no_grad():
        predicted = transition.path_logits(path).softmax(-1)
    pair = most_different(path, predicted, active, at_least=3)
    apart = by_hand(path, predicted, lengths, 3)
    (b, t, c, u), distance = max(apart.items(), key=lambda item: item[1])
    assert {(b, t), (c, u)} == {*zip(pair.documents, pair.steps, strict=True)}
    assert pair.distance == pytest.approx(distance) and distance > 0.05
    assert pair.topic == path[b, t - 1] == path[c, u - 1]
    assert pair.typical == pytest.approx(sum(apart.values()) / len(apart))
    assert pair.num_pairs == len(apart)


def test_a_markov_chain_remembers_nothing():
    chain = MarkovTransition(3, matrix=torch.distributions.Dirichlet(torch.ones(3, 3)).sample())
    path = torch.randint(3, (5, 12))
    with torch.no_grad():
        predicted = chain.path_logits(path).softmax(-1)
    pair = most_different(path, predicted, path >= 0, at_least=8)
    assert pair.num_pairs > 0 and pair.distance == pair.typical == 0.0


def test_a_topic_that_decides_what_comes_two_steps_later():
    """Topic 2 is between: what follows it is what stood before it."""
    path = torch.tensor([[0, 2, 0], [1, 2, 1], [0, 2, 0]])
    predicted = torch.full((3, 3, 3), 1 / 3)
    predicted[:, 2] = torch.eye(3)[path[:, 0]]
    pair = most_different(path, predicted, path >= 0, at_least=2)
    assert pair == (2, (0, 1), (2, 2), 1.0, pytest.approx(2 / 3), 3)


def test_no_two_histories():
    path = torch.tensor([[0, 1, 1], [1, 0, 1]])
    predicted = torch.full((2, 3, 2), 0.5)
    assert most_different(path, predicted, path >= 0, at_least=2) is None
    assert most_different(path, predicted, path >= 0, at_least=3) is None
    assert most_different(path, predicted, path < 0, at_least=1) is None


@pytest.fixture
def fitted():
    """Topics of one word each, and the HMM's states in another order."""
    ssl = TopicalSSL(3, ["<unk>", "a", "b"], hidden_size=4).eval()  # as a fit leaves it
    ssl.phi, ssl.occupancy = torch.eye(3) * 0.94 + 0.02, torch.ones(3) / 3
    matrix = torch.tensor([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.6, 0.1, 0.3]])
    order = [2, 0, 1]  # the state of each topic
    phi = torch.empty(3, 3)
    phi[order] = ssl.phi
    ssl.markov = MarkovEM(ssl.model).start_from(torch.ones(3) / 3, matrix, phi=phi)
    return ssl


def test_the_hmm_is_asked_in_the_order_of_the_topics(fitted):
    # Topic 0 is state 2, from which it goes to states 2, 0, 1 with .3, .6, .1.
    assert markov_row(fitted, 0).tolist() == pytest.approx([0.3, 0.6, 0.1])
    assert markov_row(fitted, 1).tolist() == pytest.approx([0.7, 0.1, 0.2])


def test_what_a_reader_sees_of_a_pair(fitted):
    texts = [["a", "b", "a", "a", "b", "b", "a", "b", "a", "b", "a"], ["b"] * 9]
    batch = batchify(texts, Vocabulary(["<unk>", "a", "b"]))
    probs = torch.eye(3)[batch.words] * batch.mask.unsqueeze(-1)
    found = remember(fitted, batch, probs, num_words=2)
    path = batch.words.T  # each word is its own topic
    with torch.no_grad():
        predicted = fitted.transition.path_logits(path).softmax(-1)
    assert found.pair == most_different(path, predicted, batch.mask.T, at_least=2)
    for i, (b, t) in enumerate(zip(found.pair.documents, found.pair.steps, strict=True)):
        assert found.passages[i].words == texts[b][t - 2 : t + 1]
        assert found.passages[i].probs.argmax(-1).tolist() == path[b, t - 2 : t + 1].tolist()
        assert torch.equal(found.predicted[i], predicted[b, t])
    assert torch.equal(found.markov, markov_row(fitted, found.pair.topic))
    apart = (found.predicted[0] - found.predicted[1]).abs().sum() / 2
    assert found.pair.distance == pytest.approx(float(apart))
    most = torch.stack([*found.predicted, found.markov]).amax(0)
    assert found.likeliest(2) == most.argsort(descending=True)[:2].tolist()
    assert remember(fitted, batch, probs, num_words=10) is None  # but for one place
