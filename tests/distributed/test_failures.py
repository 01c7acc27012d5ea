"""Ranks that stop, hang, cannot write or are interrupted: all are told, and none waits for ever.

Nothing fails by the clock: how long the others took is printed. A rank that waits for ever is ended
by the time that is given to its process.
"""

import re
import time

import pytest
import torch

from tests.distributed.launch import results, start

system = pytest.mark.stage("system")

GONE = "RankError: Another rank is gone, or has not answered in time"
#: how the last rank ends amid a run, and what the others are told
ENDS = {
    "raises": "RankError: Rank 1 failed in the program: ArithmeticError: the disk is full",
    "dies": GONE,
    "ends": "RankError: Rank 0 is at StochasticEM.step, and rank 1 at the end",
    "hangs": GONE,
    "cut": GONE,
}


@system
@pytest.mark.parametrize("how", ENDS)
def test_no_rank_waits_for_one_that_stops(how, tmp_path):
    first, last = start(2, f"stops:{how}", tmp_path)
    status, told = first.wait()
    ended = time.time()
    if how == "hangs":
        last.kill()
    last_status, said = last.wait()
    print(f"{ended - float(re.search('stops at (.*)', said)[1]):.1f} s after the stop")
    assert status and last_status
    assert ENDS[how] in told
    if how in ("raises", "ends"):
        assert "the disk is full" in said or ENDS[how] in said
    if how == "cut":
        assert GONE in said


@system
def test_ctrl_c_on_one_rank_stops_all_at_one_place(tmp_path):
    one, two = (rank["interrupted"] for rank in results(2, "interrupted", tmp_path))
    assert one["told"] == ["stopped", f"Stopped after {one['draws']}"]
    assert torch.equal(one.pop("phi"), two.pop("phi")) and one == two
    assert 1 < one["num"] < 100 and 0 < one["draws"] < 100 and 0 < one["epochs"] < 100


@system
def test_a_save_that_one_rank_cannot_make_is_undone_on_all(tmp_path):
    one, two = results(2, "saves:full_disk_on_one", tmp_path)
    assert one == two
    last = 2  # steps of the newest save that is there
    for i, (said, kept) in enumerate(zip(one["said"], one["kept"], strict=True)):
        assert said == "saved" or re.match(f"rank {1 - i % 2}: No space left on device; ", said)
        assert kept == said.endswith("what was saved there before is as it was")
        last = last if kept else 3 + i
    assert True in one["kept"] and "saved" in one["said"] and one["steps"] == last


@system
def test_a_damaged_newest_save_is_passed_over_by_all(tmp_path):
    one, two = results(2, "saves:damaged_saves", tmp_path)
    assert [row[:3] for row in one["found"]] == [row[:3] for row in two["found"]]
    names = [name for name, how, _, _ in one["found"] if how == "flip"]
    assert names == ["manifest", "tensors-", "tensors-", "tensors-"]
    for name, how, steps, told in (*one["found"], *two["found"]):
        assert steps == 2, (name, how)
        if (name, how) == ("manifest", "gone"):  # there is one save then, which is whole
            assert told == []
        else:
            (text,) = told
            assert "one of its two checkpoints is damaged, and is passed over" in text


@system
def test_a_sequence_stays_on_its_rank(tmp_path):
    one, two = results(2, "saves:other_owners", tmp_path)
    for rank, found in enumerate((one, two)):
        for told in found["told"]:
            assert re.match(
                rf"CheckpointError: .* sequence \d is given to rank {rank} of 2, and its path is "
                "with another one, expected the sequences that|RankError: Rank . failed in Stoch",
                told,
            ), told
        assert len(found["told"]) == 2
