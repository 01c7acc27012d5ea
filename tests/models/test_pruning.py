"""Topics that stay empty are dropped, and what is left is the same model given that they are."""

import pytest
import torch

from pyro_ssl import TopicalSSL
from tests.faults.digest import digest_of_tensors, nothing_changes

K, V = 5, 7
CELLS = {
    "lstm": {},
    "mlstm": {"cell": "mlstm"},
    "weight norm": {"cell": "mlstm", "weight_norm": True, "squash": "output"},
}


def fitted(**options):
    torch.manual_seed(1)
    ssl = TopicalSSL(K, V, hidden_size=4, concentration=0.2, **options)
    for parameter in ssl.transition.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    how = {"num_epochs": 1, "markov_steps": 3, "markov_starts": 1, "transition_steps": 2}
    how |= {"disable_progbar": True}
    ssl.fit(torch.randint(V, (6, 9)), **how)
    ssl.occupancy = torch.tensor([0.3, 0.0, 0.4, 0.0004, 0.2996])
    return ssl


@pytest.mark.parametrize("cell", CELLS)
def test_the_next_topic_is_one_of_those_that_are_kept(cell):
    ssl, kept = fitted(**CELLS[cell]), torch.tensor([0, 2, 4])
    before = digest_of_tensors(ssl.state_dict())
    with nothing_changes():
        pruned = ssl.prune()
    assert pruned.num_topics == 3 and digest_of_tensors(ssl.state_dict()) == before
    z = torch.randint(3, (20, 8))
    whole = ssl.transition.path_logits(kept[z])[..., kept].log_softmax(-1)
    found = pruned.transition.path_logits(z).log_softmax(-1)
    torch.testing.assert_close(found, whole)
    assert torch.equal(pruned.phi, ssl.phi[kept]) and not pruned.training
    torch.testing.assert_close(pruned.occupancy, ssl.occupancy[kept] / ssl.occupancy[kept].sum())
    assert torch.equal(pruned.markov.values["phi"], ssl.markov.values["phi"][kept])


def test_a_pruned_model_is_saved_and_goes_on(tmp_path):
    ssl = fitted(anchors={2: ["3"]})
    pruned = ssl.prune(least=0.01)
    assert torch.equal(pruned.concentration, ssl.concentration[[0, 2, 4]])
    pruned.save(tmp_path)
    again = TopicalSSL.load(tmp_path)
    assert digest_of_tensors(again.state_dict()) == digest_of_tensors(pruned.state_dict())
    words = torch.randint(V, (6, 4))
    again.partial_fit(words, num_epochs=1, markov_steps=0, disable_progbar=True)
    assert again.learned.num_words == 6 * 9 + 6 * 4
    pruned.fit(words, markov=pruned.markov, num_epochs=1, transition_steps=1, disable_progbar=True)
    assert pruned.phi.shape == (3, V) and pruned.perplexity(words) > 1.0


@pytest.mark.stage("system")
def test_a_sparse_fit_goes_on_to_the_same_bits(tmp_path):
    words, found = torch.randint(V, (6, 9)), []
    for stops in ([2], [1, 2]):
        folder = tmp_path / str(len(stops))
        for num_epochs in stops:
            torch.manual_seed(5)
            ssl = TopicalSSL(3, V, hidden_size=4)
            how = {"markov_steps": 3, "markov_starts": 1, "disable_progbar": True, "sparsity": 0.5}
            how |= {"num_epochs": num_epochs, "checkpoint": folder, "resume": True}
            how |= {"transition_steps": 2}
            ssl.fit(words, **how)
        found.append(digest_of_tensors({**ssl.state_dict(), "hmm": ssl.markov.matrix}))
    assert found[0] == found[1]


def test_what_is_refused():
    ssl = fitted()
    with nothing_changes(), pytest.raises(ValueError, match="no topic has more than 0.4 of the w"):
        ssl.prune(0.9)
    with pytest.raises(ValueError, match="least is 2, expected a number from 0 to 1"):
        ssl.prune(2)
    with pytest.raises(RuntimeError, match="not fitted"):
        TopicalSSL(K, V).prune()


@pytest.mark.stage("system")
def test_a_sparse_fit_starts_from_an_hmm_with_empty_topics():
    """Two topics in eight; the LSTM learns of these, and pruning leaves what is used."""
    first = torch.randint(2, (1, 30)).expand(12, -1)
    words = 3 * first + torch.randint(3, (12, 30))
    ssl = TopicalSSL(8, 6, hidden_size=6)
    how = {"num_epochs": 1, "markov_steps": 20, "markov_starts": 1, "disable_progbar": True}
    ssl.fit(words, sparsity=1.0, **how)
    assert int((ssl.markov.counts["phi"].sum(-1) > 1.0).sum()) == 2
    pruned = ssl.prune(0.05)
    assert pruned.num_topics == 2
    found = sorted(sorted(map(int, topic.words)) for topic in pruned.topics(3))
    assert found == [[0, 1, 2], [3, 4, 5]]
