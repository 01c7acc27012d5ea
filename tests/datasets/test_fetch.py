"""Against a server on this machine: what it serves stands in for the published files."""

import builtins
import contextlib
import gzip
import hashlib
import http.server
import io
import lzma
import os
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from pyro_ssl.datasets import (
    MSNBC_CATEGORIES,
    fetch,
    fetch_imdb,
    fetch_msnbc,
    fetch_wikitext2,
    load_imdb,
    load_msnbc,
    load_wikitext2,
)

WIKITEXT = {name: f" \n = {name} = \n \n".encode() for name in ("train", "valid", "test")}
MSNBC = "\n".join([*MSNBC_CATEGORIES, "% Sequences:", "", "1 1", "2"]).encode()
REVIEWS = {
    "train/neg/0_2": "Dull",
    "train/pos/3_9": "Good",
    "test/neg/1_1": "No",
    "test/pos/2_7": "",
}
ALL = [fetch_wikitext2, fetch_msnbc, fetch_imdb]


def zipped(member="msnbc990928.seq", content=MSNBC):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as files:
        files.writestr(member, content)
    return buffer.getvalue()


def tarred():
    buffer = io.BytesIO()
    names = {f"aclImdb/{name}.txt": text for name, text in REVIEWS.items()}
    others = {"aclImdb/README": "x", "aclImdb/train/unsup/0_0.txt": "x", "../evil_1.txt": "x"}
    with tarfile.open(fileobj=buffer, mode="w:gz") as files:
        for name, text in (names | others).items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            files.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def served(monkeypatch):
    """What the server has, by path; ``asked`` is what it was asked for."""
    pytest.importorskip("pooch")
    files = {f"/{name}.txt": text for name, text in WIKITEXT.items()}
    files |= {"/msnbc.zip": zipped(), "/aclImdb_v1.tar.gz": tarred()}
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = files.get(self.path)
            if callable(body):
                with contextlib.suppress(OSError):  # who asked has gone
                    body(self)
                return
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(fetch, "_WIKITEXT2_URL", url)
        monkeypatch.setattr(fetch, "_MSNBC_URL", f"{url}msnbc.zip")
        monkeypatch.setattr(fetch, "_IMDB_URL", f"{url}aclImdb_v1.tar.gz")
        hashes = {
            f"{name}.txt": "sha256:" + hashlib.sha256(text).hexdigest()
            for name, text in WIKITEXT.items()
        }
        monkeypatch.setattr(fetch, "_WIKITEXT2_HASHES", hashes)
        monkeypatch.setattr(fetch, "_MSNBC_SHA256", hashlib.sha256(MSNBC).hexdigest())
        md5 = hashlib.md5(files["/aclImdb_v1.tar.gz"]).hexdigest()
        monkeypatch.setattr(fetch, "_IMDB_HASH", f"md5:{md5}")
        files["asked"] = asked
        yield files
        server.shutdown()
        thread.join()


