import gzip
import json
import lzma
import os
from pathlib import Path

import pytest

from pyro_ssl.datasets import Review, imdb_prefix_split, load_imdb

# Sorted as on disk: neg before pos, by id.
REVIEWS = [
    Review("Dull.\nAnd long.", "neg", 2, 0),
    Review("Bad", "neg", 4, 3),
    Review("No", "neg", 1, 12),
    Review("Été", "pos", 7, 0),
    Review("Good", "pos", 10, 5),
]
OPENERS = {"jsonl": open, "jsonl.gz": gzip.open, "jsonl.xz": lzma.open}


def published(text):
    return text.replace("\n", "<br />")


def write_lines(file, reviews, **more):
    with OPENERS[file.name.split(".", 1)[1]](file, "wt", encoding="utf-8") as lines:
        for review in reviews:
            row = review._asdict() | {"text": published(review.text)} | more
            lines.write(json.dumps(row) + "\n")


def write_folder(root, reviews, split="train"):
    for label in ("pos", "neg", "unsup"):
        (root / split / label).mkdir(parents=True)
    for review in reviews:
        file = root / split / review.label / f"{review.id}_{review.rating}.txt"
        file.write_text(published(review.text), encoding="utf-8")
    (root / split / "pos" / "notes.txt").write_text("not a review")


@pytest.mark.parametrize("place", [".", "aclImdb"])
def test_published_folders(tmp_path, place):
    write_folder(tmp_path / place, REVIEWS)
    write_folder(tmp_path / place, REVIEWS[3:], split="test")
    assert load_imdb(tmp_path) == REVIEWS
    assert load_imdb(str(tmp_path), split="test") == REVIEWS[3:]


@pytest.mark.parametrize("suffix", OPENERS)
def test_lines(tmp_path, suffix):
    file = tmp_path / f"reviews.{suffix}"
    write_lines(file, REVIEWS)
    assert load_imdb(file) == load_imdb(tmp_path) == REVIEWS


def test_the_file_named_for_the_split_is_read(tmp_path):
    write_lines(tmp_path / "imdb_train.jsonl", REVIEWS)
    write_lines(tmp_path / "imdb_test.jsonl.gz", REVIEWS[:2])
    assert load_imdb(tmp_path) == REVIEWS
    assert load_imdb(tmp_path, split="test") == REVIEWS[:2]


def test_both_splits_in_one_file(tmp_path):
    row = REVIEWS[0]._asdict()
    rows = [row | {"split": "train"}, row | {"split": "test", "id": 99}]
    (tmp_path / "train_and_test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [review.id for review in load_imdb(tmp_path)] == [0]
    assert [review.id for review in load_imdb(tmp_path, split="test")] == [99]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 99])
@pytest.mark.parametrize("write", [write_folder, lambda d, r: write_lines(d / "a.jsonl", r)])
def test_limit_takes_both_labels(tmp_path, write, limit):
    write(tmp_path, REVIEWS)
    expected = {1: [0], 2: [0, 3], 3: [0, 1, 3], 4: [0, 1, 3, 4], 99: [0, 1, 2, 3, 4]}[limit]
    assert load_imdb(tmp_path, limit=limit) == [REVIEWS[i] for i in expected]


