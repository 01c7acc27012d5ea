"""Topics that are learned part by part: what is kept, what moves, and nothing by halves."""

import copy
import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import TopicalSSL
from pyro_ssl.errors import CheckpointError
from pyro_ssl.models import streams
from pyro_ssl.models.learners import Learner
from pyro_ssl.models.topics import matched
from tests.faults.digest import digest_of_generators, digest_of_object, digest_of_tensors
from tests.faults.disk import damage

pytestmark = pytest.mark.stage("system")

K, V, T = 3, 12, 14
QUICK = {"num_epochs": 2, "markov_steps": 3, "transition_steps": 2, "disable_progbar": True}
QUICK |= {"num_valid_particles": 3, "num_particles": 3, "batch_size": 5}


def words(num=8, size=V, seed=0):
    return torch.randint(size, (T, num), generator=torch.Generator().manual_seed(seed))


def topical(size=V):
    return TopicalSSL(K, size, hidden_size=4, concentration=0.2)


#: where it does not matter how much is learned
LITTLE = QUICK | {"num_epochs": 1, "batch_size": 8, "num_gradient_steps": 1}


def after(num_parts, **how):
    """A model that has learned from some parts."""
    ssl = topical()
    for i in range(num_parts):
        ssl.partial_fit(words(seed=i), **LITTLE | how)
    return ssl


@pytest.mark.parametrize("memory", [0, 5, 100])
@pytest.mark.parametrize("inference", ["particle_gibbs", "smc"])
def test_every_word_counts_once(memory, inference):
    """At κ = 1, whichever part it came in, in memory or gone."""
    ssl = after(3, memory=memory, inference=inference)
    n = torch.zeros(V, dtype=torch.float64)
    for i in range(3):
        n += torch.bincount(words(seed=i).flatten(), minlength=V)
    torch.testing.assert_close(ssl.learned.counts.sum(0), n)
    assert ssl.learned.num_words == 3 * T * 8
    assert ssl.learned.words.shape[1] == min(memory, 24)
    assert (ssl.learned.gone is None) == (memory >= 24)
    counts = ssl.learned.counts + 0.2
    torch.testing.assert_close(ssl.phi, counts / counts.sum(-1, keepdim=True))
    torch.testing.assert_close(ssl.occupancy.sum(), torch.tensor(1.0))
    assert [record.part for record in ssl.learned.parts] == [1, 2, 3]


@pytest.mark.parametrize("power", [1.0, 0.75])
def test_the_weight_of_a_part_is_its_step_size(power):
    """Of parts that leave nothing in memory: ρ_i = (N_i / (N_1 + ... + N_i))^κ."""
    ssl = topical()
    for i, num in enumerate((8, 4, 20)):
        record = ssl.partial_fit(words(num, seed=i), memory=0, step_power=power, **LITTLE)
        seen = T * sum((8, 4, 20)[: i + 1])
        assert record.step_size == pytest.approx((T * num / seen) ** power)
        total = float(ssl.learned.counts.sum())
        assert total == pytest.approx(T * num / record.step_size)
    assert record.num_words == T * 20


@pytest.mark.parametrize("memory, steps, starts", [(100, 3, [1, 2, 4]), (0, 3, [1]), (100, 0, [])])
def test_topics_start_anew_when_all_words_are_kept_and_have_doubled(
    memory, steps, starts, monkeypatch
):
    started, part = [], 0
    search = streams.search_markov
    monkeypatch.setattr(
        streams, "search_markov", lambda *a, **k: (started.append(part), search(*a, **k))[1]
    )
    ssl = topical()
    for part in range(1, 6):
        ssl.partial_fit(words(seed=part), memory=memory, **LITTLE | {"markov_steps": steps})
    assert started == starts


def test_the_record_says_what_moved():
    ssl = topical()
    first = ssl.partial_fit(words(), memory=0, **QUICK)
    assert math.isnan(first.perplexity) and all(map(math.isnan, first.movement))
    before = ssl.phi.clone()
    pyro.set_rng_seed(3)
    expected = ssl.perplexity(words(seed=1), num_particles=3)
    pyro.set_rng_seed(3)
    record = ssl.partial_fit(words(seed=1), memory=0, **QUICK)
    assert record.perplexity == expected, "of the part before anything was learned from it"
    movement = 0.5 * (ssl.phi - before).abs().sum(-1)
    torch.testing.assert_close(torch.tensor(record.movement), movement)
    assert 0.0 < min(record.movement) and max(record.movement) <= 1.0
    assert not ssl.training and ssl.learned.parts == [first, record]


