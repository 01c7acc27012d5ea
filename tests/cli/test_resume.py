"""Runs that are stopped and go on: to the last bit as if they had not been."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pyro_ssl
from pyro_ssl import MarkovEM, StochasticEM
from tests.cli.program import (
    SMALL,
    SMALL_SERIES,
    book,
    circle,
    fails,
    history_of,
    run,
    tensors_of,
)

pytestmark = pytest.mark.stage("system")

ROOT = Path(pyro_ssl.__file__).parents[1]


def stopped_by(monkeypatch, owner, number, after, method="step"):
    """Its method sends a signal to this process in its call number ``after + 1``."""
    calls, step = [], getattr(owner, method)

    def interrupted(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == after + 1:
            signal.raise_signal(number)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(owner, method, interrupted)


@pytest.mark.parametrize("kind", ["text", "series"])
@pytest.mark.parametrize("after", [0, 2])
def test_ctrl_c_and_resume(kind, after, capsys, tmp_path, monkeypatch):
    """In the first epoch too, before anything but the start is there."""
    make, small = {"text": (book, SMALL), "series": (circle, SMALL_SERIES)}[kind]
    line = ["fit", make(tmp_path), *small, "--out"]
    assert run(capsys, *line, tmp_path / "whole").code == 0
    with monkeypatch.context() as patch:
        stopped_by(patch, StochasticEM, signal.SIGINT, after)
        ran = run(capsys, *line, tmp_path / "cut")
    assert ran.code == 130 and not ran.out
    assert f"pyro-ssl fit {tmp_path}" in ran.err and ran.err.rstrip().endswith(" --resume")
    told = "after 2 whole epochs, which are saved" if after else "before the end of its first epoch"
    assert f"stopped by SIGINT {told}" in ran.err
    assert "Stopped." in (tmp_path / "cut" / "index.html").read_text()
    assert (tmp_path / "cut" / "model").exists() == bool(after)
    if after:
        assert len(history_of(tmp_path / "cut")) == 2
    ran = run(capsys, *line, tmp_path / "cut", "--resume")
    assert ran.code == 0
    assert ("epoch 2 of 4" in ran.err) == (after == 0)  # what was done is not done again
    assert tensors_of(tmp_path / "cut") == tensors_of(tmp_path / "whole")
    assert history_of(tmp_path / "cut") == history_of(tmp_path / "whole")
    assert "Done." in (tmp_path / "cut" / "index.html").read_text()


def test_stopped_before_there_is_a_checkpoint(capsys, tmp_path, monkeypatch):
    line = ["fit", book(tmp_path), *SMALL, "--out"]
    assert run(capsys, *line, tmp_path / "whole").code == 0
    with monkeypatch.context() as patch:
        stopped_by(patch, MarkovEM, signal.SIGINT, 1, method="epoch")
        assert run(capsys, *line, tmp_path / "cut").code == 130
    assert not (tmp_path / "cut" / "model").exists()
    told = fails(capsys, "topics", tmp_path / "cut")
    assert "no model here yet" in told and "--resume" in told
    assert run(capsys, *line, tmp_path / "cut", "--resume").code == 0
    assert tensors_of(tmp_path / "cut") == tensors_of(tmp_path / "whole")


def test_sigterm(capsys, tmp_path, monkeypatch):
    """As batch systems end a job."""
    stopped_by(monkeypatch, StochasticEM, signal.SIGTERM, 2)
    ran = run(capsys, "fit", book(tmp_path), *SMALL, "--out", tmp_path / "run")
    assert ran.code == 143 and "stopped by SIGTERM" in ran.err


def test_handlers_are_put_back(capsys, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run(capsys, "topics", tmp_path / "nowhere")
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_resume_of_what_is_done(capsys, tmp_path, monkeypatch):
    line = ["fit", book(tmp_path), *SMALL, "--out", tmp_path / "run", "--resume"]
    first = run(capsys, *line)  # where nothing is it begins
    assert first.code == 0
    again = run(capsys, *line)
    assert again.code == 0 and again.out == first.out and "epoch 1 of 4:" not in again.err
    monkeypatch.chdir(tmp_path)
    line[1] = "book.txt"  # the same file by another name
    longer = run(capsys, *line, "--epochs", "6")
    assert longer.code == 0 and len(history_of(tmp_path / "run")) == 6
    straight = run(capsys, *line[:-2], tmp_path / "straight", "--epochs", "6")
    assert straight.code == 0
    assert tensors_of(tmp_path / "straight") == tensors_of(tmp_path / "run")


def everything(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


OTHER = {
    "--topics 5": "begun with --topics 3, found --topics 5",
    "--seed 3": "begun with --seed 0, found --seed 3",
    "--keep-case": "begun with no --keep-case, found --keep-case",
    "--kind series": "begun with",
    "text": "begun with other data: passages is 15 there and 18 here",
}


def test_another_run_is_refused(capsys, tmp_path):
    path, series = book(tmp_path), circle(tmp_path)
    run(capsys, "fit", path, *SMALL, "--out", tmp_path / "run")
    before = everything(tmp_path / "run")
    for change, told in OTHER.items():
        asked = [path, *SMALL]
        if change == "text":
            book(tmp_path, times=7)
        elif change == "--kind series":
            asked = [series, *SMALL_SERIES]
        else:
            asked += change.split()
        said = fails(capsys, "fit", *asked, "--out", tmp_path / "run", "--resume")
        assert told in said and "--out with another folder" in said, change
        assert everything(tmp_path / "run") == before, change


def test_nothing_is_written_over(capsys, tmp_path):
    line = ["fit", book(tmp_path), *SMALL, "--out", tmp_path / "run"]
    assert run(capsys, *line).code == 0
    before = everything(tmp_path / "run")
    said = fails(capsys, *line)
    assert "holds a run already" in said and "--resume" in said and "--overwrite" in said
    assert everything(tmp_path / "run") == before
    (tmp_path / "run" / "notes.md").write_text("mine")
    ran = run(capsys, *line, "--seed", "4", "--overwrite")
    assert ran.code == 0 and (tmp_path / "run" / "notes.md").read_text() == "mine"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("epoch 1 of 4:") == 1


@pytest.mark.parametrize("how", [[], ["--resume"], ["--overwrite"]])
def test_a_folder_that_is_no_run_is_left_alone(how, capsys, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.tex").write_text("years")
    said = fails(capsys, "fit", book(tmp_path), *SMALL, "--out", tmp_path / "thesis", *how)
    assert "holds text.tex, which no run has written" in said
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["text.tex"]


def test_two_at_once(capsys, tmp_path):
    import fcntl

    line = ["fit", book(tmp_path), *SMALL, "--out", tmp_path / "run"]
    assert run(capsys, *line).code == 0
    with open(tmp_path / "run" / "log.txt", "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for how in ("--resume", "--overwrite"):
            assert "another process is fitting a model here" in fails(capsys, *line, how)
    assert run(capsys, *line, "--resume").code == 0


@pytest.mark.stage("system")
def test_in_a_process_of_its_own(tmp_path):
    """Stopped, then killed wherever it is; nothing but the result is on the standard output."""
    book(tmp_path)
    line = [sys.executable, "-W", "error", "-m", "pyro_ssl", "fit", "book.txt", *SMALL]
    line += ["--epochs", "8", "--out"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    how = {"cwd": tmp_path, "env": env, "text": True}
    done = subprocess.run([*line, "whole"], capture_output=True, **how)
    assert done.returncode == 0 and done.stdout.startswith("held-out perplexity"), done.stderr

    def ended(number, epoch, *more):
        with subprocess.Popen([*line, "cut", *more], stderr=subprocess.PIPE, **how) as process:
            for told in process.stderr:
                if f" epoch {epoch} " in told:
                    process.send_signal(number)
                    break
            return process.stderr.read(), process.wait()

    rest, code = ended(signal.SIGINT, 3)
    assert code == 130 and rest.rstrip().endswith(f"{' '.join(line[5:])} cut --resume"), rest
    rest, code = ended(signal.SIGKILL, 5, "--resume")
    assert code == -signal.SIGKILL
    done = subprocess.run([*line, "cut", "--resume"], capture_output=True, **how)
    assert done.returncode == 0, done.stderr
    assert tensors_of(tmp_path / "cut") == tensors_of(tmp_path / "whole")
