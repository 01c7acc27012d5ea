"""Fetch published data sets once, into a folder; each file is checked against a known hash.

Needs pooch: ``pip install 'pyro-ssl[data]'``. What is not the published file is refused, and
nothing of it stays.
"""

import os
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
_IMDB_HASH = "md5:7c2ac02c03563afcf9b574c7e56c153a"


def fetch_wikitext2(folder: str | os.PathLike[str] | None = None) -> Path:
    """Fetch WikiText-2, 13 MB, or find it there from an earlier call.

    :param folder: Where to keep data sets; by default pooch's cache folder for this library. The
        files lie in ``wikitext-2`` in it.
    :returns: The folder that :func:`~pyro_ssl.datasets.load_wikitext2` takes.
    :raises ImportError: if pooch is not installed.
    :raises ConnectionError: if the files cannot be had.
    :raises ValueError: if what came is not the published file; it is deleted.

    **Example**::

        >>> from pyro_ssl.datasets import fetch_wikitext2, load_wikitext2
        >>> articles = load_wikitext2(fetch_wikitext2(), "valid")  # doctest: +SKIP
    """
    pooch = _import_pooch("fetch_wikitext2")
    target = _folder(pooch, folder) / "wikitext-2"
    for name, known_hash in _WIKITEXT2_HASHES.items():
        with _explained("fetch_wikitext2", _WIKITEXT2_URL + name):
            pooch.retrieve(_WIKITEXT2_URL + name, known_hash, fname=name, path=target)
    return target


def fetch_msnbc(folder: str | os.PathLike[str] | None = None) -> Path:
    """Fetch the MSNBC click streams, 13 MB unpacked, or find them there from an earlier call.

    :param folder: Where to keep data sets; by default pooch's cache folder for this library.
    :returns: The file that :func:`~pyro_ssl.datasets.load_msnbc` takes.
    :raises ImportError: if pooch is not installed.
    :raises ConnectionError: if the file cannot be had.
    :raises ValueError: if what came is not the published file; it is deleted.

    **Example**::

        >>> from pyro_ssl.datasets import fetch_msnbc, load_msnbc
        >>> sequences = load_msnbc(fetch_msnbc(), min_len=10)  # doctest: +SKIP
    """
    pooch = _import_pooch("fetch_msnbc")
    parent = _folder(pooch, folder)
    target = parent / _MSNBC_NAME
    if target.is_file() and pooch.file_hash(target) == _MSNBC_SHA256:
        return target
    with _explained("fetch_msnbc", _MSNBC_URL), _scratch(parent) as scratch:
        archive = scratch / "msnbc.zip"
        # The hash that is known is that of the file inside, hence not retrieve().
        pooch.HTTPDownloader()(_MSNBC_URL, str(archive), None)
        try:
            with zipfile.ZipFile(archive) as files:
                unpacked = Path(files.extract(_MSNBC_NAME, scratch))
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError(f"{error!r}, expected a zip file with {_MSNBC_NAME} in it") from error
        if (found := pooch.file_hash(unpacked)) != _MSNBC_SHA256:
            raise ValueError(f"{_MSNBC_NAME} of SHA-256 {found}, expected {_MSNBC_SHA256}")
        unpacked.replace(target)
    return target


def fetch_imdb(folder: str | os.PathLike[str] | None = None) -> Path:
    """Fetch the Large Movie Review data, 84 MB, or find them there from an earlier call.

    Of the archive the 50,000 labelled reviews are kept, each a file. They are put in place all at
    once; later calls do not look into them again.

    :param folder: Where to keep data sets; by default pooch's cache folder for this library. The
        reviews lie in ``aclImdb`` in it.
    :returns: The folder that :func:`~pyro_ssl.datasets.load_imdb` takes.
    :raises ImportError: if pooch is not installed.
    :raises ConnectionError: if the archive cannot be had.
    :raises ValueError: if what came is not the published archive; it is deleted.

    **Example**::

        >>> from pyro_ssl.datasets import fetch_imdb, load_imdb
        >>> reviews = load_imdb(fetch_imdb(), split="test")  # doctest: +SKIP
    """
    pooch = _import_pooch("fetch_imdb")
    parent = _folder(pooch, folder)
    target = parent / "aclImdb"
    if target.is_dir():
        return target
    with _explained("fetch_imdb", _IMDB_URL), _scratch(parent) as scratch:
        archive = pooch.retrieve(_IMDB_URL, _IMDB_HASH, fname="aclImdb_v1.tar.gz", path=scratch)
        _unpack_reviews(archive, scratch)
        (scratch / "aclImdb").replace(target)
    return target


def _unpack_reviews(archive: str, folder: Path) -> None:
    with tarfile.open(archive) as members:
        for member in members:
            # Matching the whole name keeps a file from landing elsewhere.
            if re.fullmatch(r"aclImdb/(train|test)/(neg|pos)/\d+_\d+\.txt", member.name):
                source = members.extractfile(member)
                if source is not None:
                    file = folder / member.name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(source.read())


def _import_pooch(caller: str) -> Any:
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            f"{caller}: found no pooch, which fetches files and checks them. Write pip install "
            "'pyro-ssl[data]', or fetch the files by hand and give their folder to "
            f"{caller.replace('fetch', 'load')}(folder)."
        ) from error
    return pooch


def _folder(pooch: Any, folder: str | os.PathLike[str] | None) -> Path:
    return Path(pooch.os_cache("pyro_ssl") if folder is None else folder).expanduser()


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """Make a folder beside the target, so that a move is one step; it goes whatever happens."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".fetch-") as scratch:
        yield Path(scratch)


@contextmanager
def _explained(caller: str, url: str) -> Iterator[None]:
    """Say of a failed download where it was from and what to do instead."""
    from requests import RequestException  # pooch brings it along

    by_hand = (
        f"Try again, or fetch {url} by hand and give the folder of the files (unpacked) to "
        f"{caller.replace('fetch', 'load')}(folder)."
    )
    try:
        yield
    except RequestException as error:
        raise ConnectionError(f"{caller}: found {error!r}, expected a file. {by_hand}") from error
    except ValueError as error:
        raise ValueError(f"{caller}: found {error}. {by_hand}") from error
