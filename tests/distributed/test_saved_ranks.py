"""Runs over ranks go on after any end, on any number of ranks, and come to the same.

When a rank is killed is drawn from a generator with a fixed seed, and what else the machine does;
there are no false alarms.
"""

import os
import random
import subprocess
import sys
import time

import pytest
import torch

from pyro_ssl.infer.run_files import RunFiles
from tests.distributed.launch import ROOT
from tests.distributed.test_ranks import check_same
from tests.statistics import staged

pytestmark = pytest.mark.stage("system")

nightly = pytest.mark.stage("nightly")

#: kinds that come to the same on any number of ranks, but for rounding
ANY = ("em_draws", "em_twisted", "gibbs", "gibbs_twisted", "gibbs_counted", "fit")
#: and those that come to the same on as many
SAME = ("em_dropout", "fit_started")


class Nursery:
    """Starts ranks, and tells what became of them."""

    def __init__(self, process):
        self.process = process

    def run(self, size, kind, folder, results, seed, who=(), what=9, after=0.0, timeout=15.0):
        """Run on so many ranks; return each one's exit status, and its seconds after the hit."""
        self.start(size, kind, folder, results, seed, who, what, after, timeout)
        return self.ends(size)

    def start(self, size, kind, folder, results, seed=0, who=(), what=9, after=0.0, timeout=15.0):
        """Start a run."""
        results.mkdir(exist_ok=True)
        for old in results.iterdir():
            old.unlink()
        hit = ",".join(map(str, who))
        given = (size, kind, folder, results, seed, hit, int(what), after, timeout)
        self.process.stdin.write("\t".join(map(str, given)) + "\n")

    def ends(self, size):
        """Wait until all ranks have ended."""
        ends = {}
        while (line := self.process.stdout.readline()) != "all\n":
            assert line, "the nursery has died"
            rank, status, seconds = line.split()
            ends[int(rank)] = int(status), float(seconds)
        return [ends[rank] for rank in range(size)]

    def whole(self, size, kind, folder, results, seed=0):
        """Run to the end; return what each rank came to."""
        for status, _ in self.run(size, kind, folder, results, seed):
            assert status == 0, said(results)
        return [torch.load(results / f"{rank}.pt") for rank in range(size)]


@pytest.fixture(scope="module")
def nursery():
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.distributed.runs"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout.readline() == "ready\n"  # its imports are no part of a run's time
        yield Nursery(process)
        process.stdin.close()


def said(results):
    return "\n".join(f"{file}: {file.read_text()}" for file in sorted(results.glob("*.txt")))


