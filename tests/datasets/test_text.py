import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_ssl.datasets import (
    UNKNOWN,
    TextBatch,
    UnknownWordsWarning,
    Vocabulary,
    batchify,
    split_passages,
    tokenize,
)

TEXTS = ["the cat sat on the mat", "", "a cat and a dog", "dogs"]
TOKENS = [text.split() for text in TEXTS]

words = st.text("abcdefgh", min_size=1, max_size=3)
documents = st.lists(st.lists(words, max_size=9), max_size=6)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("The CAT, the *mat*!", ["the", "cat", "the", "mat"]),
        ("don't isn\N{RIGHT SINGLE QUOTATION MARK}t 'quoted' dogs'", "don't isn't quoted dogs"),
        ("__init__ target_list _x_ x__y ___", "init target_list x x__y"),
        ("1 2.5 2nd 1st_place 0x1f utf8 b52", "place utf8 b52"),
        ("well-made\nfilm...no", "well made film no"),
        ("Été ΑΒΓ naïve", "été αβγ naïve"),
    ],
)
def test_tokenize(text, tokens):
    assert tokenize(text) == (tokens.split() if isinstance(tokens, str) else tokens)


@pytest.mark.stage("system")
@given(st.text())
def test_tokens_are_words_again(text):
    tokens = tokenize(text)
    assert tokenize(" ".join(tokens)) == tokens


def test_split_passages():
    assert split_passages(list("abcdefg"), 3) == [list("abc"), list("def"), ["g"]]
    assert split_passages(list("abcdefg"), 3, min_length=2) == [list("abc"), list("def")]
    assert split_passages(list("ab"), 3, min_length=3) == []
    assert split_passages([], 3) == []


@pytest.mark.parametrize(("length", "min_length"), [(0, 0), (3, 0), (3, 4)])
def test_split_passages_refuses_lengths(length, min_length):
    with pytest.raises(ValueError, match="expected 1 <= min_length <= length"):
        split_passages(["a"], length, min_length)


@given(st.lists(words), st.integers(1, 5), st.integers(1, 5))
def test_split_passages_loses_only_a_short_end(tokens, a, b):
    min_length, length = sorted((a, b))
    joined = [token for passage in split_passages(tokens, length, min_length) for token in passage]
    assert joined == tokens[: len(joined)]
    assert len(tokens) - len(joined) < min_length


class TestVocabulary:
    def test_most_frequent_words_then_alphabet(self):
        vocabulary = Vocabulary.build(TOKENS, size=4)
        assert vocabulary.words == (UNKNOWN, "a", "cat", "the")
        assert len(vocabulary) == 4

    def test_size_counts_the_unknown_word(self):
        assert Vocabulary.build(TOKENS, size=1).words == (UNKNOWN,)
        assert len(Vocabulary.build(TOKENS, size=100)) == 10
        assert Vocabulary.build([], size=5).words == (UNKNOWN,)

    def test_unknown_word_in_the_text(self):
        vocabulary = Vocabulary.build([[UNKNOWN] * 9 + ["a"]], size=3)
        assert vocabulary.words == (UNKNOWN, "a")
        assert vocabulary.encode([UNKNOWN, "a", "b"]) == [0, 1, 0]

    @given(documents, st.randoms(use_true_random=False))
    def test_order_of_the_text_is_no_matter(self, token_lists, random):
        shuffled = random.sample(token_lists, len(token_lists))
        assert Vocabulary.build(token_lists, 5) == Vocabulary.build(shuffled, 5)

    @given(documents)
    def test_decode_undoes_encode(self, token_lists):
        vocabulary = Vocabulary.build(token_lists, 100)
        for tokens in token_lists:
            ids = vocabulary.encode(tokens)
            assert vocabulary.decode(ids) == tokens
            assert vocabulary.decode(torch.tensor(ids, dtype=torch.long)) == tokens

    def test_contains(self):
        vocabulary = Vocabulary([UNKNOWN, "cat"])
        assert "cat" in vocabulary
        assert UNKNOWN in vocabulary
        assert "dog" not in vocabulary

    @pytest.mark.parametrize("wrong", [-1, 2])
    def test_decode_refuses_ids(self, wrong):
        with pytest.raises(IndexError, match=f"found id {wrong}, expected 0 to 1"):
            Vocabulary([UNKNOWN, "cat"]).decode([1, wrong])

    def test_save_and_load(self, tmp_path):
        vocabulary = Vocabulary([UNKNOWN, "été", 'a"b'])
        vocabulary.save(tmp_path / "words.json")
        assert Vocabulary.load(tmp_path / "words.json") == vocabulary

    @pytest.mark.parametrize("content", ["", "[1]", "{}", '{"words": [1]}', '{"words": 3}'])
    def test_load_refuses_other_files(self, tmp_path, content):
        (tmp_path / "words.json").write_text(content)
        with pytest.raises(ValueError, match=r"Write it with vocabulary\.save"):
            Vocabulary.load(tmp_path / "words.json")

    def test_load_refuses_other_words(self, tmp_path):
        (tmp_path / "words.json").write_text(json.dumps({"words": ["cat"]}))
        with pytest.raises(ValueError, match="found .*cat.* at id 0"):
            Vocabulary.load(tmp_path / "words.json")

    def test_refuses_words_twice(self):
        with pytest.raises(ValueError, match="found 'cat' 2 times"):
            Vocabulary([UNKNOWN, "cat", "cat"])

    def test_refuses_size_zero(self):
        with pytest.raises(ValueError, match="found size=0, expected 1 or more"):
            Vocabulary.build(TOKENS, size=0)


