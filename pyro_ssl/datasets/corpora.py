"""The corpus that is always there: CPython's language reference, as ``help()`` shows it.

No file, no network. Another text becomes a :class:`Corpus` by the same three steps: passages, a
vocabulary of the training part, :func:`~pyro_ssl.datasets.batchify`.
"""

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .arguments import generator
from .batch import TextBatch, batchify
from .text import Vocabulary, split_passages, tokenize

__all__ = ["Corpus", "corpus_of", "load_python_docs"]


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text in three parts, with the vocabulary of the first.

    :param str name: What it is, and of which version.
    :param Vocabulary vocabulary: The most frequent words of ``train``.
    :param TextBatch train: Passages to learn from.
    :param TextBatch valid: Passages to choose by.
    :param TextBatch test: Passages to report.
    """

    name: str
    vocabulary: Vocabulary
    train: TextBatch
    valid: TextBatch
    test: TextBatch

    def describe(self) -> str:
        """Say in four lines how much there is of what."""
        return describe_parts(self, "passages")


def describe_parts(corpus: Any, unit: str) -> str:
    """Say how much there is of what, in a corpus or a split of the same form."""
    lines = [f"{corpus.name}; {len(corpus.vocabulary):,} words in the vocabulary"]
    for part in ("train", "valid", "test"):
        batch: TextBatch = getattr(corpus, part)
        lines.append(
            f"  {part:5} {len(batch.lengths):>6,} {unit} {batch.num_tokens:>10,} words "
            f"{batch.unknown_rate:>6.1%} unknown"
        )
    return "\n".join(lines)


def load_python_docs(
    vocab_size: int = 2000,
    passage_length: int = 100,
    *,
    min_length: int = 20,
    seed: int = 0,
) -> Corpus:
    """Load the built-in corpus: about 50,000 words of prose and code on some 60 topics.

    It is cut into passages, of which a fixed random tenth is ``valid`` and another ``test``. The
    topics repeat one another: that of compound statements holds that of ``for``, word for word. A
    paragraph is kept only where it stands first, longer topics before shorter ones; otherwise a
    fifth of the held-out text would be known from training. Grammar productions (``::=``) are left
    out. The text differs from one version of Python to the next, and perplexities with it:
    :attr:`Corpus.name` tells the version.

    :param int vocab_size: V, ``"<unk>"`` included: the most frequent words of the training part.
    :param int passage_length: T, the words in a passage.
    :param int min_length: The end of a topic is dropped where it is shorter than this.
    :param int seed: Of the split, which has a generator of its own.
    :raises ImportError: if this Python came without its topics.
    :raises ValueError: if there are fewer than 10 passages, or an argument is out of range.

    **Example**::

        >>> from pyro_ssl.datasets import load_python_docs
        >>> corpus = load_python_docs()
        >>> corpus.train.words.shape[0], len(corpus.vocabulary)
        (100, 2000)
        >>> "iterator" in corpus.vocabulary
        True
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ImportError(
            "load_python_docs: found no pydoc_data.topics, which CPython ships. Install the full "
            "standard library, or bring your own texts: "
            "batchify([tokenize(text) for text in texts], vocabulary)."
        ) from error
    name = f"Language reference of Python {platform.python_version()}"
    sizes = (vocab_size, passage_length, min_length, seed)
    return corpus_of(topics, name, "load_python_docs", *sizes)


def corpus_of(
    documents: Mapping[str, str],
    name: str,
    caller: str,
    vocab_size: int,
    passage_length: int,
    min_length: int,
    seed: int,
) -> Corpus:
    """Cut documents into passages, free of paragraphs that stand elsewhere, and split these.

    :param documents: texts by their names.
    :raises ValueError: if there are fewer than 10 passages; it names ``caller``.
    """
    passages = []
    for document in _without_repeats(documents):
        passages += split_passages(document, passage_length, min_length)

    draw = generator(seed, caller)
    order = torch.randperm(len(passages), generator=draw, device="cpu").tolist()
    shuffled = [passages[i] for i in order]
    if (tenth := len(shuffled) // 10) < 1:
        raise ValueError(
            f"{caller}: found {len(shuffled)} passages of {min_length} to {passage_length} "
            "words, expected 10 or more. Write a shorter passage_length, or a smaller min_length."
        )
    valid, test, train = shuffled[:tenth], shuffled[tenth : 2 * tenth], shuffled[2 * tenth :]
    vocabulary = Vocabulary.build(train, vocab_size)
    return Corpus(
        name=name,
        vocabulary=vocabulary,
        train=batchify(train, vocabulary),
        valid=batchify(valid, vocabulary),
        test=batchify(test, vocabulary),
    )


def _without_repeats(topics: Mapping[str, str]) -> list[list[str]]:
    """Tokenise each topic, without grammar and without paragraphs that stand elsewhere already."""
    seen: set[tuple[str, ...]] = set()
    documents = []
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        document: list[str] = []
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            tokens = tuple(tokenize(paragraph))
            if "::=" not in paragraph and tokens not in seen:
                seen.add(tokens)
                document += tokens
        documents.append(document)
    return documents
