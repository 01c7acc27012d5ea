"""Corpora on disk: the same words as in memory, whole or not there, and damage is told."""

import gzip
import json
import lzma
import os
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_ssl.datasets import (
    TextFiles,
    TokenCorpus,
    Vocabulary,
    batchify,
    split_passages,
    tokenize,
)
from pyro_ssl.datasets.counting import WordCounts
from pyro_ssl.datasets.token_files import smallest_type
from pyro_ssl.errors import CheckpointError
from pyro_ssl.steps import POOL, minibatches_by_length
from tests.faults.digest import digest_of_folder
from tests.faults.disk import damage, full_disk

TEXTS = ["The cat sat on the mat.", "...", "A cat and a dog!", "Dogs", "the end of the mat"]
TOKENS = [tokenize(text) for text in TEXTS]
quiet = {"disable_progbar": True}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "corpus"


def built(folder, texts=TEXTS, vocab_size=6, **more):
    return TokenCorpus.build(folder, texts, vocab_size, **quiet, **more)


def numbered(folder, lengths, num_words=300):
    """Sequences of such lengths, of words 0, 1, 2, ... one after the other."""
    words = Vocabulary(["<unk>", *map(str, range(1, num_words))])
    ends = np.cumsum(lengths)
    rows = [np.arange(e - n, e) % num_words for e, n in zip(ends, lengths, strict=True)]
    return TokenCorpus.from_ids(folder, rows, words, **quiet)


# ------------------------------------------------------------------------------------ content


def test_a_corpus_has_the_words_of_a_batch_in_memory(folder):
    corpus, vocabulary = built(folder), Vocabulary.build(TOKENS, 6)
    expected = batchify(TOKENS, vocabulary)
    assert corpus.vocabulary == vocabulary
    for opened in (corpus, TokenCorpus.open(folder), TokenCorpus.open(folder, verify=False)):
        found = opened.batch(range(len(opened)))
        assert torch.equal(found.words, expected.words) and found.words.dtype == torch.int64
        assert torch.equal(found.lengths, expected.lengths)
        assert torch.equal(opened.texts, expected.kept)
        assert opened.num_tokens == expected.num_tokens
        assert opened.unknown_rate == expected.unknown_rate
    assert [row.tolist() for row in corpus] == [vocabulary.encode(t) for t in TOKENS if t]


def test_a_batch_of_some_sequences(folder):
    corpus = numbered(folder, [3, 1, 2])
    found = corpus.batch(torch.tensor([2, -3]))
    assert found.words.T.tolist() == [[4, 5, 0], [0, 1, 2]]
    assert found.lengths.tolist() == [2, 3] and found.kept.tolist() == [2, 0]
    assert corpus.batch(corpus.lengths < 3, num_steps=4).words.T.tolist() == [
        [3, 0, 0, 0],
        [4, 5, 0, 0],
    ]
    assert corpus.batch([]).words.shape == (0, 0)
    assert corpus[-1].tolist() == [4, 5]
    for place in (3, -4):
        with pytest.raises(IndexError, match="expected -3 to 2"):
            corpus[place]
        with pytest.raises(IndexError, match="expected -3 to 2"):
            corpus.batch([0, place])


@pytest.mark.parametrize(
    ("size", "name"), [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65_536, "uint16")]
)
def test_ids_have_the_smallest_type(folder, size, name):
    words = Vocabulary(["<unk>", *map(str, range(1, size))])
    corpus = TokenCorpus.from_ids(folder, [[0, size - 1]], words, **quiet)
    assert (folder / "tokens.bin").stat().st_size == 2 * np.dtype(name).itemsize
    assert corpus[0].tolist() == [0, size - 1]
    assert smallest_type(65_537).name == "uint32"


def test_texts_come_in_pieces_and_from_generators(folder):
    pieces = [["The cat sat ", "on the mat."], [], iter(["A cat", "and a dog!"]), ["Dogs"]]
    vocabulary = Vocabulary.build(TOKENS, 6)
    found = TokenCorpus.build(folder, (p for p in pieces), vocabulary=vocabulary, **quiet)
    expected = batchify(TOKENS[:4], vocabulary)
    assert torch.equal(found.batch(range(3)).words, expected.words)
    assert torch.equal(found.texts, expected.kept)