def test_new_words_have_their_share_of_the_prior(monkeypatch):
    ssl = after(2, memory=0)
    n, scored = ssl.learned.counts, []
    perplexity = TopicalSSL.perplexity

    def watched(self, *args, **kwargs):
        scored.append(self.phi.clone())
        return perplexity(self, *args, **kwargs)

    monkeypatch.setattr(TopicalSSL, "perplexity", watched)
    names = [*ssl.vocabulary, "new", "newer"]
    record = ssl.partial_fit(words(size=V + 2, seed=5), vocabulary=names, memory=0, **QUICK)
    wide = torch.cat([n, torch.zeros(K, 2)], 1) + 0.2
    torch.testing.assert_close(scored[0], wide / wide.sum(-1, keepdim=True))
    assert record.num_new_words == 2 and math.isfinite(record.perplexity)
    assert ssl.phi.shape == (K, V + 2) and ssl.config["vocabulary"] == names
    new = (words(size=V + 2, seed=5) >= V).sum()
    assert float(ssl.learned.counts[:, V:].sum()) == pytest.approx(float(new))


def test_parts_of_other_lengths_are_learned_from_beside_those_in_memory():
    ssl = topical()
    ssl.partial_fit(words(), lengths=torch.arange(1, 9), memory=100, **LITTLE)
    record = ssl.partial_fit(words()[:5], memory=100, **LITTLE)
    assert record.num_words == 5 * 8 and ssl.learned.num_words == 36 + 40
    assert sorted(ssl.learned.lengths.tolist()) == sorted([*range(1, 9), *[5] * 8])
    assert float(ssl.learned.counts.sum()) == pytest.approx(76.0)


@pytest.mark.parametrize("batch_size, num_kept", [(5, 16), (5, 7), (100, 16)])
def test_a_part_goes_on_from_the_topics_of_what_is_kept(batch_size, num_kept, monkeypatch):
    """Before its first step: minibatches that know no other words would make topics anew."""
    ssl = after(2, memory=num_kept, markov_steps=0)
    kept, found = ssl.learned, []
    assert kept.paths.dtype == torch.uint8 and kept.paths.shape == (T, num_kept)
    epoch = Learner.epoch

    def watched(self, *args, **kwargs):
        em = self.parts["em"]
        found.append((em.values["phi"], em.counts["phi"], em._memory.num_known))
        return epoch(self, *args, **kwargs)

    monkeypatch.setattr(Learner, "epoch", watched)
    phi, how = ssl.phi, {"memory": num_kept, "markov_steps": 0, "batch_size": batch_size}
    ssl.partial_fit(words(4, seed=7), **QUICK | how)
    n = torch.zeros(K, V)
    for z, x in zip(kept.paths.flatten().tolist(), kept.words.flatten().tolist(), strict=True):
        n[z, x] += 1.0
    assert torch.equal(found[0][0], phi) and found[0][2] == num_kept
    torch.testing.assert_close(found[0][1], n * (num_kept + 4) / num_kept, check_dtype=False)


def test_a_model_that_was_fitted_goes_on():
    ssl = topical()
    how = {"num_epochs": 1, "markov_steps": 3, "transition_steps": 2, "disable_progbar": True}
    ssl.fit(words(), **how)
    before, matrix = ssl.phi.clone(), ssl.transition.head.weight.clone()
    ssl.partial_fit(words(seed=1), memory=0, **QUICK | {"learning_rate": 0.0})
    assert torch.equal(ssl.transition.head.weight, matrix)
    n = sum(torch.bincount(words(seed=i).flatten(), minlength=V) for i in (0, 1))
    assert float(ssl.learned.counts.sum()) == pytest.approx(2 * T * 8, rel=1e-6)
    assert not torch.equal(ssl.phi, before) and len(n) == V


@pytest.mark.parametrize("memory", [0, 5, 100])
def test_what_is_saved_in_between_loses_nothing(tmp_path, memory):
    ssl = after(2, memory=memory)
    ssl.save(tmp_path)
    again = TopicalSSL.load(tmp_path)
    found = []
    for model in (ssl, again):
        pyro.set_rng_seed(4)
        pyro.clear_param_store()
        more = {**LITTLE, "memory": memory, "vocabulary": V + 1}
        model.partial_fit(words(size=V + 1, seed=2), **more)
        found.append(digest_of_tensors(model.state_dict()))
        kept = ("counts", "gone", "words", "lengths")
        found.append(digest_of_tensors({name: getattr(model.learned, name) for name in kept}))
        found.append(digest_of_object(model.learned.optimiser))
    assert found[:3] == found[3:]
    assert repr(again.learned.parts[:2]) == repr(ssl.learned.parts[:2])  # a NaN is in them
    assert [r.part for r in again.learned.parts] == [1, 2, 3] and ssl.learned.optimiser


@pytest.mark.parametrize("how", ["flip", "cut"])
def test_damage_beside_the_model_is_told(tmp_path, how):
    ssl = after(1, memory=5)
    ssl.save(tmp_path)
    damage(next(tmp_path.glob("*.safetensors")), how)
    with pytest.raises(CheckpointError, match="damaged|bytes"):
        TopicalSSL.load(tmp_path)


def test_counts_of_another_model_are_told(tmp_path):
    ssl = after(1, memory=0)
    ssl.learned.gone = ssl.learned.gone[:, :-1]
    ssl.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"counts of shape \(3, 11\)"):
        TopicalSSL.load(tmp_path)


