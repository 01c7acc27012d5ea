import json
import os
from pathlib import Path

import pytest
import torch

from pyro_ssl.datasets import (
    MSNBC_CATEGORIES,
    UNKNOWN,
    SequenceSplit,
    TextBatch,
    Vocabulary,
    imdb_continuation,
    imdb_prefix_split,
    load_python_docs,
    load_wikitext2,
    msnbc_sequences,
    python_docs_passages,
    split_passages,
    wikitext2_passages,
)
from pyro_ssl.datasets import imdb as imdb_module

# Some texts here have next to no words in common.
pytestmark = pytest.mark.filterwarnings("ignore::pyro_ssl.datasets.UnknownWordsWarning")


def texts_of(split, part):
    batch = getattr(split, part)
    return [
        split.vocabulary.decode(batch.words[:length, b])
        for b, length in enumerate(batch.lengths.tolist())
    ]


def assert_same_batch(one, other):
    for name in ("words", "lengths", "kept", "truncated"):
        assert getattr(one, name).equal(getattr(other, name)), name


class TestIMDB:
    @pytest.fixture
    def folder(self, tmp_path):
        # Review i has words "wi"; those from 6 on are long enough.
        texts = [f"w{i} " * i + "end" for i in range(24)]
        rows = [{"id": i, "label": "neg", "rating": 1, "text": t} for i, t in enumerate(texts)]
        (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return tmp_path

    arguments = {"length": 7, "train_length": 3, "vocab_size": 100}

    def split(self, folder, **more):
        arguments = {"num_reviews": 8, "num_valid": 5} | self.arguments
        return imdb_continuation(folder, **arguments | more)

    def test_train_and_test_are_those_of_the_prefix_split(self, folder):
        for vocabulary in ("corpus", "train"):
            split = self.split(folder, vocabulary=vocabulary)
            prefix = imdb_prefix_split(
                folder, num_reviews=8, vocabulary=vocabulary, **self.arguments
            )
            assert split.vocabulary == prefix.vocabulary
            assert_same_batch(split.train, prefix.train)
            assert_same_batch(split.test, prefix.full)

    def test_shapes_and_start(self, folder):
        split = self.split(folder)
        assert split.train.words.shape == (3, 8)
        assert split.test.words.shape == (7, 8)
        assert split.valid.words.shape == (7, 5)
        assert split.start == 3
        assert split.test.words[: split.start].equal(split.train.words)

    def test_valid_is_of_other_reviews(self, folder):
        split = self.split(folder)
        assert set(split.valid.kept.tolist()).isdisjoint(split.test.kept.tolist())
        for place, words in zip(split.valid.kept.tolist(), texts_of(split, "valid"), strict=True):
            assert set(words) - {"end"} == {f"w{place}"}

    def test_no_test_word_is_in_train(self, tmp_path):
        rows = [
            {"id": i, "label": "neg", "rating": 1, "text": "seen " * 3 + f"later{i} " * 4}
            for i in range(13)
        ]
        for i, row in enumerate(rows):
            row["text"] = row["text"].replace(str(i), "abcdefghijklm"[i])
        (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
        split = self.split(tmp_path)
        assert {word for text in texts_of(split, "train") for word in text} == {"seen"}
        assert all("seen" not in text[split.start :] for text in texts_of(split, "test"))
        of_training = self.split(tmp_path, vocabulary="train").vocabulary
        assert of_training.words == (UNKNOWN, "seen")

    def test_a_review_that_stands_twice_is_not_in_valid(self, tmp_path):
        texts = [f"{letter} " * 7 for letter in "abcdefg" * 2]
        rows = [{"id": i, "label": "neg", "rating": 1, "text": t} for i, t in enumerate(texts)]
        (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
        for seed in range(5):
            split = self.split(tmp_path, num_reviews=4, num_valid=2, seed=seed)
            valid, train = ({t[0] for t in texts_of(split, part)} for part in ("valid", "train"))
            assert valid.isdisjoint(train)

    def test_max_test_takes_the_first(self, folder):
        split, whole = self.split(folder, max_test=2), self.split(folder)
        assert_same_batch(split.test, whole.test.select([0, 1]))
        assert_same_batch(split.train, whole.train)
        assert_same_batch(split.valid, whole.valid)
        assert len(self.split(folder, max_test=99).test.lengths) == 8

    @pytest.mark.parametrize("vocabulary", ["corpus", "train"])
    def test_no_review_is_tokenised_twice(self, folder, monkeypatch, vocabulary):
        seen = []
        real = imdb_module.tokenize
        monkeypatch.setattr(imdb_module, "tokenize", lambda text: seen.append(text) or real(text))
        self.split(folder, vocabulary=vocabulary)
        assert len(seen) == len(set(seen)) > 13

    def test_errors_teach(self, folder):
        with pytest.raises(ValueError, match="found 18 reviews .* expected 40. Write num_rev.*=13"):
            self.split(folder, num_reviews=35)
        for name in ("num_reviews", "num_valid", "max_test"):
            with pytest.raises(ValueError, match=f"imdb_continuation: found {name}=0"):
                self.split(folder, **{name: 0})
        with pytest.raises(ValueError, match="imdb_continuation: found vocabulary='all'"):
            self.split(folder, vocabulary="all")


class TestWikitext:
    @pytest.fixture
    def folder(self, tmp_path):
        for part, names in (("train", "abcdef"), ("valid", "gh"), ("test", "ijk")):
            articles = (f" \n = {a} = \n \n the {f'{a}x ' * 5} . \n" for a in names)
            (tmp_path / f"wiki.{part}.tokens").write_text("".join(articles))
        return tmp_path

    def split(self, folder, **more):
        arguments = {"num_train_tokens": None, "passage_length": 5, "min_length": 2}
        return wikitext2_passages(folder, **arguments | more)

    @pytest.mark.parametrize("part", ["train", "valid", "test"])
    def test_passages_of_articles(self, folder, part):
        split = self.split(folder)
        expected = [
            passage
            for article in load_wikitext2(folder, part)
            for passage in split_passages(article, 5, 2)
        ]
        known = set(split.vocabulary.words)
        assert texts_of(split, part) == [
            [word if word in known else UNKNOWN for word in passage] for passage in expected
        ]
        assert split.start == 0

    def test_vocabulary_is_of_the_training_tokens_used(self, folder):
        assert set(self.split(folder).vocabulary.words) >= {"ax", "fx", "<eos>"}
        few = self.split(folder, num_train_tokens=15)
        assert "ax" in few.vocabulary
        assert not {"cx", "fx", "gx", "ix"} & set(few.vocabulary.words)
        again = Vocabulary.build(texts_of(few, "train"), 10_000)
        assert again.words == few.vocabulary.words
        assert len(self.split(folder, vocab_size=4).vocabulary) == 4

    @pytest.mark.parametrize("most", [5, 9, 10, 24, 10_000])
    def test_num_train_tokens(self, folder, most):
        whole, split = self.split(folder).train, self.split(folder, num_train_tokens=most).train
        columns = len(split.lengths)
        assert split.num_tokens <= most
        assert split.lengths.equal(whole.lengths[:columns])
        if columns < len(whole.lengths):
            assert split.num_tokens + whole.lengths[columns] > most

    def test_max_valid_and_max_test(self, folder):
        whole, split = self.split(folder), self.split(folder, max_valid=2, max_test=1)
        assert_same_batch(split.valid, whole.valid.select([0, 1]))
        assert_same_batch(split.test, whole.test.select([0]))
        assert_same_batch(split.train, whole.train)

    def test_errors_teach(self, folder):
        with pytest.raises(ValueError, match="found num_train_tokens=4, expected a passage or"):
            self.split(folder, num_train_tokens=4)
        with pytest.raises(ValueError, match="wikitext2_passages: found max_valid=0"):
            self.split(folder, max_valid=0)
        (folder / "wiki.valid.tokens").unlink()
        with pytest.raises(FileNotFoundError, match=r"wiki\.valid\.tokens"):
            self.split(folder)


class TestMSNBC:
    @pytest.fixture
    def folder(self, tmp_path):
        # User i views 1 to 6 pages, of the categories that the digits of i in base 17 say.
        rows = (f"{i % 17 + 1} {i // 17 + 1} " + "1 " * (i % 5) for i in range(100))
        head = "\n".join([*MSNBC_CATEGORIES, "% Sequences:", "", ""])
        (tmp_path / "msnbc990928.seq").write_text(head + "\n".join(rows))
        return tmp_path

    def split(self, folder, **more):
        arguments = {"num_train": 30, "num_valid": 10, "num_test": 8, "min_len": 3, "max_len": 5}
        return msnbc_sequences(folder, **arguments | more)

    def test_sizes(self, folder):
        split = self.split(folder)
        assert [len(b.lengths) for b in (split.train, split.valid, split.test)] == [30, 10, 8]
        lengths = torch.cat([split.train.lengths, split.valid.lengths, split.test.lengths])
        assert set(lengths.tolist()) == {3, 4, 5}
        assert split.start == 0

    def test_ids_are_the_numbers_on_file(self, folder):
        split = self.split(folder)
        assert split.vocabulary.words == (UNKNOWN, *MSNBC_CATEGORIES)
        for part in (split.train, split.valid, split.test):
            assert part.num_unknown == 0
            assert part.truncated.sum() == 0
            assert 1 <= part.words[part.mask].min() <= part.words[part.mask].max() <= 17

    def test_each_user_is_in_one_part(self, folder):
        split = self.split(folder)
        users = [  # here the first two views tell the user
            tuple(batch.words[:2, b].tolist())
            for batch in (split.train, split.valid, split.test)
            for b in range(len(batch.lengths))
        ]
        assert len(users) == len(set(users)) == 48

    def test_draw_is_fixed(self, folder):
        state = torch.get_rng_state()
        split = self.split(folder)
        assert_same_batch(split.test, self.split(folder).test)
        assert torch.get_rng_state().equal(state)
        assert not split.train.words.equal(self.split(folder, seed=1).train.words)
        assert split.train.words[:2].tolist() != sorted(split.train.words[:2].tolist())

    def test_errors_teach(self, folder):
        with pytest.raises(ValueError, match="found 60 users with 3 to 5 views, expected 118"):
            self.split(folder, num_train=100)
        for name in ("num_train", "num_valid", "num_test"):
            with pytest.raises(ValueError, match=f"msnbc_sequences: found {name}=0"):
                self.split(folder, **{name: 0})


class TestPythonDocs:
    def test_is_the_built_in_corpus(self):
        corpus, split = load_python_docs(500, 50, seed=3), python_docs_passages(500, 50, seed=3)
        assert (split.name, split.vocabulary, split.start) == (corpus.name, corpus.vocabulary, 0)
        for part in ("train", "valid", "test"):
            assert_same_batch(getattr(split, part), getattr(corpus, part))


class TestSequenceSplit:
    vocabulary = Vocabulary([UNKNOWN, "a"])
    batch = TextBatch(*(torch.ones(shape).long() for shape in ((3, 2), 2, 2, 2)))

    def split(self, start):
        return SequenceSplit("Such", self.vocabulary, *[self.batch] * 3, start=start)

    def test_to_moves_the_batches(self):
        split = self.split(1).to("meta")
        for part in (split.train, split.valid, split.test):
            assert part.words.is_meta
        assert (split.name, split.start) == ("Such", 1)

    def test_describe(self):
        head, *parts = self.split(0).describe().splitlines()
        assert head == "Such; 2 words in the vocabulary"
        assert [part.split()[:3] for part in parts] == [
            [part, "2", "sequences"] for part in ("train", "valid", "test")
        ]
        assert self.split(1).describe().splitlines()[4] == (
            "  valid and test are scored from word 2 on"
        )


@pytest.fixture
def published():
    folder = Path(os.environ.get("PYRO_SSL_DATA", "."))
    if not (folder / "msnbc").exists():
        pytest.skip("PYRO_SSL_DATA names no folder that holds imdb, msnbc and wikitext2")
    return folder


def test_published_imdb(published):
    file = published / "imdb" / "imdb_small_2000.jsonl.gz"
    split, prefix = imdb_continuation(file, max_test=50), imdb_prefix_split(file)
    assert_same_batch(split.train, prefix.train)
    assert_same_batch(split.test, prefix.full.select(range(50)))
    assert split.valid.words.shape == (170, 200)
    assert set(split.valid.kept.tolist()).isdisjoint(split.train.kept.tolist())


def test_published_wikitext2(published):
    split = wikitext2_passages(published / "wikitext2", max_valid=100)
    assert 499_900 < split.train.num_tokens <= 500_000
    assert len(split.vocabulary) == 10_000
    assert len(split.valid.lengths) == 100
    assert split.train.unknown_rate < split.test.unknown_rate < 0.2


def test_published_msnbc(published):
    split = msnbc_sequences(published / "msnbc")
    assert len(split.train.lengths) == 100_000
    assert split.train.num_unknown == 0
    assert len(split.train.words) == 100