def left_in(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_wikitext2(served, tmp_path):
    folder = fetch_wikitext2(tmp_path / "new")
    for split in ("train", "valid", "test"):
        assert load_wikitext2(folder, split)[0][2] == split
    assert fetch_wikitext2(str(tmp_path / "new")) == folder
    assert len(served["asked"]) == 3


def test_msnbc(served, tmp_path):
    file = fetch_msnbc(tmp_path / "new")
    assert load_msnbc(file) == [["frontpage"] * 2, ["news"]]
    assert fetch_msnbc(str(tmp_path / "new")) == file
    assert len(served["asked"]) == 1
    assert left_in(tmp_path / "new") == ["msnbc990928.seq"]


def test_imdb(served, tmp_path):
    folder = fetch_imdb(tmp_path / "new")
    assert [review.text for review in load_imdb(folder)] == ["Dull", "Good"]
    assert [review.text for review in load_imdb(folder, split="test")] == ["No", ""]
    assert fetch_imdb(str(tmp_path / "new")) == folder
    assert len(served["asked"]) == 1
    assert left_in(tmp_path) == sorted(f"new/aclImdb/{name}.txt" for name in REVIEWS)


@pytest.mark.parametrize("file", ["wikitext-2/valid.txt", "msnbc990928.seq"])
def test_a_file_that_was_damaged_since_is_fetched_again(served, tmp_path, file):
    again = fetch_wikitext2 if "wiki" in file else fetch_msnbc
    again(tmp_path)
    before, num_asked = (tmp_path / file).read_bytes(), len(served["asked"])
    (tmp_path / file).write_bytes(b"damaged")
    again(tmp_path)
    assert (tmp_path / file).read_bytes() == before
    assert len(served["asked"]) == num_asked + 1


@pytest.mark.parametrize("fetcher", ALL)
def test_another_file_is_refused_and_nothing_stays(served, tmp_path, fetcher):
    served["/train.txt"] += b"more"
    served["/msnbc.zip"] = zipped(content=MSNBC + b"\n3")
    served["/aclImdb_v1.tar.gz"] += b"more"
    with pytest.raises(ValueError) as caught:
        fetcher(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{fetcher.__name__}: found ")
    for part in ("expected", "127.0.0.1", fetcher.__name__.replace("fetch", "load") + "(folder)"):
        assert part in message
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("body", [b"<html>", zipped(member="other.seq")], ids=["no zip", "other"])
def test_no_zip_with_that_member(served, tmp_path, body):
    served["/msnbc.zip"] = body
    with pytest.raises(ValueError, match="expected a zip file with msnbc990928.seq in it"):
        fetch_msnbc(tmp_path)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("fetcher", ALL)
def test_no_such_file_on_the_server(served, tmp_path, fetcher):
    for path in [path for path in served if path.startswith("/")]:
        del served[path]
    with pytest.raises(ConnectionError, match=r"404.* by hand and give the folder"):
        fetcher(tmp_path)
    assert left_in(tmp_path) == []


# What a server may do to whom it serves.
def serve_for_ever(handler):
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"0" * 2**16)


def serve_less_than_announced(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"0" * 10)


def serve_packed(handler):
    body = gzip.compress(b"0" * 2**24)
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def serve_in_drops(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    drip(handler)


def serve_a_head_in_drops(handler):
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Long: ")
    drip(handler)


def serve_nothing(handler):
    time.sleep(1.0)


def hang_up(handler):
    handler.close_connection = True


def send_round(handler):
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.end_headers()


def drip(handler):
    for _ in range(50):
        handler.wfile.write(b"0")
        time.sleep(0.02)


@pytest.mark.parametrize("fetcher", ALL)
@pytest.mark.parametrize(
    ("serve", "error", "message"),
    [
        (serve_for_ever, ValueError, "more than 100,000 bytes, expected no more"),
        (serve_less_than_announced, (ConnectionError, ValueError), "Incomplete|expected"),
        (serve_packed, ValueError, "expected sha256:|expected md5:|expected a zip"),
        (serve_in_drops, ConnectionError, r"no end in time.*timeout=0\.3"),
        (serve_a_head_in_drops, ConnectionError, r"no end in time.*timeout=0\.3"),
        (serve_nothing, ConnectionError, r"no end in time.*timeout=0\.3"),
        (hang_up, ConnectionError, "found ConnectionError"),
        (send_round, ConnectionError, "redirects"),
    ],
)
def test_a_download_ends(served, tmp_path, monkeypatch, fetcher, serve, error, message):
    for name in ("_WIKITEXT2_MOST", "_MSNBC_MOST", "_IMDB_MOST"):
        monkeypatch.setattr(fetch, name, 100_000)
    for path in [path for path in served if path.startswith("/")]:
        served[path] = serve
    slow = serve in (serve_in_drops, serve_a_head_in_drops, serve_nothing)
    begun = time.monotonic()
    with pytest.raises(error, match=message):
        fetcher(tmp_path, timeout=0.3 if slow else 30)
    assert time.monotonic() - begun < 20
    assert left_in(tmp_path) == []


def spoiled_zip(content):
    """A zip file that is whole, but for the bytes of its member."""
    place = content.index(b"msnbc990928.seq") + 20
    return content[:place] + bytes(b ^ 1 for b in content[place : place + 9]) + content[place + 9 :]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (zipped(content=b"0" * 2**25), "more than 16,777,216 bytes"),
        (zipped()[:-30], "BadZipFile.*expected a zip file with msnbc990928.seq in it"),
        (spoiled_zip(zipped()), "(BadZipFile|error).*expected a zip file with msnbc990928.seq"),
        (zipped(content=MSNBC[:-1]), "expected sha256:"),
        (b"", "BadZipFile"),
    ],
    ids=["a bomb", "cut", "damaged", "another", "empty"],
)
def test_archives_of_clicks(served, tmp_path, body, message):
    served["/msnbc.zip"] = body
    with pytest.raises(ValueError, match=message):
        fetch_msnbc(tmp_path)
    assert left_in(tmp_path) == []