def test_another_tokenizer(folder):
    corpus = TokenCorpus.build(folder, ["a-b c", "c"], 9, tokenize=str.split, **quiet)
    assert corpus.vocabulary.words == ("<unk>", "c", "a-b")


def test_passages_are_those_of_split_passages(folder):
    corpus = built(folder, vocab_size=99)
    expected = [p for tokens in TOKENS for p in split_passages(tokens, 4, 2)]
    found = corpus.passages(4, 2)
    assert [corpus.vocabulary.decode(row) for row in found] == expected
    assert found.texts.tolist() == [0, 0, 2, 4]
    assert found.num_tokens == sum(map(len, expected))
    assert found.passages(2).passages(1).num_tokens == found.num_tokens
    for wrong in ((4, 5), (9, 9)):
        with pytest.raises(ValueError, match=r"write|Write corpus\.passages\(100"):
            corpus.passages(*wrong)


def test_a_split_is_disjoint_and_repeats(folder):
    corpus = numbered(folder, [2] * 20)
    train, valid = corpus.split(0.3, seed=1)
    assert (len(train), len(valid)) == (14, 6)
    rows = [tuple(row.tolist()) for part in (train, valid) for row in part]
    assert sorted(rows) == sorted(tuple(row.tolist()) for row in corpus)
    again, other = corpus.split(0.3, seed=1)[1], corpus.split(0.3, seed=2)[1]
    assert again.digest == valid.digest != other.digest
    assert len(corpus.split(0.001)[1]) == len(corpus.split(0.999)[0]) == 1
    for wrong in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="expected"):
            corpus.split(wrong)
    with pytest.raises(ValueError, match="two sequences or more"):
        corpus.select([0]).split()


def test_digests_tell_corpora_apart(tmp_path):
    one, same = built(tmp_path / "a"), built(tmp_path / "b")
    other = built(tmp_path / "c", TEXTS[:-1])
    assert one.digest == same.digest != other.digest
    assert one.digest != one.select([1, 0, 2, 3]).digest


# -------------------------------------------------------------------------------- minibatches


@given(st.lists(st.integers(1, 30), min_size=1, max_size=400), st.integers(1, 7), st.integers(0, 9))
def test_minibatches_hold_every_sequence_once(lengths, size, seed):
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(lengths), generator=draw)
    found = minibatches_by_length(order, torch.tensor(lengths), size)
    assert sorted(torch.cat(found).tolist()) == list(range(len(lengths)))
    assert sorted(map(len, found))[1:] == [size] * (len(found) - 1)
    flat = minibatches_by_length(order, torch.ones(len(lengths)), size)
    assert [part.tolist() for part in flat] == [part.tolist() for part in order.split(size)]


def test_minibatches_by_length_have_little_padding_in_a_random_order(folder):
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 200, 3000)
    corpus = numbered(folder, lengths)

    def cells(batches):
        return sum(int(corpus.lengths[i].max()) * len(i) for i in batches)

    sorted_ones, plain = corpus.batches(20, seed=3), corpus.batches(20, seed=3, by_length=False)
    assert cells(plain) > 1.7 * corpus.num_tokens
    assert cells(sorted_ones) < 1.06 * corpus.num_tokens
    again, other = corpus.batches(20, seed=3), corpus.batches(20, seed=4)
    assert all(map(torch.equal, sorted_ones, again))
    assert not all(map(torch.equal, sorted_ones, other))
    # The order of minibatches says nothing of their lengths: a rank correlation of more than .4
    # comes of 64 in a random order once in a thousand times.
    means = torch.stack([corpus.lengths[i].double().mean() for i in sorted_ones[:POOL]])
    ranks = means.argsort().argsort().double()
    assert abs(torch.corrcoef(torch.stack([ranks, torch.arange(float(POOL))]))[0, 1]) < 0.4


# --------------------------------------------------------------------------------- text files


LINES = '{"text": "To be."}\n\n{"text": "Or not.", "n": 1}\n'


