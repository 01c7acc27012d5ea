"""Fetch published data sets once, into a folder; each file is checked against a known hash.

Needs pooch: ``pip install 'pyro-ssl[data]'``. What is not the published file is refused, and
nothing of it stays. Next file to read: ``download.py``.
"""

import os
import re
import tarfile
import zipfile
from pathlib import Path

from .download import BAD_ARCHIVE, Fetch, copy

__all__ = ["fetch_imdb", "fetch_msnbc", "fetch_wikitext2"]

# A commit's files never change.
_WIKITEXT2_URL = (
    "https://raw.githubusercontent.com/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8/"
    "word_language_model/data/wikitext-2/"
)
_WIKITEXT2_HASHES = {
    "train.txt": "sha256:9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
    "valid.txt": "sha256:f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    "test.txt": "sha256:d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
}
_MSNBC_URL = (
    "https://raw.githubusercontent.com/numenta/nupic-legacy/"
    "7281482def2a96fbda663e6c39e8351a1886dec7/"
    "examples/prediction/category_prediction/msnbc990928.zip"
)
_MSNBC_NAME = "msnbc990928.seq"
_MSNBC_SHA256 = "982d85eb7aff1744e64d8bfadb21f53fb921b79d53b6305d4df232da59f218fe"  # unpacked
_IMDB_URL = "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
_IMDB_HASH = "sha256:c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"

# Bytes that may come, somewhat more than are published: of a file, and of one review.
_WIKITEXT2_MOST, _MSNBC_MOST, _IMDB_MOST, _REVIEW_MOST = 2**24, 2**24, 2**27, 2**20


def fetch_wikitext2(
    folder: str | os.PathLike[str] | None = None, *, timeout: float = 1800.0
) -> Path:
    """Fetch WikiText-2, 13 MB, or find it there from an earlier call.

    :param folder: Where to keep data sets; by default pooch's cache folder for this library. The
        files lie in ``wikitext-2`` in it.
    :param float timeout: Seconds that each file may take.
    :returns: The folder that :func:`~pyro_ssl.datasets.load_wikitext2` takes.
    :raises ImportError: if pooch is not installed.
    :raises ConnectionError: if the files cannot be had in that time.
    :raises ValueError: if what came is not the published file; it is deleted.

    **Example**::

        >>> from pyro_ssl.datasets import fetch_wikitext2, load_wikitext2
        >>> articles = load_wikitext2(fetch_wikitext2(), "valid")  # doctest: +SKIP
    """
    fetch = Fetch("fetch_wikitext2", timeout)
    target = fetch.folder(folder) / "wikitext-2"
    for name, known_hash in _WIKITEXT2_HASHES.items():
        if not fetch.has(target / name, known_hash):
            with fetch.scratch(target, _WIKITEXT2_URL + name) as scratch:
                fetch.download(_WIKITEXT2_URL + name, scratch / name, _WIKITEXT2_MOST)
                fetch.check(scratch / name, known_hash)
                (scratch / name).replace(target / name)
    return target


def fetch_msnbc(folder: str | os.PathLike[str] | None = None, *, timeout: float = 1800.0) -> Path:
    """Fetch the MSNBC click streams, 13 MB unpacked, or find them there from an earlier call.

    :param folder: Where to keep data sets; by default pooch's cache folder for this library.
    :param float timeout: Seconds that the file may take.
    :returns: The file that :func:`~pyro_ssl.datasets.load_msnbc` takes.
    :raises ImportError: if pooch is not installed.
    :raises ConnectionError: if the file cannot be had in that time.
    :raises ValueError: if what came is not the published file; it is deleted.

    **Example**::

        >>> from pyro_ssl.datasets import fetch_msnbc, load_msnbc
        >>> sequences = load_msnbc(fetch_msnbc(), min_len=10)  # doctest: +SKIP
    """
    fetch = Fetch("fetch_msnbc", timeout)
    parent = fetch.folder(folder)
    target, known_hash = parent / _MSNBC_NAME, f"sha256:{_MSNBC_SHA256}"
    if not fetch.has(target, known_hash):
        with fetch.scratch(parent, _MSNBC_URL) as scratch:
            archive, unpacked = scratch / "msnbc.zip", scratch / _MSNBC_NAME
            fetch.download(_MSNBC_URL, archive, _MSNBC_MOST)
            # The hash that is known is that of the file inside, whose size is bounded for that.
            try:
                with zipfile.ZipFile(archive) as files, files.open(_MSNBC_NAME) as source:
                    copy(source, unpacked, _MSNBC_MOST)
            except BAD_ARCHIVE as error:
                raise ValueError(
                    f"{error!r}, expected a zip file with {_MSNBC_NAME} in it"
                ) from error
            fetch.check(unpacked, known_hash)
            unpacked.replace(target)
    return target


def fetch_imdb(folder: str | os.PathLike[str] | None = None, *, timeout: float = 1800.0) -> Path:
    """Fetch the Large Movie Review data, 84 MB, or find them there from an earlier call.

    Of the archive the 50,000 labelled reviews are kept, each a file. They are put in place all at
    once; later calls do not look into them again.

    :param folder: Where to keep data sets; by default pooch's cache folder for this library. The
        reviews lie in ``aclImdb`` in it.
    :param float timeout: Seconds that the archive may take.
    :returns: The folder that :func:`~pyro_ssl.datasets.load_imdb` takes.
    :raises ImportError: if pooch is not installed.
    :raises ConnectionError: if the archive cannot be had in that time.
    :raises ValueError: if what came is not the published archive; it is deleted.

    **Example**::

        >>> from pyro_ssl.datasets import fetch_imdb, load_imdb
        >>> reviews = load_imdb(fetch_imdb(), split="test")  # doctest: +SKIP
    """
    fetch = Fetch("fetch_imdb", timeout)
    parent = fetch.folder(folder)
    target = parent / "aclImdb"
    if not target.is_dir():
        with fetch.scratch(parent, _IMDB_URL) as scratch:
            archive = scratch / "aclImdb_v1.tar.gz"
            fetch.download(_IMDB_URL, archive, _IMDB_MOST)
            fetch.check(archive, _IMDB_HASH)
            _unpack_reviews(archive, scratch)
            (scratch / "aclImdb").replace(target)
    return target


def _unpack_reviews(archive: Path, folder: Path) -> None:
    """Unpack the labelled reviews of an archive that is known to be the published one."""
    try:
        with tarfile.open(archive) as members:
            for member in members:
                # Matching the whole name keeps a file from landing elsewhere.
                if re.fullmatch(r"aclImdb/(train|test)/(neg|pos)/\d+_\d+\.txt", member.name):
                    file = folder / member.name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    if (source := members.extractfile(member)) is not None:
                        copy(source, file, _REVIEW_MOST)
    except BAD_ARCHIVE as error:
        raise ValueError(f"{error!r}, expected a whole tar.gz file of reviews") from error
    if not (folder / "aclImdb").is_dir():
        raise ValueError("an archive without reviews, expected aclImdb/train/pos/0_9.txt and so on")
