"""How many topics: what is planted is found, and what is asked is checked."""

import pyro.distributions as dist
import pytest
import torch

from pyro_ssl.models import choose_num_topics
from tests.faults.digest import nothing_changes

pytestmark = pytest.mark.stage("system")

HOW = {"num_epochs": 5, "markov_starts": 5, "options": {"hidden_size": 8}}


def planted(num_documents):
    """Three topics of four words each, each running for about four words."""
    phi = torch.full((3, 12), 0.01)
    for k in range(3):
        phi[k, 4 * k : 4 * k + 4] = 1.0
    stay, z = torch.rand(20, num_documents) < 0.75, torch.randint(3, (20, num_documents))
    for t in range(1, 20):
        z[t] = torch.where(stay[t], z[t - 1], z[t])
    return dist.Categorical(phi[z]).sample()


@pytest.mark.stage("statistical")
@pytest.mark.usefixtures("float32")
def test_too_few_topics_are_seen():
    words, valid = planted(80), planted(20)
    chosen = choose_num_topics([1, 3], 12, words, valid=(valid,), disable_progbar=True, **HOW)
    assert chosen.candidates == (1, 3) and chosen.best == 3
    assert chosen.perplexity[1, 0] < 0.8 * chosen.perplexity[0, 0]


def test_seeds_are_fits_of_their_own_and_generators_stay():
    words = torch.randint(5, (4, 8))
    how = {**HOW, "num_epochs": 1, "markov_steps": 3, "markov_starts": 1, "transition_steps": 3}
    how |= {"valid": (words,), "disable_progbar": True}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    both = choose_num_topics([2], 5, words, seeds=[0, 1], **how).perplexity
    assert torch.equal(torch.get_rng_state(), state)
    assert both.shape == (1, 2) and both[0, 0] != both[0, 1]
    torch.testing.assert_close(
        choose_num_topics([2], 5, words, seeds=[1], **how).perplexity, both[:, 1:]
    )


@pytest.mark.parametrize(
    ("candidates", "seeds", "message"),
    [
        ([], [0], "candidates are"),
        ([0], [0], "of 1 or more"),
        ([2], [], "seeds are"),
        ([2], [0.5], "seeds are"),
    ],
)
def test_what_is_refused(candidates, seeds, message):
    words = torch.randint(5, (4, 8))
    with nothing_changes(), pytest.raises(ValueError, match=message):
        choose_num_topics(candidates, 5, words, valid=(words,), seeds=seeds)