@pytest.mark.parametrize(
    ("name", "content", "more", "expected"),
    [
        ("a.txt", "one\n\ntwo\n", {}, [["one\n"], ["\n"], ["two\n"]]),
        ("a.txt", "one\ntwo\n\n\nthree", {"unit": "paragraph"}, [["one\n", "two\n"], ["three"]]),
        ("a.txt", "one\n\ntwo", {"unit": "file"}, [["one\n", "\n", "two"]]),
        ("a.jsonl", LINES, {}, [["To be."], ["Or not."]]),
        ("a.ndjson", LINES.replace("text", "body"), {"field": "body"}, [["To be."], ["Or not."]]),
    ],
)
@pytest.mark.parametrize(("suffix", "opener"), [("", open), (".gz", gzip.open), (".xz", lzma.open)])
def test_text_files(tmp_path, name, content, more, expected, suffix, opener):
    path = tmp_path / (name + suffix)
    with opener(path, "wt", encoding="utf-8") as file:
        file.write(content)
    files = TextFiles([path, path], **more)
    for _ in range(2):
        assert [list(pieces) for pieces in files] == expected * 2


def test_text_files_that_are_wrong_are_told(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(FileNotFoundError, match=r"found no file .*a\.jsonl"):
        TextFiles(path)
    for line, found in (('{"body": "x"}', r"fields \['body'\]"), ("[1]", r"\[1\]"), ("{", "JSON")):
        path.write_text('{"text": "x"}\n' + line)
        with pytest.raises(ValueError, match=f"{found}.*line 2"):
            list(TextFiles(path))
    with pytest.raises(ValueError, match="expected one of"):
        TextFiles(path, unit="word")
    packed = tmp_path / "a.txt.gz"
    packed.write_bytes(gzip.compress(b"word\n" * 9999)[:-9])
    with pytest.raises(ValueError, match="EOFError"):
        list(TextFiles(packed))
    packed.write_bytes(gzip.compress(b"x" * 2**23))
    with pytest.raises(ValueError, match=r"too much text .*line 1, expected at most 4,194,304"):
        list(TextFiles(packed))


# ----------------------------------------------------------------------------------- counting


@given(st.lists(st.lists(st.sampled_from("abcdefghijkl"), max_size=9), max_size=30), st.data())
def test_counts_in_bounded_memory(lists, data):
    most, number = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 5))
    counts, true = WordCounts(most), Counter(word for words in lists for word in words)
    for words in lists:
        counts.add(words)
        assert len(counts) <= most
    for word, n in true.items():
        kept = counts._counts.get(word)
        if kept is None:
            assert n <= counts.forgotten
        else:
            assert kept <= n <= kept + counts._missed.get(word, 0)
    chosen = counts.most_frequent(number)
    others = [n for word, n in true.items() if word not in chosen]
    if counts.is_certain(chosen, number):
        assert not others or not chosen or min(true[w] for w in chosen) >= max(others)
    if most >= len(true):
        assert counts.is_certain(chosen, number)


def test_a_vocabulary_that_may_not_be_the_right_one_is_told(folder):
    texts = ["a a a b", "c d e f g", "b b h i j"]
    with pytest.warns(UserWarning, match=r"more different words than the 4 .*larger max_words"):
        built(folder, texts, 5, max_words=4)


def test_frequent_words_are_certain_in_little_memory(folder):
    texts = [f"the of w{'abcdefghij'[i % 10]}{'abcdefghij'[i // 10]}" for i in range(100)]
    corpus = built(folder, texts, 3, max_words=20)  # no warning
    assert set(corpus.vocabulary.words) == {"<unk>", "the", "of"}


# ------------------------------------------------------------------------- whole or not there


def test_what_is_there_is_not_written_over(folder):
    built(folder)
    before = digest_of_folder(folder)
    with pytest.raises(FileExistsError, match=r"found a corpus .*TokenCorpus\.open"):
        built(folder)
    with pytest.raises(FileExistsError, match="found a corpus"):
        TokenCorpus.from_ids(folder, [[1]], Vocabulary(["<unk>", "a"]), **quiet)
    assert digest_of_folder(folder) == before
    assert {"corpus.json", "tokens.bin", "offsets.bin", "vocabulary.json"} == before.keys()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_build_that_fails_leaves_nothing(tmp_path, error):
    def texts():
        yield "one two"
        raise error("stop")

    with pytest.raises(error, match="stop"):
        TokenCorpus.build(tmp_path / "c", texts(), vocabulary=Vocabulary(["<unk>"]), **quiet)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="without a single word"):
        TokenCorpus.build(tmp_path / "c", ["...", ""], 5, **quiet)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("which", range(5))
def test_a_full_disk_leaves_nothing(tmp_path, which):
    with full_disk(after=which), pytest.raises(OSError, match="No space left"):
        built(tmp_path / "c")
    assert not (tmp_path / "c").exists() or TokenCorpus.open(tmp_path / "c").num_tokens == 17
    assert len(list(tmp_path.iterdir())) <= 1


