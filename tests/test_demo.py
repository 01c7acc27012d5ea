"""The demonstration runs, prints what it found, and writes a page that needs nothing else."""

import re
from functools import partialmethod

import pytest
import torch

from pyro_ssl.datasets import Corpus, load_python_docs
from pyro_ssl.demo import builtin, cli, imdb, main
from pyro_ssl.demo.cli import _parser
from pyro_ssl.demo.scores import (
    perplexity,
    perplexity_of_probs_as_logits,
    same_topics,
    topic_difference,
    typical_words,
    unigram_probs,
)
from pyro_ssl.models import TopicalSSL

TINY = ["--topics=3", "--hidden=4", "--particles=2", "--epochs=2"]


@pytest.fixture
def quick(monkeypatch):
    quick_fit = partialmethod(TopicalSSL.fit, markov_steps=20, markov_starts=1, transition_steps=2)
    quick_transform = partialmethod(TopicalSSL.transform, num_samples=3, warmup_steps=1)
    monkeypatch.setattr(TopicalSSL, "fit", quick_fit)
    monkeypatch.setattr(TopicalSSL, "transform", quick_transform)


@pytest.fixture
def tiny_corpus():
    torch.set_default_dtype(torch.float32)
    corpus = load_python_docs(vocab_size=100, passage_length=20)
    few = range(4)
    return Corpus(
        "A <tiny> text",
        corpus.vocabulary,
        *(getattr(corpus, part).select(few) for part in ("train", "valid", "test")),
    )


