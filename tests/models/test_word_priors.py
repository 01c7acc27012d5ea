"""Priors of words with a say: topics that stay where they were asked for, and exact posteriors."""

import json

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import MeanFieldGuide, ParticleGibbs, StochasticEM, TopicalSSL
from pyro_ssl.datasets import TokenCorpus, Vocabulary
from pyro_ssl.errors import CheckpointError
from pyro_ssl.infer.dirichlet import DirichletSite
from pyro_ssl.models import choose_num_topics, fit_markov
from pyro_ssl.models.topics import matched
from pyro_ssl.models.word_priors import exchangeable, word_prior
from tests.faults.digest import digest_of_tensors, nothing_changes

pytestmark = pytest.mark.stage("system")

K, V, T = 3, 12, 20
QUICK = {"num_epochs": 2, "markov_steps": 4, "markov_starts": 1, "transition_steps": 2}
QUICK |= {"disable_progbar": True}
#: of the planted topics 2 and 0; the third one is free
ANCHORS = {0: ["w8", "w9"], 2: ["w0"]}
NAMES = [f"w{v}" for v in range(V)]


def planted(num_documents=40, seed=0):
    """Topics k over the words 4 k to 4 k + 3, each running for about four words."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        phi = torch.full((K, V), 0.01)
        for k in range(K):
            phi[k, 4 * k : 4 * k + 4] = 1.0
        stay, z = torch.rand(T, num_documents) < 0.75, torch.randint(K, (T, num_documents))
        for t in range(1, T):
            z[t] = torch.where(stay[t], z[t - 1], z[t])
        return dist.Categorical(phi[z]).sample()


def anchored(**options):
    how = {"hidden_size": 4, "concentration": 0.2, "anchors": ANCHORS, "anchor_weight": 20.0}
    return TopicalSSL(K, NAMES, **how | options)


def places(phi):
    """Which planted topic has most of each topic's words."""
    return phi.view(-1, K, 4).sum(-1).argmax(-1).tolist()


AS_ASKED = [2, 1, 0]


def prior_of(beta):
    found = torch.full((K, V), beta)
    found[0, 8:10] += 20.0
    found[2, 0] += 20.0
    return found


# ------------------------------------------------------------------------------ what it is


def test_anchors_are_pseudo_counts():
    torch.testing.assert_close(anchored().concentration, prior_of(0.2))
    as_list = anchored(anchors=[["w8", "w9"], [], ["w0"]])
    assert torch.equal(as_list.concentration, anchored().concentration)
    assert torch.equal(
        TopicalSSL(K, V, anchors={1: [3]}).concentration,
        TopicalSSL(K, V, anchors={1: {"3"}}).concentration,
    )
    own = torch.rand(V) + 0.1
    both = anchored(concentration=own).concentration
    torch.testing.assert_close(both - prior_of(0.0), own.expand(K, V))
    assert anchored(anchors=None).concentration == 0.2


def test_it_is_the_prior_of_the_model():
    for given in (prior_of(0.3), prior_of(0.3).numpy(), prior_of(0.3).tolist()):
        ssl = TopicalSSL(K, V, hidden_size=4, concentration=given)
        site = pyro.poutine.trace(ssl.model).get_trace(planted(3)).nodes["phi"]
        assert torch.equal(site["fn"].base_dist.concentration, prior_of(0.3))
    given = prior_of(0.3)
    ssl = TopicalSSL(K, V, hidden_size=4, concentration=given)
    given.zero_()
    assert torch.equal(ssl.concentration, prior_of(0.3)), "it keeps a copy of its own"
    counts = TopicalSSL(K, V, concentration=torch.ones(K, V, dtype=torch.long))
    assert torch.equal(counts.concentration, torch.ones(K, V))


def test_it_follows_the_model():
    ssl = anchored().to(torch.float32)
    assert ssl.concentration.dtype == torch.float32
    ssl.fit(planted(6), **QUICK)
    assert ssl.phi.dtype == torch.float32 and ssl.perplexity(planted(4)) > 1.0