KILLED = """
import os, signal, sys
from pyro_ssl.datasets import TokenCorpus, Vocabulary
def texts():
    yield "one two " * 10**6
    os.kill(os.getpid(), signal.SIGKILL)
TokenCorpus.build(sys.argv[1], texts(), vocabulary=Vocabulary(["<unk>"]), disable_progbar=True)
"""


@pytest.mark.stage("system")
def test_a_build_that_is_killed_starts_again(folder):
    done = subprocess.run([sys.executable, "-c", KILLED, folder], cwd=os.getcwd())
    assert done.returncode == -signal.SIGKILL
    (left,) = folder.parent.iterdir()
    assert left.name.endswith(".filling") and not folder.exists()
    with pytest.raises(CheckpointError, match="start it again"):
        TokenCorpus.open(folder)
    corpus = built(folder)
    assert [file.name for file in folder.parent.iterdir()] == ["corpus"] and len(corpus) == 4


def test_two_builds_at_once_do_not_meet(folder):
    def texts():
        yield TEXTS[0]
        inner.append(built(folder))
        yield TEXTS[2]

    inner = []
    with pytest.raises(OSError, match="corpus"):
        TokenCorpus.build(folder, texts(), vocabulary=Vocabulary(["<unk>"]), **quiet)
    assert TokenCorpus.open(folder).digest == inner[0].digest
    assert [file.name for file in folder.parent.iterdir()] == ["corpus"]


# ------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("how", ["flip", "cut", "longer", "gone"])
@pytest.mark.parametrize("name", ["corpus.json", "tokens.bin", "offsets.bin", "vocabulary.json"])
def test_damage_is_told(folder, name, how):
    built(folder)
    file = folder / name
    if how == "gone":
        file.unlink()
    elif how == "longer":
        file.write_bytes(file.read_bytes() + b"x")
    else:
        damage(file, how)
    with pytest.raises(CheckpointError, match="corpus|TokenCorpus"):
        TokenCorpus.open(folder)


def test_damage_that_was_not_looked_for_is_told_where_it_is_read(folder):
    built(folder)
    (folder / "tokens.bin").write_bytes(b"\xff" * 17)
    corpus = TokenCorpus.open(folder, verify=False)
    with pytest.raises(CheckpointError, match="found id 255 in its files, expected 0 to 5"):
        corpus.batch([0])
    with pytest.raises(CheckpointError, match="found id 255"):
        corpus[0]


def test_a_newer_format_is_told(folder):
    built(folder)
    header = json.loads((folder / "corpus.json").read_text())
    (folder / "corpus.json").write_text(json.dumps(header | {"format": 9}))
    with pytest.raises(CheckpointError, match="found a corpus of format 9, expected 1 at most"):
        TokenCorpus.open(folder)


# ---------------------------------------------------------------------------------- arguments


def test_wrong_arguments_are_told_before_anything_is_written(tmp_path):
    words = Vocabulary(["<unk>", "a"])
    wrong = [
        (TypeError, "only once", lambda f: built(f, iter(TEXTS))),
        (TypeError, "for a single one", lambda f: built(f, "a text")),
        (TypeError, "among the texts", lambda f: built(f, [3])),
        (TypeError, "list of words", lambda f: built(f, tokenize=lambda text: text)),
        (ValueError, "expected one of them", lambda f: built(f, vocabulary=words)),
        (ValueError, "expected one of them", lambda f: built(f, vocab_size=None)),
        (ValueError, "expected 1 or more", lambda f: built(f, vocab_size=0)),
        (IndexError, "row 1 of shape", lambda f: TokenCorpus.from_ids(f, [[1], [2]], words)),
        (IndexError, "row 0 of shape", lambda f: TokenCorpus.from_ids(f, [[-1]], words)),
        (IndexError, "row 0 of shape", lambda f: TokenCorpus.from_ids(f, [[[1]]], words)),
        (ValueError, "whole numbers", lambda f: TokenCorpus.from_ids(f, [[0.5]], words)),
        (TypeError, "expected a path", lambda f: built(3)),
    ]
    for error, match, call in wrong:
        with pytest.raises(error, match=match):
            call(tmp_path / "c")
        assert not list(tmp_path.iterdir())