def one_review(text):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as files:
        member = tarfile.TarInfo("aclImdb/train/pos/3_9.txt")
        member.size = len(text)
        files.addfile(member, io.BytesIO(text))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (tarred()[:-30], "expected a whole tar.gz file of reviews"),
        (gzip.compress(b"not a tar file"), "expected a whole tar.gz file of reviews"),
        (b"", "expected a whole tar.gz file of reviews"),
        (gzip.compress(b"\0" * 10240), "an archive without reviews"),
        (one_review(b"0" * 2**21), "more than 1,048,576 bytes"),
    ],
    ids=["cut", "another", "empty", "without reviews", "a long review"],
)
def test_archives_of_reviews(served, tmp_path, monkeypatch, body, message):
    """Damage under a hash that is right, as if it had been published so."""
    served["/aclImdb_v1.tar.gz"] = body
    monkeypatch.setattr(fetch, "_IMDB_HASH", "sha256:" + hashlib.sha256(body).hexdigest())
    with pytest.raises(ValueError, match=message):
        fetch_imdb(tmp_path)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("fetcher", ALL)
@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "60", None])
def test_timeouts(tmp_path, fetcher, timeout):
    with pytest.raises((TypeError, ValueError), match=f"{fetcher.__name__}: found timeout="):
        fetcher(tmp_path / "new", timeout=timeout)
    assert not (tmp_path / "new").exists()


def test_leftovers_of_a_killed_download_are_removed(served, tmp_path):
    for name, age in ((".fetch-old", 90_000.0), (".fetch-now", 0.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text("unfinished")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    fetch_msnbc(tmp_path)
    assert left_in(tmp_path) == [".fetch-now/part", "msnbc990928.seq"]


def test_default_folder(served, tmp_path, monkeypatch):
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    assert fetch_msnbc() == tmp_path / "pyro_ssl" / "msnbc990928.seq"


@pytest.mark.parametrize("fetcher", ALL)
def test_without_pooch(monkeypatch, tmp_path, fetcher):
    real_import = builtins.__import__

    def without_pooch(name, *args):
        if name == "pooch":
            raise ImportError(name)
        return real_import(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_pooch)
    with pytest.raises(ImportError, match=r"pip install 'pyro-ssl\[data\]'"):
        fetcher(tmp_path)


@pytest.mark.parametrize("split", ["train", "valid", "test", "msnbc"])
def test_known_hashes_are_those_of_the_published_files(split):
    pattern = "msnbc/msnbc990928.seq*" if split == "msnbc" else f"wikitext2/wiki.{split}.tokens*"
    found = list(Path(os.environ.get("PYRO_SSL_DATA", ".")).glob(pattern))
    if not found:
        pytest.skip(f"PYRO_SSL_DATA names no folder that holds {pattern}")
    with {".gz": gzip.open, ".xz": lzma.open}.get(found[0].suffix, open)(found[0], "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known = fetch._WIKITEXT2_HASHES | {"msnbc.txt": f"sha256:{fetch._MSNBC_SHA256}"}
    assert f"sha256:{digest}" == known[f"{split}.txt"]
