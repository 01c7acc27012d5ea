"""Topics of texts: scikit-learn's protocol, and that all is as the model itself says."""

import copy
import math
import pickle

import numpy as np
import pyro
import pytest
import torch

from pyro_ssl.datasets import STOP_WORDS, batchify, tokenize
from pyro_ssl.estimators import CategoricalSSL, NotFittedError, TextTopics
from tests.faults.digest import nothing_changes

pytestmark = pytest.mark.stage("system")

ANIMALS = "the cat and the dog sat near a horse while some birds sang"
MONEY = "stocks fell and bonds rose as the bank cut its rates again"
TEXTS = [ANIMALS, MONEY] * 15


STEPS = {"markov_steps": 6, "markov_starts": 1, "transition_steps": 5}


def estimator(**options):
    how = {"hidden_size": 6, "max_iter": 1, "random_state": 0, "fit_options": STEPS}
    return TextTopics(2, **{**how, **options})


@pytest.fixture(scope="module")
def fitted():
    return estimator().fit(TEXTS)


def test_constructor_keeps_what_it_is_given():
    made = estimator(stop_words="english")
    params = made.get_params()
    assert params["stop_words"] == "english" and params["n_components"] == 2
    assert TextTopics(**params).get_params() == params
    assert repr(made).startswith("TextTopics(n_components=2, stop_words='english', hidden_size=6")
    with nothing_changes(), pytest.raises(ValueError, match="found nonsense, expected some of"):
        made.set_params(n_components=7, nonsense=1)
    assert made.n_components == 2
    assert made.set_params(n_components=3) is made and made.n_components == 3


def test_clones_and_pipelines_of_scikit_learn():
    base = pytest.importorskip("sklearn.base")
    pipeline = pytest.importorskip("sklearn.pipeline")
    validation = pytest.importorskip("sklearn.utils.validation")
    made = estimator()
    cloned = base.clone(made)
    assert cloned is not made and cloned.get_params() == made.get_params()
    with pytest.raises(ValueError, match="not fitted"):  # scikit-learn's own
        validation.check_is_fitted(cloned)
    chain = pipeline.make_pipeline(cloned).fit(TEXTS)
    validation.check_is_fitted(cloned)
    assert chain.transform(TEXTS[:2]).shape == (2, 2)


def test_it_says_what_its_model_says(fitted):
    batch = batchify([tokenize(text) for text in TEXTS[:3]], fitted.vocabulary_)
    torch.manual_seed(0)
    expected = fitted.model_.shares(batch.words, batch.lengths)
    np.testing.assert_allclose(fitted.transform(TEXTS[:3]), expected, rtol=1e-6)
    score = fitted.score(TEXTS[:3])
    assert score == pytest.approx(-batch.num_tokens * math.log(fitted.perplexity(TEXTS[:3])))
    np.testing.assert_array_equal(fitted.components_, fitted.model_.phi.numpy())
    assert list(fitted.get_feature_names_out()) == ["texttopics0", "texttopics1"]
    assert fitted.coherence(TEXTS).shape == (2,)


def test_a_seed_makes_it_repeatable_and_leaves_generators_alone():
    once = estimator().fit(TEXTS)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    again = estimator().fit(TEXTS)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(again.components_, once.components_)
    np.testing.assert_array_equal(again.transform(TEXTS[:2]), once.transform(TEXTS[:2]))
    assert len(pyro.get_param_store()) == 0
    other = estimator(random_state=1).fit(TEXTS)
    assert not np.array_equal(other.components_, once.components_)


