"""WikiText-2: Wikipedia articles, in the word-level files that language models are compared on.

*Reference*: Merity, Xiong, Bradbury, Socher, "Pointer Sentinel Mixture Models", ICLR 2017.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise
from typing import Literal

from .files import (
    as_path,
    check_limit,
    check_split,
    find_file,
    named_for_other_split,
    open_text,
)

__all__ = ["load_wikitext2"]

_SPLITS = ("train", "valid", "test")


def load_wikitext2(
    path: str | os.PathLike[str],
    split: Literal["train", "valid", "test"] = "train",
    *,
    limit: int | None = None,
) -> list[list[str]]:
    """Read the articles of WikiText-2 (Merity et al. 2017) from disk.

    Each article is the list of its words, as they stand on file, and one ``"<eos>"`` for the end of
    each line, the blank ones included: all in all 2,088,628 (train), 217,646 (valid) and 245,569
    (test) tokens, the published counts. ``"<unk>"``, which stands on file for rare words, has id 0
    in every :class:`~pyro_ssl.datasets.Vocabulary`. Pass each article to
    :func:`~pyro_ssl.datasets.split_passages`.

    An article starts at a line ``= Title =`` between two blank lines. The blank lines tell titles
    from table legends such as ``= Losses , D =``; so read, there are the published 600, 60 and 60
    articles. Section titles have two or more ``=`` on each side. What stands ahead of the first
    title belongs to the first article.

    :param path: The folder of ``wiki.train.tokens``, ``wiki.valid.tokens``, ``wiki.test.tokens``,
        or of ``train.txt``, ``valid.txt``, ``test.txt``; or the folder that holds this one under
        the name ``wikitext-2``; or one file. Each may be plain or ``.gz`` or ``.xz``.
    :param str split: ``"train"``, ``"valid"`` or ``"test"``.
    :param int limit: At most so many articles, the first ones.
    :raises FileNotFoundError: if there is no such file, or it is not clear which one is meant.
    :raises ValueError: if the file is of another split, has no article in it, or is damaged.

    **Example**::

        >>> import pathlib, tempfile
        >>> from pyro_ssl.datasets import load_wikitext2
        >>> text = " \\n = Ada = \\n \\n A <unk> . \\n \\n = Bob = \\n \\n So . \\n"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = pathlib.Path(folder, "wiki.train.tokens").write_text(text)
        ...     first, second = load_wikitext2(folder)
        >>> " ".join(second)
        '= Bob = <eos> <eos> So . <eos>'
    """
    return list(islice(read_articles(path, split), check_limit(limit, "load_wikitext2")))


def read_articles(path: str | os.PathLike[str], split: str) -> Iterator[list[str]]:
    """Read the articles one by one; see :func:`load_wikitext2`."""
    check_split(split, _SPLITS, "load_wikitext2")
    names = (f"wiki.{split}.tokens", f"{split}.txt")
    file = find_file(
        as_path(path, "load_wikitext2"),
        [folder + name for folder in ("", "wikitext-2/") for name in names],
        "load_wikitext2",
        f"Expected a folder that holds {names[0]} or {names[1]}, plain or .gz or .xz, or the path "
        "of that file. Write load_wikitext2('path/to/wikitext-2'), or fetch it: "
        "load_wikitext2(fetch_wikitext2()).",
    )
    if other := named_for_other_split(file, split, _SPLITS):
        raise ValueError(
            f"load_wikitext2: found {file.name}, expected the {split!r} split. Write "
            f"load_wikitext2(path, split={other!r}), or give the folder."
        )
    with open_text(file, (".tokens", ".txt"), "load_wikitext2", 2**24) as lines:
        # One string for each word instead of one for each occurrence: a tenth of the memory.
        articles = _split_at_titles([*map(sys.intern, line.split())] for line in lines)
        first = next(articles, None)
        if first is None:
            raise ValueError(
                f"load_wikitext2: found no line '= Title =' between blank lines in {file}, "
                "expected WikiText-2. Read another text with split_passages(tokenize(text), 100)."
            )
        yield first
        yield from articles


def _split_at_titles(lines: Iterable[list[str]]) -> Iterator[list[str]]:
    """Cut lines into articles; none where there is no title."""
    article: list[str] = []
    before: list[str] = []
    titled = False
    for line, after in pairwise(chain(lines, [[]])):
        if _looks_like_title(line) and not before and not after:
            if titled:
                yield article
                article = []
            titled = True
        article += [*line, "<eos>"]
        before = line
    if titled:
        yield article


def _looks_like_title(words: list[str]) -> bool:
    return len(words) > 2 and words[0] == words[-1] == "=" and "=" not in (words[1], words[-2])
