import gzip
import lzma
import os
from pathlib import Path

import pytest

from pyro_ssl.datasets import Vocabulary, batchify, load_wikitext2, split_passages

LINES = [
    "",
    "= Ada =",
    "",
    "She wrote <unk> .",
    "",
    "= = Legend = =",
    "",
    "Wins , L",  # a table's legend, as the real files have them
    "= Losses , D =",
    "Draws",
    "",
    "= Bob = = x =",
    "",
    "So .",
    "= Cut",
    "",
    "= E = mc2 =",
    "",
]
ARTICLES = [
    "<eos> = Ada = <eos> <eos> She wrote <unk> . <eos> <eos> = = Legend = = <eos> <eos> "
    "Wins , L <eos> = Losses , D = <eos> Draws <eos> <eos>",
    "= Bob = = x = <eos> <eos> So . <eos> = Cut <eos> <eos>",
    "= E = mc2 = <eos> <eos>",
]
ARTICLES = [article.split() for article in ARTICLES]
OPENERS = {"": open, ".gz": gzip.open, ".xz": lzma.open}


def write(path, lines=LINES):
    path.parent.mkdir(exist_ok=True)
    with OPENERS.get(path.suffix, open)(path, "wt", encoding="utf-8") as file:
        file.writelines(f" {line} \n" for line in lines)


@pytest.mark.parametrize("suffix", OPENERS)
@pytest.mark.parametrize("name", ["wiki.{}.tokens", "{}.txt", "wikitext-2/wiki.{}.tokens"])
def test_packagings(tmp_path, name, suffix):
    for split, lines in (("train", LINES), ("valid", LINES[10:]), ("test", LINES[15:])):
        write(tmp_path / (name.format(split) + suffix), lines)
    assert load_wikitext2(tmp_path) == ARTICLES
    assert load_wikitext2(str(tmp_path), "valid") == [["<eos>", *ARTICLES[1]], ARTICLES[2]]
    test_file = tmp_path / (name.format("test") + suffix)
    assert load_wikitext2(test_file, "test") == [["<eos>", *ARTICLES[2]]]


def test_a_file_without_blank_lines_at_its_ends(tmp_path):
    write(tmp_path / "train.txt", LINES[1:-1])
    articles = load_wikitext2(tmp_path)
    assert articles == [ARTICLES[0][1:], ARTICLES[1], ARTICLES[2][:-1]]


def test_limit(tmp_path):
    write(tmp_path / "train.txt")
    assert load_wikitext2(tmp_path, limit=2) == ARTICLES[:2]
    assert load_wikitext2(tmp_path, limit=9) == ARTICLES


def test_every_line_has_one_end(tmp_path):
    write(tmp_path / "train.txt")
    tokens = [token for article in load_wikitext2(tmp_path) for token in article]
    assert tokens.count("<eos>") == len(LINES)
    assert len(tokens) == len(" ".join(LINES).split()) + len(LINES)


def test_unknown_words_have_id_zero(tmp_path):
    write(tmp_path / "train.txt")
    articles = load_wikitext2(tmp_path)
    batch = batchify(articles, Vocabulary.build(articles, 100))
    assert batch.num_unknown == 1
    assert batch.words[8, 0] == 0
    assert articles[0][8] == "<unk>"


class TestErrorsTeach:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"wiki.valid.tokens or valid.txt.*fetch_wikit"):
            load_wikitext2(tmp_path, "valid")

    def test_the_other_split(self, tmp_path):
        write(tmp_path / "wiki.valid.tokens")
        with pytest.raises(ValueError, match=r"load_wikitext2\(path, split='valid'\)"):
            load_wikitext2(tmp_path / "wiki.valid.tokens")

    def test_another_text(self, tmp_path):
        write(tmp_path / "train.txt", ["no title", "= here =", "at all"])
        with pytest.raises(ValueError, match="found no line '= Title =' between blank lines"):
            load_wikitext2(tmp_path)

    def test_arguments(self, tmp_path):
        with pytest.raises(ValueError, match="found split='dev', expected 'train', 'valid' or"):
            load_wikitext2(tmp_path, "dev")
        with pytest.raises(ValueError, match="found limit=0"):
            load_wikitext2(tmp_path, limit=0)


@pytest.fixture
def published_folder():
    folder = Path(os.environ.get("PYRO_SSL_DATA", "."), "wikitext2")
    if not folder.exists():
        pytest.skip("PYRO_SSL_DATA names no folder that holds wikitext2")
    return folder


@pytest.mark.parametrize(
    ("split", "num_articles", "num_tokens"),
    [("train", 600, 2_088_628), ("valid", 60, 217_646), ("test", 60, 245_569)],
)
def test_published_counts(published_folder, split, num_articles, num_tokens):
    articles = load_wikitext2(published_folder, split)
    assert len(articles) == num_articles
    assert sum(map(len, articles)) == num_tokens
    passages = [passage for article in articles for passage in split_passages(article, 100)]
    assert sum(map(len, passages)) == num_tokens