def check_bitwise(made, wanted):
    for one, other in zip(made, wanted, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            a, b = torch.as_tensor(one[key]), torch.as_tensor(other[key])
            assert torch.equal(a.nan_to_num(), b.nan_to_num()), key


def check_like_one(kind, made, wanted):
    """What ranks came to is what one rank came to."""
    check_same(kind, [{kind: one} for one in made], wanted[0])


def until_killed(nursery, kind, tmp_path, sizes, num_kills, *, wall):
    """Kill ranks of runs until so many kills; yield what each run that came to its end came to."""
    draw = random.Random(f"{kind}, {num_kills}")
    kills, run, killed = 0, 0, 0
    while kills < num_kills or killed:
        folder, size = tmp_path / f"run {run}", draw.choice(sizes)
        is_last = kills >= num_kills
        who = () if is_last else draw.choice([(draw.randrange(size),), tuple(range(size))])
        seed = kills if list(folder.glob("*/manifest.json")) else 0
        after = draw.uniform(0.0, 0.8 * wall)
        ends = nursery.run(size, kind, folder, tmp_path / "results", seed, who, 9, after)
        statuses = [status for status, _ in ends]
        if not any(statuses):
            yield [torch.load(tmp_path / "results" / f"{rank}.pt") for rank in range(size)]
            run, killed = run + 1, 0
            continue
        assert who, said(tmp_path / "results")
        check_told(tmp_path / "results", who, statuses)
        kills, killed = kills + 1, killed + 1
    print(f"{kills} kills of {kind}")


def check_told(results, who, statuses):
    """Those that were not killed say why they ended, or had come to the end."""
    for rank, status in enumerate(statuses):
        if status and rank not in who:
            text = (results / f"{rank}.txt").read_text()
            assert "RankError: Another rank is gone" in text, text


def wall_of(nursery, kind, tmp_path, size):
    began = time.monotonic()
    wanted = nursery.whole(size, kind, tmp_path / "whole", tmp_path / "results")
    return wanted, time.monotonic() - began


def check_kills(nursery, kind, tmp_path, sizes, num_kills):
    wanted, wall = wall_of(nursery, kind, tmp_path, sizes[0])
    for made in until_killed(nursery, kind, tmp_path, sizes, num_kills, wall=wall):
        if kind in SAME:
            check_bitwise(made, wanted)
        else:
            check_like_one(kind, made, wanted)


def check_other_ranks(nursery, kind, tmp_path, sizes, stops):
    """Runs that kill themselves, and go on with as many ranks as come next."""
    wanted = nursery.whole(1, kind, tmp_path / "whole", tmp_path / "results")
    for number, (size, stop) in enumerate(zip(sizes, stops, strict=True)):
        folder, results = tmp_path / "run", tmp_path / "results"
        ends = nursery.run(size, f"{kind}@{stop}", folder, results, number)
        assert all(status for status, _ in ends) == (stop > 0), said(results)
    made = [torch.load(tmp_path / "results" / f"{rank}.pt") for rank in range(sizes[-1])]
    check_like_one(kind, made, wanted)


def test_going_on_with_other_ranks(nursery, tmp_path):
    check_other_ranks(nursery, "em_draws", tmp_path, (2, 1, 2), (4, 8, 0))


@pytest.mark.parametrize("kind", staged(ANY, ("em_twisted", "gibbs_counted", "fit"), "system"))
def test_every_kind_goes_on_with_other_ranks(nursery, tmp_path, kind):
    first, second = (2, 4) if kind == "fit" else (8, 11)
    check_other_ranks(nursery, kind, tmp_path, (2, 4, 1), (first, second, 0))


@pytest.mark.parametrize(
    "kind", staged((*ANY, *SAME), ("em_draws", "gibbs_twisted", *SAME), "system")
)
def test_as_many_ranks_go_on_to_the_last_bit(nursery, tmp_path, kind):
    wanted = nursery.whole(2, kind, tmp_path / "whole", tmp_path / "results")
    stop = 3 if kind.startswith("fit") else 8
    nursery.run(2, f"{kind}@{stop}", tmp_path / "run", tmp_path / "results", 0)
    made = nursery.whole(2, kind, tmp_path / "run", tmp_path / "results", seed=7)
    check_bitwise(made, wanted)


@pytest.mark.parametrize("kind", ["em_draws"])
def test_ranks_are_killed(nursery, tmp_path, kind):
    check_kills(nursery, kind, tmp_path, (2,) if kind in SAME else (1, 2, 4), 1)


@nightly
@pytest.mark.parametrize("kind", [*ANY, *SAME])
def test_ranks_are_killed_again_and_again(nursery, tmp_path, kind):
    check_kills(nursery, kind, tmp_path, (2,) if kind in SAME else (1, 2, 4), 8)


@pytest.mark.parametrize("size", [1, 2])
def test_what_ranks_save_is_read_meanwhile(nursery, tmp_path, size):
    """Always something whole, never a mix of two saves, and without a warning."""
    files, seen = RunFiles(tmp_path / "run", "a count"), []
    nursery.start(size, "saves_on", tmp_path / "run", tmp_path / "results")
    while len(seen) < 50 or len({*seen}) < 15:
        time.sleep(0.001)  # or who writes may get no time
        if files.there:
            state = files.load()[1]
            assert len(state["own"]) == size and bool((state["all"] == state["n"]).all())
            for rank, own in enumerate(state["own"]):
                assert bool((own == state["n"] + rank).all())
            seen.append(state["n"])
    (tmp_path / "enough").touch()
    assert nursery.ends(size) and seen == sorted(seen)
    assert len(list(tmp_path.glob("run/*/*"))) == 2 * (2 if size == 1 else 2 + size)