@pytest.mark.parametrize("num_before", [0, 2])
def test_a_part_is_learned_whole_or_not_at_all(num_before, monkeypatch):
    """Stopped in its last pass, Ctrl-C too, the model is as it was, and so is what is drawn."""
    ssl = after(num_before, memory=5)
    taken = digest_of_tensors(ssl.state_dict()), digest_of_object(vars(ssl.learned or ssl))
    generators, names = digest_of_generators(), list(ssl.vocabulary)
    learned, config = ssl.learned, dict(ssl.config)

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("pyro_ssl.models.learned.Learned.after", stop)
    with pytest.raises(KeyboardInterrupt):
        ssl.partial_fit(words(size=V + 1, seed=3), vocabulary=V + 1, **LITTLE)
    assert digest_of_tensors(ssl.state_dict()) == taken[0]
    assert ssl.learned is learned and ssl.vocabulary == names and ssl.config == config
    assert digest_of_generators() == generators and ssl._past is None
    monkeypatch.undo()
    ssl.partial_fit(words(seed=3), **LITTLE)
    assert ssl.learned.num_words == (num_before + 1) * T * 8


@pytest.fixture(scope="module")
def learned():
    pyro.set_rng_seed(0)
    return after(1, memory=0)


@pytest.mark.parametrize(
    "given, error",
    [
        ({"words": words(size=V + 1)}, r"Take new words in by vocabulary=\[\*ssl.vocabulary"),
        ({"vocabulary": V - 1}, "expected the 12 words so far in their order"),
        ({"vocabulary": [*"abcdefghijklm"]}, 'has "a" at 0, expected the 12 words'),
        ({"inference": "mean_field"}, 'write inference="smc"'),
        ({"num_epochs": 0}, "num_epochs is 0, expected 1 or more"),
        ({"step_power": 0.5}, "step_power is 0.5, expected a number above 0.5"),
        ({"memory": -1}, "memory is -1, expected a whole number of 0 or more"),
        ({"lengths": torch.zeros(8, dtype=torch.long)}, "found no word"),
    ],
)
def test_what_cannot_be_meant_is_told(given, error, learned):
    ssl = copy.deepcopy(learned)
    before = digest_of_tensors(ssl.state_dict()), list(ssl.vocabulary)
    with pytest.raises(ValueError, match=error):
        ssl.partial_fit(**{"words": words(), **QUICK, **given})
    assert (digest_of_tensors(ssl.state_dict()), list(ssl.vocabulary)) == before


def test_a_model_that_does_not_say_of_how_many_words_is_told():
    ssl = after(1)
    ssl.learned = None
    with pytest.raises(RuntimeError, match="fit it anew"):
        ssl.partial_fit(words(), **QUICK)


def test_states_are_matched_to_topics_the_nearest_first():
    topics = dist.Dirichlet(torch.full((6, 9), 0.3)).sample()
    order = torch.randperm(6)
    assert torch.equal(matched(topics, topics[order])[order], torch.arange(6))


@pytest.mark.stage("statistical")
@pytest.mark.usefixtures("float32")
def test_planted_topics_are_found_in_parts_and_followed():
    """Three topics over four words each; then the third one moves to new words, and is followed."""
    torch.manual_seed(0)

    def part(last):
        phi = torch.full((K, 16), 0.01)
        for k, first in enumerate((0, 4, last)):
            phi[k, first : first + 4] = 1.0
        stay = torch.rand(30, 40) < 0.75
        z = torch.randint(K, (30, 40))
        for t in range(1, 30):
            z[t] = torch.where(stay[t], z[t - 1], z[t])
        return dist.Categorical(phi[z]).sample()

    ssl = TopicalSSL(K, 16, hidden_size=8)
    how = {"memory": 60, "disable_progbar": True, "markov_starts": 5, "batch_size": 20}
    for _ in range(4):
        record = ssl.partial_fit(part(8), **how)
    found = sorted(sorted(map(int, topic.words)) for topic in ssl.topics(num_words=4))
    assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert record.perplexity < 12 and max(record.movement) < 0.1
    moved = [ssl.partial_fit(part(12), step_power=0.6, **how) for _ in range(3)]
    assert moved[0].perplexity > 1.5 * record.perplexity > moved[-1].perplexity
    assert max(moved[0].movement) > 0.15 > 2 * sorted(moved[0].movement)[1]


def test_the_optimiser_goes_on_at_a_lower_rate():
    """Its steps are counted on: two minibatches, two passes, two gradient steps in each part."""
    ssl = after(1, memory=0, num_gradient_steps=2, **QUICK)
    for part, rate in ((1, 0.01), (2, 0.01 * 0.5**0.5)):
        if part == 2:
            ssl.partial_fit(words(seed=1), memory=0, **QUICK)
        for one in ssl.learned.optimiser.values():
            assert one["param_groups"][0]["lr"] == pytest.approx(rate)
            assert all(int(state["step"]) == 8 * part for state in one["state"].values())