@pytest.mark.stage("system")
def test_builtin_demo_prints_and_writes_a_page(quick, tiny_corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(builtin, "load_python_docs", lambda: tiny_corpus)
    out = tmp_path / "new" / "folder"
    main([*TINY, f"--out={out}"])

    printed = capsys.readouterr().out
    assert printed.startswith("A <tiny> text; 100 words")
    assert re.search(r"^unigram +\d+\.\d +0\.0%", printed, re.MULTILINE)
    assert re.search(r"^exact HMM, 3 states +\d+\.\d +-?\d+\.\d%  +\+0\.0%", printed, re.MULTILINE)
    assert re.search(r"^SSL, 3 topics +\d+\.\d", printed, re.MULTILINE)
    assert (
        len(re.findall(r"^ +\d +\d+\.\d +\d+\.\d +(nan|\d+\.\d)% +\d", printed, re.MULTILINE)) == 2
    )
    early = printed[printed.index("content words, so far:") : printed.index("  epoch ")]
    assert len(re.findall(r"^ +\d +\d+\.\d%  \S+(?: \S+){7}$", early, re.MULTILINE)) in (1, 2, 3)
    content = re.findall(
        r"^ +\d +\d+\.\d% +(?:-?\d\.\d\d|nan)  \S+(?: \S+){7}$", printed, re.MULTILINE
    )
    glue = re.findall(r"^ +\d +\d+\.\d% {9,}\S+(?: \S+){7}$", printed, re.MULTILINE)
    assert len(content) + len(glue) == 3 and "<unk>" not in " ".join(content + glue)
    assert re.search(r"^  A: \.\.\. (\S+ ){9}-> \S+$", printed, re.MULTILINE)
    distance, typical = re.search(
        r"differ by (\d\.\d\d)[^;]*; their mean is (\d\.\d\d)", printed
    ).groups()
    assert 0.0 <= float(typical) <= float(distance) <= 1.0
    assert "chosen on the validation text" in " ".join(printed.split())

    assert sorted(path.name for path in out.iterdir()) == [
        "index.html",
        "perplexity.png",
        "topic_path.png",
        "topics.png",
    ]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "A &lt;tiny&gt; text" in page
    assert page.count('class="topic"') == len(content) and page.count("<h3>Glue</h3>") == bool(glue)
    assert page.count('class="passage"') == 3 + 2  # and two histories, of nine words and the next
    lengths = sorted(tiny_corpus.test.lengths.tolist())[-3:]
    assert page.count("data-tip=") == sum(lengths) + 2 * 10
    assert page.count("<svg") == 3 and "<img" not in page
    assert f"differ by <b>{distance}</b>" in page and f"their mean is {typical}," in page
    assert "http" not in page and "$" not in page  # nothing from outside, nothing unfilled


def test_the_text_that_is_asked_for_is_read(tiny_corpus, monkeypatch):
    read = []
    monkeypatch.setattr(cli, "run_builtin", lambda args, corpus: read.append(corpus))
    monkeypatch.setattr(cli, "load_library_docs", lambda: tiny_corpus)
    main([])
    main(["--data=library"])
    assert read == [None, tiny_corpus]


@pytest.mark.stage("system")
def test_looking_at_the_test_text_changes_nothing(quick, tiny_corpus, tmp_path, monkeypatch):
    fits = []
    for look in (True, False):
        if not look:
            monkeypatch.setattr(builtin, "score_aside", lambda *args, **kwargs: 1.0)
        args = _parse([*TINY, f"--out={tmp_path}"])
        torch.manual_seed(0)
        fits.append(builtin.run(args, tiny_corpus))
    assert torch.equal(fits[0].phi, fits[1].phi)
    assert fits[0].test_curve != fits[1].test_curve == [1.0, 1.0]


@pytest.mark.stage("system")
def test_imdb_demo(quick, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(imdb, "choose_markov_steps", lambda ssl, words: 3)
    torch.set_default_dtype(torch.float32)
    words = [f"w{'abcdefgh'[i]}" for i in range(8)]
    for label in ("neg", "pos"):
        folder = tmp_path / "train" / label
        folder.mkdir(parents=True)
        for number in range(4):
            text = " ".join(words[i] for i in torch.randint(8, (175,)).tolist())
            (folder / f"{number}_3.txt").write_text(text)
    main([*TINY, "--data=imdb", f"--path={tmp_path}", "--reviews=6", "--seeds=2"])

    printed = capsys.readouterr().out
    assert "6 reviews of 170 words; learn from the first 100" in printed
    assert len(re.findall(r"epoch +\d +perplexity \d+\.\d", printed)) == 4
    unigram, hmm, ssl = (
        re.search(rf"^{name} +([\d.]+)( ± [\d.]+)? +([\d.]+)", printed, re.MULTILINE)
        for name in ("unigram", "exact HMM", "SSL")
    )
    assert unigram[2] is None and hmm[2] is not None and ssl[2] is not None
    for row in (unigram, hmm, ssl):  # eight words, drawn alike
        assert float(row[1]) == pytest.approx(8.0, abs=1.5)


def test_imdb_demo_needs_a_path():
    with pytest.raises(SystemExit, match="--path"):
        main(["--data", "imdb"])


def test_markov_steps_are_chosen_within_the_training_text():
    words = torch.randint(6, (10, 4))
    steps = imdb.choose_markov_steps(TopicalSSL(2, 6, hidden_size=4), words, most=3)
    assert steps in (1, 2, 3)


def test_perplexities():
    probs = unigram_probs(torch.tensor([[0, 1], [1, 1]]), 4)
    assert torch.allclose(probs, torch.tensor([2, 4, 1, 1]) / 8.0)
    assert perplexity(torch.full((2, 3), 0.25).log()) == pytest.approx(4.0)


def test_probabilities_as_logits_by_its_definition():
    p = torch.distributions.Dirichlet(torch.ones(500)).sample((7,))
    x = torch.randint(500, (7,))
    theirs = torch.nn.functional.cross_entropy(p, x).exp()
    ours = perplexity_of_probs_as_logits(p[torch.arange(7), x].log(), 500)
    assert ours == pytest.approx(float(theirs), rel=1e-5)


def test_topic_difference_by_hand():
    phi = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    occupancy = torch.tensor([0.25, 0.25, 0.5])
    # Pairs: (0, 1) are equal, weight 1/16; (0, 2) and (1, 2) are disjoint, weight 1/8 each.
    difference = topic_difference(phi, occupancy, num_words=1)
    assert difference.divergence == pytest.approx(0.25 / 0.3125)
    assert difference.unique == pytest.approx(1 / 3)
    assert typical_words(phi.clamp(min=1e-6), occupancy, num_words=1)[2].tolist() == [2]


def test_same_topics_differ_little():
    probs = torch.full((20,), 0.05)
    few, many = (same_topics(probs, torch.ones(4) / 4, n, 0.1) for n in (40, 40_000))
    assert torch.allclose(many.sum(-1), torch.ones(4))
    differences = [topic_difference(phi, torch.ones(4)).divergence for phi in (few, many)]
    assert differences[1] < 0.001 < differences[0]


def _parse(argv):
    return _parser().parse_args(argv)
