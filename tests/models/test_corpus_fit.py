"""A fit of a corpus on disk: what a fit of the same data in memory is, bit by bit.

Where texts are of several lengths, minibatches are padded to their own longest, and a dropout mask
has other entries; so what is compared bit by bit has texts of one length, or no dropout.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import LanguageModel, MarkovEM, StochasticEM, TopicalSSL, ssl_transition
from pyro_ssl.datasets import TokenCorpus, Vocabulary
from pyro_ssl.errors import CheckpointError
from pyro_ssl.models import corpus_words
from pyro_ssl.transitions import LSTMTransition
from tests.faults.digest import digest_of_generators, digest_of_tensors, nothing_changes

pytestmark = pytest.mark.stage("system")

K, V, T, N = 3, 9, 6, 20
WORDS = Vocabulary(["<unk>", *"abcdefgh"])
quiet = {"disable_progbar": True}


def data(lengths=None, num_sequences=N, seed=1):
    draw = torch.Generator().manual_seed(seed)
    words = torch.randint(V, (T, num_sequences), generator=draw)
    if lengths is not None:
        words = torch.where(torch.arange(T)[:, None] < lengths, words, 0)
    return words


def on_disk(folder, words, lengths=None):
    lengths = [T] * words.shape[1] if lengths is None else lengths.tolist()
    rows = (words[:n, b] for b, n in enumerate(lengths))
    return TokenCorpus.from_ids(folder, rows, WORDS, **quiet)


def ragged(num_sequences=N):
    draw = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, T + 1, (num_sequences,), generator=draw)
    lengths[0] = T
    return lengths


def fit(words, lengths=None, dropout=0.5, **options):
    pyro.set_rng_seed(0)
    ssl = TopicalSSL(K, WORDS, hidden_size=4, dropout=dropout)
    start = {"markov_steps": 3, "markov_starts": 2, "transition_steps": 2}
    how = {"num_epochs": 2, "num_valid_particles": 3, **start, **quiet, **options}
    ssl.fit(words, lengths, **how)
    return ssl


def all_of(ssl):
    tensors = digest_of_tensors(ssl.state_dict())
    history = [(r.epoch, r.loss, r.change_rate, r.score) for r in ssl.history]
    return tensors, repr(history), digest_of_generators()


# ------------------------------------------------------------------------- the same as in memory


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 6},
        {"batch_size": None},
        {"batch_size": 7, "inference": "smc", "num_particles": 2},
        {"batch_size": 6, "markov_steps": 0},
        {"batch_size": 6, "num_sweeps": 2, "twist": None},
    ],
)
def test_texts_of_one_length_give_the_same_fit(tmp_path, options):
    words, held_out = data(), data(num_sequences=5, seed=2)
    whole = torch.full((N,), T)
    expected = fit(words, whole, valid=(held_out, whole[:5], 2), **options)
    corpora = on_disk(tmp_path / "a", words), on_disk(tmp_path / "b", held_out)
    found = fit(corpora[0], valid=(corpora[1], None, 2), **options)
    assert all_of(found) == all_of(expected)
    pyro.set_rng_seed(1)
    score = found.perplexity(corpora[1], start=1)
    pyro.set_rng_seed(1)
    assert score == expected.perplexity(held_out, whole[:5], start=1)


def test_paths_in_a_file_give_the_same_fit(tmp_path):
    corpus = on_disk(tmp_path / "a", data())
    found = fit(corpus, batch_size=6, paths_folder=tmp_path / "paths")
    assert all_of(found) == all_of(fit(corpus, batch_size=6))
    assert not list((tmp_path / "paths").iterdir())


def test_texts_of_many_lengths_give_the_same_steps_in_the_same_minibatches(tmp_path, monkeypatch):
    """Minibatches of the same texts, in memory padded alike: all is the same."""
    lengths = ragged()
    words = data(lengths)
    corpus = on_disk(tmp_path / "a", words, lengths)
    expected = fit(words, lengths, dropout=0.0, batch_size=6, twist=None)
    padded = lambda self, key: self.corpus.batch(key[1], num_steps=T).words  # noqa: E731
    monkeypatch.setattr(corpus_words.CorpusWords, "__getitem__", padded)
    monkeypatch.setattr(
        "pyro_ssl.models.learners.minibatches_by_length", lambda order, n, size: order.split(size)
    )
    assert all_of(fit(corpus, dropout=0.0, batch_size=6, twist=None)) == all_of(expected)


def test_padding_changes_no_hmm_and_no_score(tmp_path, monkeypatch):
    lengths = ragged()
    words = data(lengths)
    corpus = on_disk(tmp_path / "a", words, lengths)
    one = fit(words, lengths, num_epochs=0, valid=(words, lengths, 2))
    other = fit(corpus, num_epochs=0, valid=(corpus, None, 2))
    with monkeypatch.context() as patch:  # two texts in a block, of which some end before step 2
        patch.setattr("pyro_ssl.infer.blocks.MAX_ENTRIES", 2 * T * K)
        small = fit(corpus, num_epochs=0, valid=(corpus, None, 2))
    assert torch.allclose(one.markov.matrix, small.markov.matrix, rtol=1e-9)
    assert torch.allclose(one.markov.matrix, other.markov.matrix, rtol=1e-9)
    assert torch.allclose(one.markov.values["phi"], other.markov.values["phi"], rtol=1e-9)
    for start in (0, 4, 5):
        scores = []
        for data_ in ((words, lengths), (corpus, None)):
            pyro.set_rng_seed(2)
            scores.append(one.perplexity(*data_, start=start, num_particles=5))
        assert scores[0] == pytest.approx(scores[1], rel=1e-9)


def test_a_fit_learns_from_texts_of_many_lengths(tmp_path):
    """Two topics of words of their own: the perplexity is far below V."""
    draw = torch.Generator().manual_seed(0)
    topic = torch.randint(2, (60,), generator=draw)
    rows = [torch.randint(4, (int(n),), generator=draw) for n in torch.randint(4, 20, (60,))]
    rows = [row + 4 * k + 1 for row, k in zip(rows, topic.tolist(), strict=True)]
    corpus = TokenCorpus.from_ids(tmp_path / "a", rows, WORDS, **quiet)
    train, valid = corpus.split(0.2)
    ssl = TopicalSSL(2, WORDS, hidden_size=4)
    ssl.fit(train, valid=valid, batch_size=20, num_epochs=2, markov_steps=10, **quiet)
    assert ssl.perplexity(valid) < 6.5


# --------------------------------------------------------------------------- no more than a batch


def test_no_more_than_a_batch_is_read_at_a_time(tmp_path, monkeypatch):
    corpus = on_disk(tmp_path / "a", data(num_sequences=40))
    sizes, batch = [], TokenCorpus.batch

    def counted(self, indices, **how):
        found = batch(self, indices, **how)
        sizes.append(found.words.shape[1])
        return found

    monkeypatch.setattr(TokenCorpus, "batch", counted)
    monkeypatch.setattr("pyro_ssl.infer.blocks.MAX_ENTRIES", 8 * T * K)
    fit(corpus, batch_size=6, valid=corpus, num_valid_particles=3)
    assert max(sizes) <= 8 and len(sizes) > 40


# ------------------------------------------------------------------------------------ stopped


@pytest.mark.parametrize("stop", [0, 1, pytest.param(2, marks=pytest.mark.stage("nightly"))])
def test_a_fit_that_is_stopped_goes_on_as_if_it_never_was(tmp_path, stop):
    corpus, held_out = on_disk(tmp_path / "a", data()), on_disk(tmp_path / "b", data(seed=2))
    how = {"batch_size": 6, "paths_folder": tmp_path / "paths", "valid": held_out}
    expected = fit(corpus, **how)

    def callback(record):
        if record.epoch == max(stop, 1):
            raise KeyboardInterrupt

    saved = {"checkpoint": tmp_path / "fit"}
    fit(corpus, callback=callback, **{**how, **saved, **({} if stop else {"num_epochs": 0})})
    found = fit(TokenCorpus.open(tmp_path / "a"), resume=True, **how, **saved)
    assert all_of(found)[:2] == all_of(expected)[:2]
    other = on_disk(tmp_path / "c", data(seed=5))
    with pytest.raises(CheckpointError, match="other data: words is corpus"):
        fit(other, resume=True, **how, **saved)


# ----------------------------------------------------------------------------------- refusals


def test_what_is_not_for_corpora_is_told(tmp_path):
    corpus = on_disk(tmp_path / "a", data())
    ssl = TopicalSSL(K, WORDS, hidden_size=4)
    small = TopicalSSL(K, 8, hidden_size=4)
    language = LanguageModel(V, embedding_size=2, hidden_size=3)
    wrong = [
        (ssl, r'Write inference="particle_gibbs"', lambda m: m.fit(corpus, inference="mean_field")),
        (ssl, "and no lengths", lambda m: m.fit(corpus, corpus.lengths)),
        (ssl, "0 sequences", lambda m: m.fit(corpus.select([]))),
        (ssl, "V of 9 at most, and no lengths", lambda m: m.fit(corpus, valid=(corpus, [3]))),
        (ssl, "no word to score", lambda m: m.fit(corpus, valid=(corpus, None, T))),
        (small, "V = 9 words, expected one at least, V of 8", lambda m: m.fit(corpus)),
        (language, r"Write batch = corpus\.batch", lambda m: m.fit(corpus)),
    ]
    for model, match, call in wrong:
        with nothing_changes(tmp_path, modules=[model]), pytest.raises(ValueError, match=match):
            call(model)
    ssl.fit(corpus, num_epochs=1, markov_steps=0, **quiet)
    for call in (ssl.transform, ssl.log_likelihood):
        with pytest.raises(ValueError, match=r"Write batch = corpus\.batch"):
            call(corpus)


# ------------------------------------------------------------------------- a model of one's own


def test_a_model_of_ones_own_reads_its_minibatches(tmp_path):
    lengths = ragged()
    corpus = on_disk(tmp_path / "a", data(lengths), lengths)
    transition = LSTMTransition(K, 4)

    def model(index):
        pyro.module("transition", transition)
        batch = corpus.batch(index)
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, V)).to_event(1))
        with pyro.plate("documents", len(corpus), subsample=index):
            for t, z in ssl_transition("z", transition, len(batch.words), lengths=batch.lengths):
                pyro.sample("x", dist.Categorical(phi[z]), obs=batch.words[t])

    em = StochasticEM(model, pyro.optim.Adam({"lr": 0.05}), 5, paths_folder=tmp_path / "paths")
    batches = [(index,) for index in corpus.batches(6)]
    em.warm_start(num_steps=3, transition_steps=4, batches=batches)
    for epoch in range(2):
        for index in corpus.batches(6, seed=epoch):
            em.step(index)
    assert em.paths.shape == (N, T)
    hmm = MarkovEM(model)
    whole = [hmm.epoch([(torch.arange(N),)]) for _ in range(3)]
    pyro.set_rng_seed(0)
    hmm, other = MarkovEM(model), MarkovEM(model)
    pyro.set_rng_seed(1)
    whole = [hmm.epoch([(torch.arange(N),)]) for _ in range(3)]
    pyro.set_rng_seed(1)
    parts = [other.epoch(batches) for _ in range(3)]
    assert whole == pytest.approx(parts, rel=1e-9)