class TestErrorsTeach:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            load_imdb(tmp_path / "nowhere")
        message = str(caught.value)
        for part in ("no such file or folder", "train/neg", ".jsonl.xz", "ai.stanford.edu"):
            assert part in message

    def test_another_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="neither layout there"):
            load_imdb(tmp_path)

    def test_several_files(self, tmp_path):
        write_lines(tmp_path / "a.jsonl", REVIEWS)
        write_lines(tmp_path / "b.jsonl", REVIEWS)
        with pytest.raises(FileNotFoundError, match="found a.jsonl, b.jsonl, expected one of them"):
            load_imdb(tmp_path)

    def test_the_other_split(self, tmp_path):
        write_lines(tmp_path / "train.jsonl", REVIEWS)
        with pytest.raises(ValueError, match=r"load_imdb\(path, split='train'\)"):
            load_imdb(tmp_path / "train.jsonl", split="test")

    @pytest.mark.parametrize("line", ["not json", "[1]", '{"id": 1, "label": "pos"}'])
    def test_a_line_that_is_no_review(self, tmp_path, line):
        write_lines(tmp_path / "a.jsonl", REVIEWS[:1])
        with (tmp_path / "a.jsonl").open("a") as lines:
            lines.write(line)
        with pytest.raises(ValueError, match=r"a\.jsonl, line 2; .*keys id, label, rating, text"):
            load_imdb(tmp_path)

    def test_another_kind_of_file(self, tmp_path):
        (tmp_path / "reviews.csv").touch()
        with pytest.raises(ValueError, match="expected a name that ends in .jsonl"):
            load_imdb(tmp_path / "reviews.csv")

    def test_arguments(self, tmp_path):
        with pytest.raises(ValueError, match="found split='valid'"):
            load_imdb(tmp_path, split="valid")
        with pytest.raises(ValueError, match="found limit=0"):
            load_imdb(tmp_path, limit=0)
        with pytest.raises(ValueError, match="found vocabulary='all'"):
            imdb_prefix_split(tmp_path, vocabulary="all")
        with pytest.raises(ValueError, match="expected 1 <= train_length < length"):
            imdb_prefix_split(tmp_path, length=100)


class TestPrefixSplit:
    # Review i says "ri" i times: those from 5 on are long enough.
    reviews = [Review(f"r{i} " * i + "end", "pos", 8, i) for i in range(12)]

    @pytest.fixture
    def folder(self, tmp_path):
        write_lines(tmp_path / "train.jsonl", self.reviews)
        return tmp_path

    def split(self, folder, **more):
        arguments = {"num_reviews": 4, "length": 6, "train_length": 3, "vocab_size": 100}
        return imdb_prefix_split(folder, **arguments | more)

    def test_cut(self, folder):
        vocabulary, full, train = self.split(folder)
        assert full.words.shape == (6, 4)
        assert full.lengths.tolist() == [6] * 4
        assert train.words.equal(full.words[:3])
        assert train.lengths.tolist() == [3] * 4
        assert train.kept.equal(full.kept)
        for column, place in enumerate(full.kept.tolist()):
            said = [f"r{place}"] * place + ["end"]
            assert vocabulary.decode(full.words[:, column]) == said[:6]
        assert (full.truncated + 6).tolist() == (full.kept + 1).tolist()

    def test_order_is_shuffled_and_fixed(self, folder):
        kept = self.split(folder).full.kept.tolist()
        assert kept == self.split(folder).full.kept.tolist()
        assert kept != sorted(kept)
        assert kept != self.split(folder, seed=1).full.kept.tolist()

    def test_vocabulary_of_all_reviews_or_of_training(self, folder):
        assert set(self.split(folder).vocabulary.words) >= {"r1", "r11", "end"}
        of_training = self.split(folder, vocabulary="train")
        assert len(of_training.vocabulary) == 1 + 4
        assert "end" not in of_training.vocabulary

    def test_too_few_long_reviews(self, folder):
        with pytest.raises(
            ValueError, match="found 7 reviews of 6 words or more, expected 9. Write num"
        ):
            self.split(folder, num_reviews=9)


@pytest.fixture
def published_file():
    file = Path(os.environ.get("PYRO_SSL_DATA", "."), "imdb", "imdb_small_2000.jsonl.gz")
    if not file.exists():
        pytest.skip("PYRO_SSL_DATA names no folder that holds imdb/imdb_small_2000.jsonl.gz")
    return file


def test_published_reviews(published_file):
    train, test = load_imdb(published_file), load_imdb(published_file, split="test")
    assert len(train) == len(test) == 1000
    for review in train + test:
        assert "<br" not in review.text
        assert (review.rating > 6) == (review.label == "pos")
    assert [review.label for review in load_imdb(published_file, limit=4)] == ["neg"] * 2 + [
        "pos"
    ] * 2


def test_published_prefix_split(published_file):
    vocabulary, full, train = imdb_prefix_split(published_file)
    assert full.words.shape == (170, 200)
    assert train.words.equal(full.words[:100])
    assert len(vocabulary) == 5000
    assert full.unknown_rate < 0.15
