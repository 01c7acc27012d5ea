"""TopicalSSL: it learns planted topics, by every inference and from every start."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import MeanFieldGuide, StochasticEM, TopicalSSL

K, V = 3, 12


@pytest.fixture(scope="module")
def corpus():
    """Topics over disjoint words, each running for about four words: (30, 40), with lengths."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        phi = torch.full((K, V), 0.01)
        for k in range(K):
            phi[k, 4 * k : 4 * k + 4] = 1.0
        stay = torch.rand(30, 40) < 0.75
        z = torch.randint(K, (30, 40))
        for t in range(1, 30):
            z[t] = torch.where(stay[t], z[t - 1], z[t])
        words = dist.Categorical(phi[z]).sample()
        lengths = torch.randint(15, 31, (40,))
    return words, lengths, z


@pytest.fixture(scope="module")
def fitted(corpus):
    words, lengths, _ = corpus
    pyro.set_rng_seed(0)
    with torch.random.fork_rng():
        ssl = TopicalSSL(K, [f"w{v}" for v in range(V)], hidden_size=8)
        ssl.fit(
            words[:, :30],
            lengths[:30],
            valid=(words[:, 30:], lengths[30:]),
            num_epochs=8,
            markov_starts=5,
            disable_progbar=True,
        )
    return ssl


@pytest.mark.stage("statistical")
@pytest.mark.usefixtures("float32")
def test_finds_the_planted_topics(fitted, corpus):
    words, lengths, z = corpus
    found = sorted(sorted(topic.words) for topic in fitted.topics(num_words=4))
    planted = sorted(sorted(f"w{4 * k + i}" for i in range(4)) for k in range(K))
    assert found == planted
    assert fitted.perplexity(words[:, 30:], lengths[30:]) < 0.75 * V
    assert sum(topic.occupancy for topic in fitted.topics()) == pytest.approx(1.0)


@pytest.mark.stage("statistical")
def test_history_and_the_epoch_that_is_kept(fitted, corpus):
    words, lengths, _ = corpus
    assert [record.epoch for record in fitted.history] == list(range(1, 9))
    best = min(record.score for record in fitted.history)
    now = fitted.perplexity(words[:, 30:], lengths[30:], num_particles=500)
    assert now == pytest.approx(best, rel=0.03)
    assert all(0.0 <= record.change_rate <= 1.0 for record in fitted.history)