@pytest.mark.stage("statistical")
@pytest.mark.usefixtures("float32")
def test_the_posterior_is_that_of_all_paths():
    """Of φ, by a prior of its own for each word: Σ_z p(z | x) (n_z + β) / Σ_v (n_z + β).

    Batch means over 20 parts of 2,000 sweeps; six entries, abs(z) < 6: with 19 degrees of freedom
    once in 18,000 runs.
    """
    beta = torch.tensor([[0.3, 2.0, 0.6], [1.5, 0.2, 0.9]])
    ssl = TopicalSSL(2, 3, hidden_size=3, concentration=beta)
    words = torch.tensor([[0, 2], [1, 2]])
    z = torch.cartesian_prod(*[torch.arange(2)] * 4).view(-1, 2, 2)  # (N, B, T)
    n = torch.zeros(len(z), 2, 3)
    for b, t in ((0, 0), (0, 1), (1, 0), (1, 1)):
        n[torch.arange(len(z)), z[:, b, t], words[t, b]] += 1.0
    log_p = ssl.transition.log_prob(z).sum((-1, -2)).detach()
    log_p += ((beta + n).lgamma().sum(-1) - (beta + n).sum(-1).lgamma()).sum(-1)
    mean = (beta + n) / (beta + n).sum(-1, keepdim=True)
    exact = (log_p.softmax(0)[:, None, None] * mean).sum(0)
    pg = ParticleGibbs(ssl.model, num_particles=4)
    pg.run(words, num_samples=2000, warmup_steps=50, disable_progbar=True)
    parts = pg.get_samples()["phi"].view(20, 100, 2, 3).mean(1)
    z_score = (parts.mean(0) - exact) / (parts.std(0) / 20**0.5)
    assert z_score.abs().max() < 6.0
    flat = (1.0 + n) / (1.0 + n).sum(-1, keepdim=True)
    assert (exact - flat.mean(0)).abs().max() > 0.1, "the prior has a say"


def test_topics_are_estimates_from_counts_and_prior(monkeypatch):
    """Whatever the E-step: (n + β) / Σ_v (n + β), to the last digits."""
    for inference, kind in (("particle_gibbs", StochasticEM), ("mean_field", MeanFieldGuide)):
        seen = []
        monkeypatch.setattr(
            "pyro_ssl.models.learners.Learner.topics",
            lambda self, seen=seen: (seen.append(self.estimates), _topics(self))[1],
        )
        ssl = anchored()
        ssl.fit(planted(8), inference=inference, **QUICK)
        assert isinstance(seen[-1], kind)
        weights = seen[-1].counts["phi"] + prior_of(0.2)
        torch.testing.assert_close(ssl.phi, weights / weights.sum(-1, keepdim=True))


def _topics(learner):
    counts = learner.estimates.counts["phi"].sum(-1)
    return learner.estimates.values["phi"].clone(), counts / counts.sum()


# ------------------------------------------------------------------------------ topics stay


@pytest.mark.parametrize("seed", range(5))
def test_the_hmm_has_topics_where_they_are_anchored(seed):
    """From every start: 20 pseudo-counts beside words that are met 50 times."""
    pyro.set_rng_seed(seed)
    hmm = fit_markov(anchored().model, planted(), num_steps=40, num_starts=1, disable_progbar=True)
    found = places(hmm.values["phi"])
    assert (found[0], found[2]) == (AS_ASKED[0], AS_ASKED[2])


def test_a_start_knows_what_tells_rows_apart():
    """And nothing else: a prior that is the same in all rows, however strong, leaves it flat."""
    for beta in (torch.full((K, V), 50.0), torch.linspace(0.1, 30.0, V).expand(K, V)):
        torch.manual_seed(0)
        found = DirichletSite(beta).flat_draw()
        torch.manual_seed(0)
        assert torch.equal(found, dist.Dirichlet(torch.ones(K, V)).sample())
    torch.manual_seed(0)
    found = DirichletSite(prior_of(0.2)).flat_draw()
    torch.manual_seed(0)
    assert torch.equal(found, dist.Dirichlet(prior_of(1.0)).sample())
    torch.manual_seed(0)
    one = DirichletSite(torch.tensor([0.1, 9.0])).flat_draw()
    torch.manual_seed(0)
    assert torch.equal(one, dist.Dirichlet(torch.ones(2)).sample())


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("markov_steps", [0, 15])
@pytest.mark.parametrize("inference", ["particle_gibbs", "smc", "mean_field"])
def test_every_inference_keeps_topics_at_their_anchors(inference, markov_steps):
    """From the HMM whole topics; without it a draw from the prior has the anchors there."""
    ssl = anchored(hidden_size=8)
    how = {"markov_steps": markov_steps, "num_epochs": 3, "inference": inference}
    ssl.fit(planted(), num_particles=4, **QUICK | how)
    assert ssl.phi.argmax(0)[[0, 8, 9]].tolist() == [2, 0, 0]
    assert markov_steps == 0 or places(ssl.phi) == AS_ASKED


