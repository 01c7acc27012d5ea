"""Topics that other fits find again, and those that they do not."""

import pytest
import torch

from pyro_ssl import TopicalSSL
from pyro_ssl.estimators import TextTopics
from pyro_ssl.models import topic_stability
from tests.faults.digest import nothing_changes

K, V = 4, 12


def fitted(phi, occupancy=None):
    ssl = TopicalSSL(len(phi), phi.shape[1], hidden_size=2)
    ssl.phi = phi
    ssl.occupancy = torch.ones(len(phi)) / len(phi) if occupancy is None else occupancy
    return ssl


def blocks():
    phi = torch.full((K, V), 0.01)
    for k in range(K):
        phi[k, 3 * k : 3 * k + 3] = torch.tensor([3.0, 2.0, 1.0])
    return phi / phi.sum(-1, keepdim=True)


def test_the_same_topics_in_another_order_are_stable():
    phi, order = blocks(), torch.tensor([2, 0, 3, 1])
    found = topic_stability([fitted(phi), fitted(phi[order]), fitted(phi)], num_words=3)
    assert torch.equal(order[found.matches[0]], torch.arange(K))
    assert found.matches[1].tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(found.similarity, torch.ones(2, K))
    torch.testing.assert_close(found.overlap, torch.ones(2, K))
    assert found.mean_similarity == pytest.approx(1.0) == found.mean_overlap


def test_what_changed_is_seen_and_counts_by_its_share():
    """Topic 3 has one of its three words left, by hand."""
    phi, other = blocks(), blocks()
    other[3] = 0.001
    other[3, torch.tensor([9, 0, 3])] = torch.tensor([0.5, 0.25, 0.2])
    other[3] /= other[3].sum()
    share = torch.tensor([0.1, 0.2, 0.3, 0.4])
    found = topic_stability([fitted(phi, share), fitted(other[[3, 2, 1, 0]])], num_words=3)
    assert found.matches.tolist() == [[3, 2, 1, 0]]
    torch.testing.assert_close(found.overlap[0], torch.tensor([1.0, 1.0, 1.0, 1 / 5]))
    m = (phi[3] + other[3]) / 2
    js = sum(0.5 * (p * (p / m).log2()).sum() for p in (phi[3], other[3]))
    torch.testing.assert_close(found.similarity[0, 3], 1.0 - js)
    assert found.mean_overlap == pytest.approx(0.6 + 0.4 / 5)
    assert found.mean_similarity == pytest.approx(float(0.6 + 0.4 * (1.0 - js)))


def test_estimators_have_models():
    estimator = TextTopics(K)
    estimator.model_ = fitted(blocks())
    assert topic_stability([estimator, fitted(blocks())], 99).mean_overlap == 1.0


def test_what_is_refused():
    ssl, other, new = fitted(blocks()), fitted(blocks()[:3]), TopicalSSL(K, V, hidden_size=2)
    renamed = fitted(blocks())
    renamed.vocabulary = [*"abcdefghijkl"]
    with nothing_changes():
        with pytest.raises(ValueError, match="found 1 models and num_words=10, expected two"):
            topic_stability([ssl])
        with pytest.raises(ValueError, match="num_words=0"):
            topic_stability([ssl, ssl], 0)
        with pytest.raises(ValueError, match="model 1 has 3 topics over 12 words, expected 4 over"):
            topic_stability([ssl, other])
        with pytest.raises(ValueError, match="fit all with one vocabulary"):
            topic_stability([ssl, ssl, renamed])
        with pytest.raises(RuntimeError, match="not fitted"):
            topic_stability([ssl, new])