@pytest.mark.stage("statistical")
@pytest.mark.usefixtures("float32")
def test_transform_is_a_posterior_that_sees_the_planted_topics(fitted, corpus):
    words, lengths, z = corpus
    p = fitted.transform(words, lengths, num_samples=20)
    active = torch.arange(30)[:, None] < lengths
    assert torch.allclose(p.sum(-1), active.to(p.dtype))
    # Match labels by each topic's likeliest word.
    planted = torch.tensor([int(fitted.phi[k].argmax()) // 4 for k in range(K)])
    agree = (planted[p.argmax(-1)] == z)[active].double().mean()
    assert agree > 0.9


QUICK = {"num_epochs": 1, "markov_steps": 2, "markov_starts": 1, "transition_steps": 1}
QUICK |= {"disable_progbar": True}


def test_two_models_do_not_share_parameters(corpus):
    words, lengths, _ = corpus
    a, b = (TopicalSSL(K, V, hidden_size=4) for _ in range(2))
    a.fit(words, lengths, **QUICK)
    before = [p.detach().clone() for p in a.transition.parameters()]
    b.fit(words, lengths, **QUICK)
    assert all(torch.equal(p, q) for p, q in zip(before, a.transition.parameters(), strict=True))


@pytest.mark.stage("system")
def test_one_topic_is_a_unigram(corpus):
    words, lengths, _ = corpus
    ssl = TopicalSSL(1, V, hidden_size=2, concentration=1.0)
    ssl.fit(words, lengths, averaging=0.0, **QUICK)
    active = torch.arange(30)[:, None] < lengths
    n = torch.bincount(words[active], minlength=V) + 1.0
    log_p = (n / n.sum()).log()[words[active]]
    assert ssl.perplexity(words, lengths) == pytest.approx(math.exp(-log_p.mean()), rel=1e-9)


def test_float32_and_without_the_markov_start(corpus):
    words, lengths, _ = corpus
    ssl = TopicalSSL(K, V, hidden_size=4).to(torch.float32)
    history = ssl.fit(
        words, lengths, num_epochs=2, markov_steps=0, inference="smc", disable_progbar=True
    )
    assert ssl.markov is None and ssl.phi.dtype == torch.float32
    assert all(math.isnan(record.score) for record in history)


every_inference = pytest.mark.parametrize("inference", ["particle_gibbs", "smc", "mean_field"])


@every_inference
@pytest.mark.parametrize("batch_size", [None, 16])
def test_every_inference_fits(corpus, inference, batch_size):
    words, lengths, _ = corpus
    ssl = TopicalSSL(K, V, hidden_size=4)
    history = ssl.fit(
        words,
        lengths,
        valid=(words[:, 30:], lengths[30:], 5),
        num_epochs=2,
        batch_size=batch_size,
        inference=inference,
        num_particles=3,
        markov_steps=3,
        markov_starts=1,
        transition_steps=2,
        disable_progbar=True,
    )
    assert all(math.isfinite(record.loss) and record.score < 2 * V for record in history)
    moved = [record.change_rate for record in history]
    assert all(math.isnan(m) for m in moved) == (inference == "mean_field")
    torch.testing.assert_close(ssl.phi.sum(-1), torch.ones(K))
    torch.testing.assert_close(ssl.occupancy.sum(), torch.tensor(1.0))


@pytest.mark.stage("statistical")
@every_inference
@pytest.mark.parametrize("batch_size", [None, 16])
def test_every_inference_finds_the_planted_topics(corpus, inference, batch_size):
    words, lengths, _ = corpus
    ssl = TopicalSSL(K, V, hidden_size=8)
    ssl.fit(
        words[:, :30],
        lengths[:30],
        valid=(words[:, 30:], lengths[30:], 5),
        num_epochs=4,
        batch_size=batch_size,
        inference=inference,
        num_particles=4,
        markov_starts=2,
        disable_progbar=True,
    )
    found = sorted(sorted(int(w) // 4 for w in topic.words) for topic in ssl.topics(num_words=4))
    assert found == [[k] * 4 for k in range(K)]
    assert ssl.perplexity(words[:, 30:], lengths[30:], start=5) < 0.8 * V


def test_inference_is_one_of_three(corpus):
    words, lengths, _ = corpus
    with pytest.raises(ValueError, match='inference is "svi", expected one of'):
        TopicalSSL(K, V).fit(words, lengths, inference="svi")
    with pytest.raises(ValueError, match='cell is "gru", expected one of'):
        TopicalSSL(K, V, cell="gru")


def test_methods_can_share_one_markov_start(corpus):
    words, lengths, _ = corpus
    first, second = TopicalSSL(K, V, hidden_size=4), TopicalSSL(K, V, hidden_size=4, cell="mlstm")
    first.fit(words, lengths, **QUICK)
    before = [p.detach().clone() for ssl in (first, second) for p in ssl.transition.parameters()]
    second.fit(words, lengths, markov=first.markov, **QUICK)
    assert torch.equal(second.markov.matrix, first.markov.matrix)
    after = [p for ssl in (first, second) for p in ssl.transition.parameters()]
    moved = [not torch.equal(p, q) for p, q in zip(before, after, strict=True)]
    n = len(list(first.transition.parameters()))
    assert not any(moved[:n]) and all(moved[n:])


def test_an_interrupted_first_epoch_leaves_the_start(corpus, monkeypatch):
    """Topics of the HMM, and a transition that has learned from its paths."""

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(StochasticEM, "step", stop)
    words, lengths, _ = corpus
    ssl = TopicalSSL(K, V, hidden_size=4)
    assert ssl.fit(words, lengths, **QUICK) == []
    assert torch.equal(ssl.phi, ssl.markov.values["phi"]) and not ssl.training
    ssl.load_state_dict({name: torch.zeros_like(value) for name, value in ssl.state_dict().items()})
    assert bool((ssl.markov.values["phi"] > 0).all())  # the HMM's own are another tensor


def test_a_multiplicative_lstm_is_saved_as_such(corpus, tmp_path):
    words, lengths, _ = corpus
    ssl = TopicalSSL(K, V, hidden_size=4, cell="mlstm")
    ssl.fit(words, lengths, **QUICK)
    ssl.save(tmp_path)
    loaded, path = TopicalSSL.load(tmp_path), torch.randint(K, (2, 9))
    assert torch.equal(loaded.transition.log_prob(path), ssl.transition.log_prob(path))


@pytest.mark.parametrize("batch_size", [None, 15])
@pytest.mark.parametrize("inference", ["particle_gibbs", "smc"])
def test_loss_is_that_of_topics_and_words_per_word(corpus, inference, batch_size, monkeypatch):
    """-log p(z, x | φ) by hand, before the step; the prior of φ has no part in it."""
    words, lengths, _ = corpus
    ssl, by_hand = TopicalSSL(K, V, hidden_size=4, dropout=0.0), []
    ascend = StochasticEM._ascend

    def watched(em, program, values, path):
        index = program.args[2] if batch_size else torch.arange(words.shape[1])
        seen = torch.arange(len(words)).unsqueeze(1) < lengths[index]
        log_p = ssl.transition.log_prob(path.T).T + values["phi"].log()[path, words[:, index]]
        by_hand.append(-float(log_p[seen].detach().sum()))
        return ascend(em, program, values, path)

    monkeypatch.setattr(StochasticEM, "_ascend", watched)
    how = {"inference": inference, "batch_size": batch_size, "markov_steps": 0, "num_epochs": 2}
    history = ssl.fit(words, lengths, averaging=0.0, disable_progbar=True, **how)
    expected = torch.tensor(by_hand).view(2, -1).sum(1) / lengths.sum()  # batches of 15, 15 and 10
    found = torch.tensor([record.loss for record in history])
    torch.testing.assert_close(found, expected)
    assert min(found) > 0.0


@pytest.mark.parametrize("num_steps, tolerance", [(1, 1e-9), (4, 0.02)])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_mean_field_loss_is_the_bound_per_word(num_steps, tolerance, batch_size, monkeypatch):
    """Σ_z q(z) [log q(z) - log p(z, x | φ)] over all paths; with one step nothing is estimated."""
    words, by_hand = torch.randint(V, (num_steps, 5)), []
    ssl = TopicalSSL(K, V, hidden_size=4, dropout=0.0)
    torch.nn.init.normal_(ssl.transition.head.weight)
    paths = torch.cartesian_prod(*[torch.arange(K)] * num_steps).view(-1, num_steps)  # (N, T)
    update = MeanFieldGuide.expected_counts

    def watched(guide, run, q):
        x, phi = words[:, run.subsamples.get("documents", slice(None))], guide.values["phi"]
        log_q = sum(q[:, t, paths[:, t]].log() for t in range(num_steps))  # (B, N)
        log_x = sum(phi[paths[:, t]][:, x[t]].log() for t in range(num_steps)).T
        log_p = ssl.transition.log_prob(paths).sum(-1).detach() + log_x
        by_hand.append(float((log_q.exp() * (log_q - log_p)).sum()))
        return update(guide, run, q)

    monkeypatch.setattr(MeanFieldGuide, "expected_counts", watched)
    how = {"inference": "mean_field", "num_particles": 4000, "batch_size": batch_size}
    history = ssl.fit(words, num_epochs=2, markov_steps=0, disable_progbar=True, **how)
    for record, bound in zip(history, torch.tensor(by_hand).view(2, -1).sum(1), strict=True):
        assert record.loss == pytest.approx(float(bound) / words.numel(), rel=tolerance)
        assert record.loss > 1.0  # log p(φ) of sparse topics would make it negative


@pytest.mark.stage("system")
def test_blocks_start_from_the_same_hmm(corpus, monkeypatch):
    """Of 7 documents each, and 5 in the last."""
    words, lengths, _ = corpus
    found = []
    for entries in (2**25, 7 * 30 * K):
        monkeypatch.setattr("pyro_ssl.infer.blocks.MAX_ENTRIES", entries)
        pyro.set_rng_seed(0)
        ssl = TopicalSSL(K, V, hidden_size=4)
        valid = words[:, 30:], lengths[30:], 20
        how = QUICK | {"markov_steps": 3, "markov_starts": 2, "num_valid_particles": 3}
        history = ssl.fit(words, lengths, valid=valid, **how)
        assert history[0].change_rate > 0.0  # the first step goes on from the HMM's paths
        assert math.isfinite(history[0].score)
        found.append(ssl.markov)
    torch.testing.assert_close(found[0].matrix, found[1].matrix, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found[0].values, found[1].values, rtol=1e-7, atol=1e-9)


@pytest.mark.stage("statistical")
def test_blocks_do_not_change_the_scores(fitted, corpus, monkeypatch):
    """Some of them without a word, or none late enough to be scored."""
    words, lengths = corpus[0], corpus[1].clone()
    lengths[3:20] = 0

    def scores():
        how = {"num_particles": 30}
        return (
            fitted.perplexity(words, lengths, start=16, **how),
            fitted.log_likelihood(words, lengths, **how),
            fitted.transform(words, lengths, num_samples=40, **how),
        )

    expected = scores()
    monkeypatch.setattr("pyro_ssl.infer.blocks.MAX_ENTRIES", 7 * 8 * 30 * 30)  # 7 documents
    found = scores()
    assert found[0] == pytest.approx(expected[0], rel=0.05)
    active = torch.arange(30)[:, None] < lengths
    assert found[1].shape == words.shape and not found[1][~active].any()
    assert float(found[1].sum()) == pytest.approx(float(expected[1].sum()), rel=0.03)
    torch.testing.assert_close(found[2].sum(-1), active.to(found[2].dtype))
    assert float((found[2] - expected[2]).abs().sum(-1)[active].mean()) < 0.2


@pytest.mark.stage("system")
def test_blocks_change_no_figure_of_a_filter(corpus, monkeypatch):
    """Each document has random numbers of its own."""
    words, lengths, _ = corpus
    ssl, found = TopicalSSL(K, V, hidden_size=4), []
    ssl.fit(words, lengths, **QUICK)
    for entries in (2**25, 7 * 8 * 30 * 30):
        monkeypatch.setattr("pyro_ssl.infer.blocks.MAX_ENTRIES", entries)
        pyro.set_rng_seed(0)
        found.append(ssl.log_likelihood(words, lengths, num_particles=8))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.stage("system")
def test_scores_of_one_topic_are_exact_in_blocks(corpus, monkeypatch):
    words, lengths = (value[..., :12] for value in corpus[:2])
    ssl = TopicalSSL(1, V, hidden_size=2, concentration=1.0)
    ssl.fit(words, lengths, **QUICK)
    expected = ssl.perplexity(words, lengths, start=3), ssl.log_likelihood(words, lengths)
    monkeypatch.setattr("pyro_ssl.infer.blocks.MAX_ENTRIES", 1)
    assert ssl.perplexity(words, lengths, start=3) == pytest.approx(expected[0], rel=1e-12)
    torch.testing.assert_close(ssl.log_likelihood(words, lengths), expected[1])