def test_every_text_has_a_row(fitted):
    rows = fitted.transform([ANIMALS, "", "!?"])
    assert rows.shape == (3, 2)
    np.testing.assert_allclose(rows.sum(1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(rows[1], fitted.model_.occupancy)
    assert not np.allclose(rows[0], rows[1])
    np.testing.assert_allclose(fitted.transform(["", ""]), rows[[1, 1]])


def test_stop_words_and_lists_of_words():
    lists = [tokenize(text) for text in TEXTS]
    from_lists = estimator().fit(lists)
    np.testing.assert_array_equal(from_lists.components_, estimator().fit(TEXTS).components_)
    without = estimator(stop_words="english").fit(TEXTS)
    assert "the" in from_lists.vocabulary_ and "the" not in without.vocabulary_
    assert {"cat", "stocks"} <= {*without.vocabulary_}
    listed = {word for topic in from_lists.topics(20) for word in topic.words}
    assert not listed & {*STOP_WORDS, "<unk>"}
    assert "the" in {word for topic in from_lists.topics(20, leave_out=()) for word in topic.words}
    assert estimator(tokenizer=str.split).fit(TEXTS).perplexity(TEXTS) > 1.0


def test_anchors_and_arrays_are_parameters_as_any():
    sklearn_base = pytest.importorskip("sklearn.base")
    made = estimator(anchors={1: ["cat", "horse"]}, anchor_weight=30.0)
    assert sklearn_base.clone(made).get_params() == made.get_params()
    fitted = made.fit(TEXTS)
    cat, bank = (fitted.vocabulary_.words.index(word) for word in ("cat", "bank"))
    assert fitted.components_[:, cat].argmax() == 1 and fitted.components_[:, bank].argmax() == 0
    beta = np.full((2, 4), 0.3)
    how = {"n_iter": 1, "hidden_size": 4, "fit_options": STEPS}
    own = CategoricalSSL(2, emissionprob_prior=beta, **how)
    assert "emissionprob_prior=array" in repr(own)
    assert sklearn_base.clone(own).emissionprob_prior is not beta
    own.fit(np.array([[0, 1, 2, 3] * 3]).T)
    assert own.model_.concentration.shape == (2, 4)
    with pytest.raises(ValueError, match=r"concentration has shape \(2, 4\), expected .*\(2, 5\)"):
        own.set_params(n_features=5).fit(np.array([[0, 1, 2, 3] * 3]).T)


def test_generate_goes_on(fitted):
    words = fitted.generate("the cat", num_words=5)
    assert len(words) == 5 and {*words} <= {*fitted.vocabulary_} - {"<unk>"}
    assert fitted.generate("the cat", num_words=5) == words


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_are_the_same(fitted, copied):
    np.testing.assert_array_equal(copied(fitted).transform(TEXTS[:2]), fitted.transform(TEXTS[:2]))


REFUSED = {
    "not fitted": (lambda: estimator().transform(TEXTS), NotFittedError, "is not fitted yet"),
    "one text": (lambda: estimator().fit("one text"), TypeError, r"write \[text\]"),
    "no word": (lambda: estimator().fit(["", "?"]), ValueError, "without a single word"),
    "a seed": (lambda: estimator(random_state="x").fit(TEXTS), ValueError, "random_state is 'x'"),
    "a share": (lambda: estimator(valid_share=1).fit(TEXTS), ValueError, "valid_share is 1"),
    "a list": (lambda: estimator(stop_words="french").fit(TEXTS), ValueError, '"french"'),
    "topics": (lambda: TextTopics(0).fit(TEXTS), ValueError, "num_topics is 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    call, kind, message = REFUSED[case]
    with nothing_changes(), pytest.raises(kind, match=message):
        call()


def test_a_fit_that_fails_leaves_the_last_one(fitted):
    mine = copy.deepcopy(fitted)
    with pytest.raises(ValueError, match="without a single word"):
        mine.fit([""])
    np.testing.assert_array_equal(mine.components_, fitted.components_)
    with pytest.raises(ValueError, match="found no word"):
        mine.score([""])


@pytest.mark.stage("statistical")
@pytest.mark.usefixtures("float32")
def test_finds_topics_that_are_there():
    """Two kinds of text without a word in common: a text's share of its own topic is near 1."""
    animals, money = [a.split() for a in ("cat dog horse bird", "stock bond bank rate")]
    torch.manual_seed(0)
    texts = [
        " ".join(kind[i] for i in torch.randint(4, (12,)))
        for _ in range(40)
        for kind in (animals, money)
    ]
    made = estimator(max_iter=10, fit_options=None).fit(texts)
    shares = made.transform(texts)
    first = shares[::2].mean(0).argmax()
    assert shares[::2, first].mean() > 0.95 and shares[1::2, first].mean() < 0.05
    assert {*made.topics(4)[0].words} in ({*animals}, {*money})
    # A word of its own kind is one of four: 4 at best, 8 for who does not know the kind.
    assert made.perplexity(texts) < 5.0