def test_only_topics_of_one_prior_change_places():
    prior = torch.full((4, 6), 0.1)
    prior[1, 0] += 5.0
    may = exchangeable(prior)
    assert may.tolist() == [[a == b or 1 not in (a, b) for b in range(4)] for a in range(4)]
    topics = dist.Dirichlet(torch.full((4, 6), 0.3)).sample()
    order = torch.tensor([1, 0, 3, 2])  # state 0 is nearest to topic 1, which has its place
    assert matched(topics, topics[order]).tolist() == order.tolist()
    found = matched(topics, topics[order], may)
    assert found[1] == 1 and sorted(found.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("memory", [0, 100])
def test_parts_keep_the_prior_and_new_words_have_the_usual_one(memory, monkeypatch):
    ssl, asked = anchored(), []
    watched = lambda *given: (asked.append(given[2]), matched(*given))[1]  # noqa: E731
    monkeypatch.setattr("pyro_ssl.models.streams.matched", watched)
    how = {"num_epochs": 1, "markov_steps": 3, "disable_progbar": True, "num_particles": 3}
    how |= {"memory": memory, "num_valid_particles": 3, "transition_steps": 2}
    ssl.partial_fit(planted(6), **how)
    wide = [*NAMES, "new", "newer"]
    ssl.partial_fit(planted(10, seed=1) + 2, vocabulary=wide, **how)
    expected = torch.cat([prior_of(0.2), torch.full((K, 2), 0.2)], 1)
    assert torch.equal(ssl.concentration, expected)
    assert torch.equal(ssl.config["concentration"], expected)
    weights = ssl.learned.counts + expected
    torch.testing.assert_close(ssl.phi, weights / weights.sum(-1, keepdim=True))
    assert len(asked) == (memory > 0)
    assert all(torch.equal(may, torch.eye(K, dtype=torch.bool)) for may in asked)


def test_a_part_that_fails_leaves_the_prior(monkeypatch):
    ssl = anchored()
    ssl.fit(planted(6), **QUICK)

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("pyro_ssl.models.learned.Learned.after", stop)
    with pytest.raises(KeyboardInterrupt):
        ssl.partial_fit(planted(6), vocabulary=[*NAMES, "new"], **QUICK)
    assert torch.equal(ssl.concentration, prior_of(0.2))
    assert torch.equal(ssl.config["concentration"], prior_of(0.2))


def test_a_model_that_was_fitted_goes_on_with_its_prior():
    """Its counts are those that its topics are the estimates of."""
    ssl = anchored()
    ssl.fit(planted(8), **QUICK)
    counts = ssl.learned.of_words(ssl.phi, ssl.occupancy, ssl.concentration).counts
    n = torch.bincount(planted(8).flatten(), minlength=V)
    torch.testing.assert_close(counts.sum(), n.sum().double())
    torch.testing.assert_close(counts.sum(-1) / n.sum(), ssl.occupancy)


# ------------------------------------------------------------------------------ saved


def test_a_saved_model_has_its_prior(tmp_path):
    ssl = anchored()
    ssl.fit(planted(6), **QUICK)
    ssl.save(tmp_path)
    loaded = TopicalSSL.load(tmp_path)
    assert torch.equal(loaded.concentration, prior_of(0.2))
    assert digest_of_tensors(loaded.state_dict()) == digest_of_tensors(ssl.state_dict())
    assert torch.equal(TopicalSSL(**loaded.config).concentration, prior_of(0.2))
    loaded.save(tmp_path / "again")
    body = json.loads(json.loads((tmp_path / "again" / "manifest.json").read_text())["body"])
    assert "concentration" not in body["config"]["model"], "it is among the tensors"


def test_a_prior_of_another_model_is_told(tmp_path):
    ssl = anchored()
    ssl.fit(planted(6), **QUICK)
    ssl.config["concentration"] = ssl.config["concentration"][:, :-1]
    ssl.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"concentration has shape \(3, 11\)"):
        TopicalSSL.load(tmp_path)


def test_a_fit_goes_on_to_the_same_bits_and_not_with_another_prior(tmp_path):
    found = []
    for stops in ([3], [1, 3]):
        folder = tmp_path / str(len(stops))
        for seed, num_epochs in enumerate(stops):  # what was there before does not matter
            pyro.set_rng_seed(seed)
            ssl = anchored()
            how = QUICK | {"num_epochs": num_epochs, "checkpoint": folder, "resume": True}
            ssl.fit(planted(8), **how)
        found.append(digest_of_tensors(ssl.state_dict()))
        assert torch.equal(TopicalSSL.load(folder).concentration, prior_of(0.2))
    assert found[0] == found[1]
    other = anchored(anchor_weight=21.0)
    with pytest.raises(CheckpointError, match="concentration"):
        other.fit(planted(8), **how)