class TestBatchify:
    vocabulary = Vocabulary([UNKNOWN, "cat", "the", "a", "and", "dog", "dogs", "on"])

    def test_lays_out_time_first(self):
        batch = batchify(TOKENS, self.vocabulary)
        expected = [[2, 1, 0, 7, 2, 0], [3, 1, 4, 3, 5, 0], [6, 0, 0, 0, 0, 0]]
        assert batch.words.T.tolist() == expected
        assert batch.lengths.tolist() == [6, 5, 1]
        assert batch.kept.tolist() == [0, 2, 3]
        assert batch.truncated.tolist() == [0, 0, 0]
        assert {t.dtype for t in (batch.words, batch.lengths, batch.kept)} == {torch.int64}

    def test_counts_words_and_not_padding(self):
        batch = batchify(TOKENS, self.vocabulary)
        assert batch.num_tokens == 12
        assert batch.num_unknown == 2
        assert batch.unknown_rate == 2 / 12
        assert batch.mask.sum(0).tolist() == batch.lengths.tolist()

    def test_max_len_is_told(self):
        batch = batchify(TOKENS, self.vocabulary, max_len=2)
        assert batch.words.T.tolist() == [[2, 1], [3, 1], [6, 0]]
        assert batch.lengths.tolist() == [2, 2, 1]
        assert batch.truncated.tolist() == [4, 3, 0]

    def test_no_texts(self):
        batch = batchify([], self.vocabulary)
        assert batch.words.shape == (0, 0)
        assert batch.words.dtype == batch.lengths.dtype == torch.int64
        assert (batch.num_tokens, batch.num_unknown, batch.unknown_rate) == (0, 0, 0)
        assert batch.select([]).words.shape == (0, 0)

    def test_only_empty_texts(self):
        with pytest.raises(ValueError, match="found 2 texts without a single word"):
            batchify([[], []], self.vocabulary)

    def test_refuses_max_len_zero(self):
        with pytest.raises(ValueError, match="found max_len=0, expected 1 or more"):
            batchify(TOKENS, self.vocabulary, max_len=0)

    def test_warns_of_a_foreign_vocabulary(self):
        with pytest.warns(UnknownWordsWarning, match="found 75% of 4 words outside"):
            batchify([["x", "y"], ["z", "cat"]], self.vocabulary)

    def test_select(self):
        batch = batchify(TOKENS, self.vocabulary)
        chosen = batch.select([2, 0])
        assert chosen.words.equal(batch.words[:, [2, 0]])
        assert chosen.kept.tolist() == [3, 0]
        assert chosen.num_unknown == 2
        assert batch.select(batch.lengths > 1).kept.tolist() == [0, 2]
        assert batch.select([]).words.shape == (6, 0)

    def test_to_device(self, device):
        batch = batchify(TOKENS, self.vocabulary, device=device)
        tensors = (batch.words, batch.lengths, batch.kept, batch.truncated, batch.mask)
        assert {tensor.device.type for tensor in tensors} == {device.type}
        assert batch.select([0]).num_unknown == 2
        assert isinstance(batch.to("cpu"), TextBatch)

    def test_to_moves_every_tensor(self):
        batch = batchify(TOKENS, self.vocabulary).to("meta")
        tensors = (batch.words, batch.lengths, batch.kept, batch.truncated)
        assert all(tensor.is_meta for tensor in tensors)

    def test_repr(self):
        batch = batchify(TOKENS, self.vocabulary)
        assert repr(batch) == "TextBatch(T=6, B=3, 12 words, 16.7% unknown, device=cpu)"

    @given(documents)
    def test_columns_are_the_texts(self, token_lists):
        if token_lists and not any(token_lists):
            return
        vocabulary = Vocabulary.build(token_lists, 100)
        batch = batchify(token_lists, vocabulary)
        for column, place in enumerate(batch.kept.tolist()):
            ids = batch.words[: batch.lengths[column], column]
            assert vocabulary.decode(ids) == token_lists[place]
        assert batch.num_unknown == 0


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: Vocabulary.build(TEXTS, 5), "Vocabulary.build([tokenize(text) for text in texts]"),
        (lambda: Vocabulary.build("a", 5), "Vocabulary.build([tokenize(text) for text in texts]"),
        (lambda: batchify(TEXTS, Vocabulary([UNKNOWN])), "batchify([tokenize(text) for text in"),
        (lambda: Vocabulary([UNKNOWN]).encode("a cat"), "vocabulary.encode(tokenize(text))"),
        (lambda: split_passages("a cat", 2), "split_passages(tokenize(text), length)"),
    ],
)
def test_raw_text_is_refused_with_the_line_to_write(call, line):
    with pytest.raises(TypeError) as caught:
        call()
    assert line in str(caught.value)
