"""What a fitted topical model says of its topics and of what comes next."""

import math

import pytest
import torch

from pyro_ssl import TopicalSSL
from pyro_ssl.exact.chains import enumerate_paths
from pyro_ssl.models.coherence import npmi
from pyro_ssl.models.topics import list_topics
from tests.faults.digest import nothing_changes

K, V = 2, 5
NAMES = ["<unk>", "the", "cat", "dog", "sat"]


@pytest.fixture
def ssl():
    """As if fitted: sharp topics, and an LSTM that moves between them by what came before."""
    model = TopicalSSL(K, NAMES, hidden_size=4)
    for parameter in model.transition.parameters():
        parameter.data.mul_(4.0)
    model.phi = torch.tensor([[0.1, 0.5, 0.3, 0.05, 0.05], [0.22, 0.4, 0.05, 0.13, 0.2]])
    model.occupancy = torch.tensor([0.25, 0.75])
    return model.eval()


def exact_futures(ssl, words, horizon):
    """p(z_{n+s} | x_{1:n}), (S, K), by the sum over all paths."""
    T = len(words) + horizon
    table = torch.zeros(T, 1, K)
    table[: len(words), 0] = ssl.phi.log()[:, words].T
    every = enumerate_paths(ssl.transition, table)
    probs = every.log_joint[0].softmax(0)
    one_hot = torch.nn.functional.one_hot(every.paths[:, -horizon:], K).to(probs)
    return torch.einsum("n,nsk->sk", probs, one_hot)


def test_topics_by_relevance_and_without_some_words(ssl):
    likeliest = ssl.topics(2)
    assert [topic.words for topic in likeliest] == [["the", "<unk>"], ["the", "cat"]]
    own = ssl.topics(1, relevance=0.0)
    assert [topic.words for topic in own] == [["sat"], ["cat"]]
    p = 0.25 * ssl.phi[0] + 0.75 * ssl.phi[1]
    score = 0.6 * ssl.phi.log() + 0.4 * (ssl.phi / p).log()
    listed = ssl.topics(5, relevance=0.6)
    assert listed[0].words == [NAMES[v] for v in score[1].argsort(descending=True)]
    shown = ssl.topics(10, leave_out=["<unk>", "the", "unknown to it"])
    assert [sorted(topic.words) for topic in shown] == [["cat", "dog", "sat"]] * 2
    assert shown[0].probs == pytest.approx([0.2, 0.13, 0.05])


def test_a_word_that_no_topic_has_is_listed_last():
    phi = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    (first, _) = list_topics(phi, torch.tensor([0.6, 0.4]), ["x", "a", "b"], 3, relevance=0.0)
    assert first.words[0] == "a"


def test_a_word_that_is_left_out_is_not_listed_in_place_of_one_that_no_topic_has():
    phi = torch.tensor([[0.6, 0.4, 0.0, 0.0]])
    (only,) = list_topics(phi, torch.ones(1), ["x", "a", "b", "c"], 9, leave_out={"x"})
    assert only.words == ["a", "b", "c"]


def test_npmi_by_hand():
    """Four documents: 0 in all, 1 and 2 in the same two, 3 in the other two, 4 in one of each."""
    documents = [[0, 1, 2], [0, 1, 2, 4], [0, 3], [0, 3, 4]]
    words = torch.zeros(4, 4, dtype=torch.long)
    active = torch.zeros(4, 4, dtype=torch.bool)
    for b, document in enumerate(documents):
        words[: len(document), b] = torch.tensor(document)
        active[: len(document), b] = True
    words[~active] = 3  # padding may hold anything
    found = npmi([[1, 2], [1, 3], [1, 4], [0, 1], [1, 2, 3]], words, active)
    chance = math.log(0.25 / (0.5 * 0.5)) / -math.log(0.25)
    torch.testing.assert_close(found, torch.tensor([1.0, -1.0, chance, 0.0, -1 / 3]))


def test_coherence_is_by_the_index_of_the_topic(ssl):
    words = torch.tensor([[1, 1, 4, 3], [2, 2, 4, 3]])  # "the cat" twice, "sat sat", "dog dog"
    listed = [topic.words for topic in ssl.topics(2, relevance=0.0)]
    assert listed == [["sat", "dog"], ["cat", "the"]]
    found = ssl.coherence(words, num_words=2, relevance=0.0)
    torch.testing.assert_close(found, torch.tensor([1.0, -1.0]))


def test_shares_are_means_over_the_words_of_a_document(ssl):
    words, lengths = torch.randint(V, (6, 3)), torch.tensor([6, 0, 3])
    torch.manual_seed(0)
    found = ssl.shares(words, lengths, num_samples=20)
    torch.manual_seed(0)
    each = ssl.transform(words, lengths, num_samples=20)
    torch.testing.assert_close(found[2], each[:3, 2].mean(0))
    torch.testing.assert_close(found.sum(-1), torch.tensor([1.0, 0.0, 1.0]))


@pytest.mark.stage("statistical")
def test_forecast_is_the_posterior_predictive(ssl):
    """Ragged documents, against all paths: 20,000 particles stray by .004, an eighth of .03."""
    words, lengths = torch.randint(V, (4, 3)), torch.tensor([4, 2, 4])
    found = ssl.forecast(words, lengths, horizon=3, num_particles=20_000)
    for b, n in enumerate(lengths.tolist()):
        exact = exact_futures(ssl, words[:n, b], 3)
        assert (found.topics[:, b] - exact).abs().max() < 0.03
    torch.testing.assert_close(found.words, found.topics @ ssl.phi)
    torch.testing.assert_close(found.words.sum(-1), torch.ones(3, 3))


@pytest.mark.stage("statistical")
def test_generated_words_have_the_forecast_distribution(ssl):
    """4,000 copies of a prompt; abs(z) < 4.5 in twelve cells fails once in 12,000 runs."""
    prompt = torch.tensor([1, 2, 4])
    copies = prompt.unsqueeze(-1).expand(3, 4000)
    drawn = ssl.generate(copies, horizon=3, num_particles=30)
    kept = ssl.phi * (torch.arange(V) > 0)
    p = exact_futures(ssl, prompt, 3) @ (kept / kept.sum(-1, keepdim=True))
    share = torch.nn.functional.one_hot(drawn, V).double().mean(1)
    z = (share - p)[:, 1:] / (p * (1 - p) / 4000).sqrt()[:, 1:]
    assert (drawn > 0).all() and z.abs().max() < 4.5
    # Not only its margins: the words of one document are of one path.
    pairs = (drawn[0] == 2) & (drawn[1] == 2)
    assert 0 < pairs.double().mean() < 0.5


def test_what_is_refused(ssl):
    words, lengths = torch.randint(V, (3, 2)), torch.tensor([3, 0])
    with nothing_changes(), pytest.raises(ValueError, match="document 1 has no word"):
        ssl.forecast(words, lengths)
    with nothing_changes(), pytest.raises(ValueError, match="horizon is 0"):
        ssl.generate(words, horizon=0)
    with nothing_changes(), pytest.raises(ValueError, match="relevance is 2"):
        ssl.topics(relevance=2)
    with pytest.raises(RuntimeError, match="not fitted"):
        TopicalSSL(K, NAMES).topics()