# ------------------------------------------------------------------------------ elsewhere


def test_a_corpus_on_disk_is_learned_from_alike(tmp_path):
    vocabulary, words = Vocabulary(["<unk>", *NAMES[1:]]), planted(12)
    how = {"disable_progbar": True}
    corpus = TokenCorpus.from_ids(tmp_path, list(words.T), vocabulary, **how)
    found = []
    for data in (words, corpus):
        pyro.set_rng_seed(0)
        ssl = TopicalSSL(K, vocabulary, hidden_size=4, anchors={1: ["w5"]})
        ssl.fit(data, **QUICK)
        found.append(digest_of_tensors(ssl.state_dict()))
    assert found[0] == found[1]


def test_numbers_of_topics_are_compared_with_anchors():
    words = planted(8)
    how = QUICK | {"num_epochs": 1, "valid": (words[:, :2],)}
    options = {"hidden_size": 4, "anchors": ANCHORS}
    chosen = choose_num_topics([3, 4], NAMES, words, options=options, **how)
    assert chosen.perplexity.isfinite().all()
    with nothing_changes(), pytest.raises(ValueError, match=r"expected topics from 0 to K - 1 = 1"):
        choose_num_topics([3, 2], NAMES, words, options=options, **how)
    options = {"hidden_size": 4, "concentration": prior_of(0.1).tolist()}
    with nothing_changes(), pytest.raises(ValueError, match=r"\(3, 12\), expected .* \(4, 12\)"):
        choose_num_topics([3, 4], NAMES, words, options=options, **how)


REFUSED = {
    "shape": ({"concentration": torch.ones(V, K)}, r"\(12, 3\), expected \(V,\) = \(12,\) or"),
    "zero": ({"concentration": prior_of(0.0)}, 'is 0.0 of topic 0 and word "w0", .*clamp'),
    "NaN": ({"concentration": prior_of(float("nan"))}, "is nan of topic 0"),
    "infinite": ({"concentration": torch.full((V,), torch.inf)}, "is inf of topic 0"),
    "half": ({"concentration": torch.ones(K, V).half()}, r"has dtype torch.float16.*\.double\(\)"),
    "flags": ({"concentration": torch.ones(K, V, dtype=torch.bool)}, "has dtype torch.bool"),
    "complex": ({"concentration": torch.ones(K, V, dtype=torch.cfloat)}, "dtype torch.complex64"),
    "learned": ({"concentration": torch.ones(K, V, requires_grad=True)}, r"concentration.detach"),
    "ragged": ({"concentration": [[1.0], [1.0, 2.0]]}, "a list that is no table of numbers"),
    "text": ({"concentration": "0.1"}, "concentration is 0.1, expected a positive number"),
    "nothing": ({"concentration": None}, "concentration is None, expected a positive number"),
    "no topic": ({"anchors": {3: ["w0"]}}, "anchors of topic 3, expected topics from 0 to .* 2"),
    "a name": ({"anchors": {"films": ["w0"]}}, "anchors of topic 'films', expected topics"),
    "no word": ({"anchors": {0: ["w0", "flim"]}}, 'anchors of topic 0 have "flim", expected words'),
    "a word": ({"anchors": {0: "w0"}}, r"are 'w0', expected a list .*anchors=\{0: \['w0'\]\}"),
    "words": ({"anchors": ["w0"]}, r"anchors of topic 0 are 'w0', expected a list"),
    "a number": ({"anchors": 5}, r"anchors are a int, expected words by topic; write anchors="),
    "weight": ({"anchor_weight": 0.0}, "anchor_weight is 0.0, expected a positive number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    given, message = REFUSED[case]
    with nothing_changes(), pytest.raises(ValueError, match=message):
        anchored(**given)


def test_numbers_of_every_kind_are_numbers():
    for given in (1, 0.5, np.float32(0.5), torch.tensor(0.5), np.array(0.5)):
        ssl = TopicalSSL(K, V, concentration=given)
        assert type(ssl.concentration) is float and ssl.concentration == float(given)
    assert word_prior(0.5, {}, 1.0, 1, ["a"]).tolist() == [[0.5]]
