"""Draws in a folder: those that memory would have, whole whatever happens, and read meanwhile.

Nothing here is a matter of chance: two runs from one seed are the same, or they are not.
"""

import errno
import os

import pytest
import torch

from pyro_ssl import ParticleGibbs
from pyro_ssl.errors import CheckpointError
from pyro_ssl.infer.draw_files import DrawFiles
from pyro_ssl.infer.draws import Draws
from tests.faults.digest import digest_of_folder, nothing_changes
from tests.faults.disk import damage, newest_save
from tests.infer.test_saved_chains import UPDATES, B, T, all_of, data, result_of, run

nightly = pytest.mark.stage("nightly")

KINDS = ("states", "three chains", "warm-up", "occupancy", "vectors", "two loops, chains")


def ends(draw):
    return {"ends": draw["z"][..., -1]}


@pytest.mark.stage("system")
@pytest.mark.parametrize("name", KINDS)
def test_draws_are_the_same_wherever_they_are(tmp_path, name):
    expected, found = run(name), run(name, draws_folder=tmp_path)
    assert all_of(found) == all_of(expected)
    on_disk = ParticleGibbs.read_draws(tmp_path)
    kept = expected._samples
    assert on_disk.keys() == kept.keys()
    for site, value in kept.items():
        assert torch.equal(on_disk[site], value) and on_disk[site].dtype == value.dtype


@pytest.mark.stage("system")
def test_what_a_function_keeps_and_thinning(tmp_path):
    options = {"keep": ends, "thinning": 3}
    expected = run("three chains", **options).get_samples()
    assert all(
        map(
            torch.equal,
            run("three chains", draws_folder=tmp_path, **options).get_samples().values(),
            expected.values(),
        )
    )
    assert ParticleGibbs.read_draws(tmp_path)["ends"].shape == (3, UPDATES // 3, B)


@pytest.mark.stage("system")
def test_states_take_one_byte_and_the_occupancy_is_read_off_the_disk(tmp_path):
    found, expected = run("three chains", draws_folder=tmp_path), run("three chains")
    assert ParticleGibbs.read_draws(tmp_path)["z"].dtype == torch.uint8
    assert (tmp_path / "0.bin").stat().st_size == UPDATES * 3 * B * T
    assert torch.equal(found.occupancy(), expected.occupancy())


# ------------------------------------------------------------------------------------ stopped


@pytest.mark.stage("system")
@pytest.mark.parametrize(
    "name, every, stop",
    [
        *((name, 3, 4) for name in KINDS),
        ("states", 1, 2),
        *(pytest.param(name, 1, 2, marks=nightly) for name in KINDS[1:]),
    ],
)
def test_a_run_that_is_stopped_goes_on_as_if_it_never_was(tmp_path, name, every, stop):
    how = {"every": every, "draws_folder": tmp_path / "draws"}
    run(name, tmp_path / "run", stop, **how)
    again = run(name, tmp_path / "run", seed=1 + stop, resume=True, **how)
    assert all_of(again) == result_of(name)


def killed(folder, draws, at, every=3):
    """A run that is gone after a draw, without a save at the end."""

    def hook(params, i):
        if i == at:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run("states", folder, every=every, hook_fn=hook, draws_folder=draws)


@pytest.mark.stage("system")
@pytest.mark.parametrize("at", [0, 3, 5, *(pytest.param(at, marks=nightly) for at in (1, 2, 4))])
def test_draws_after_the_last_save_are_drawn_again(tmp_path, at):
    expected = result_of("states")
    killed(tmp_path / "run", tmp_path / "draws", at)
    assert ParticleGibbs.read_draws(tmp_path / "draws")["z"].shape[1] == at + 1
    seed = 5 if at >= 3 else 0  # what is not saved yet begins anew, from the same seed
    again = run("states", tmp_path / "run", seed=seed, resume=True, draws_folder=tmp_path / "draws")
    assert all_of(again) == expected


@pytest.mark.stage("system")
def test_checkpoints_hold_no_draws_that_are_elsewhere(tmp_path):
    sizes = []
    for options in ({}, {"draws_folder": tmp_path / "draws"}):
        run("states", tmp_path / str(len(sizes)), num_samples=20, every=20, **options)
        sizes.append(newest_save(tmp_path / str(len(sizes))).stat().st_size)
    assert sizes[1] < sizes[0] - 20 * B * T


@pytest.mark.stage("system")
def test_a_checkpoint_moves_draws_to_a_folder_and_asks_for_it(tmp_path):
    expected = result_of("states")
    run("states", tmp_path / "run", 3)
    again = run("states", tmp_path / "run", 4, resume=True, draws_folder=tmp_path / "draws")
    assert len(again.get_samples()["z"]) == 5
    with pytest.raises(CheckpointError, match=r"write draws_folder="):
        run("states", tmp_path / "run", resume=True)
    found = run("states", tmp_path / "run", resume=True, draws_folder=tmp_path / "draws")
    assert all_of(found) == expected


# ----------------------------------------------------------------------------- read meanwhile


def test_draws_are_read_while_the_run_goes_on(tmp_path):
    seen = []

    def hook(params, i):
        found = ParticleGibbs.read_draws(tmp_path)
        seen.append(found["z"].shape[1])
        assert torch.equal(found["z"][0, -1].long(), params["z"])

    run("states", hook_fn=hook, draws_folder=tmp_path)
    assert seen == list(range(1, UPDATES + 1))


def test_half_a_draw_is_none(tmp_path):
    """Of several sites, of which one has more draws, or a part of one."""
    files = DrawFiles(tmp_path)
    one = {"a": torch.zeros(1, 4, dtype=torch.int32), "b": torch.zeros(1, dtype=torch.float64)}
    for _ in range(3):
        files.append(one)
    for cut in range(1, 17):
        os.truncate(tmp_path / "0.bin", 48 - cut)
        found = ParticleGibbs.read_draws(tmp_path)
        assert {value.shape[1] for value in found.values()} == {2}
    os.truncate(tmp_path / "1.bin", 8)
    assert ParticleGibbs.read_draws(tmp_path)["a"].shape == (1, 1, 4)
    os.truncate(tmp_path / "1.bin", 7)
    assert ParticleGibbs.read_draws(tmp_path)["a"].shape == (1, 0, 4)


def test_edits_of_what_was_read_stay_in_memory(tmp_path):
    run("states", draws_folder=tmp_path)
    before = digest_of_folder(tmp_path)
    ParticleGibbs.read_draws(tmp_path)["z"].fill_(7)
    assert digest_of_folder(tmp_path) == before


# ------------------------------------------------------------------------------------- faults


def test_a_full_disk_leaves_whole_draws(tmp_path, monkeypatch):
    real, left = os.write, [3]

    def write(handle, content):
        left[0] -= 1
        if left[0] == 0:
            return real(handle, content[:1])
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, content)

    files = DrawFiles(tmp_path)
    one = {"a": torch.arange(4).view(1, 4), "b": torch.arange(3).view(1, 3)}
    monkeypatch.setattr(os, "write", write)
    files.append(one)
    with pytest.raises(OSError, match="No space left on device; the 1 draws before are whole"):
        files.append(one)
    monkeypatch.undo()
    assert (tmp_path / "0.bin").stat().st_size == 32
    files.append(one)  # where there is room again
    found = ParticleGibbs.read_draws(tmp_path)
    assert torch.equal(found["a"], one["a"].expand(1, 2, 4)) and found["b"].shape == (1, 2, 3)
    again = DrawFiles(tmp_path, over=True)
    files.close()
    again.state = files.state  # the hashes are those of the files
    assert again.number == 2


def test_an_error_on_disk_ends_the_run_and_leaves_the_sampler(tmp_path, monkeypatch):
    done = run("states")

    def write(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pyro_ssl.infer.draw_files._write_all", write)
        with nothing_changes(objects=[done]), pytest.raises(OSError, match="the 0 draws before"):
            done.run(data(), num_samples=4, draws_folder=tmp_path)


@pytest.mark.stage("system")
@pytest.mark.parametrize("how", ["flip", "cut", "gone", "header", "no header"])
def test_damage_is_told(tmp_path, how):
    run("states", tmp_path / "run", 5, draws_folder=tmp_path / "draws")
    file = tmp_path / "draws" / ("draws.json" if "header" in how else "0.bin")
    file.unlink() if how in ("gone", "no header") else damage(
        file, "cut" if how == "cut" else "flip"
    )
    before = digest_of_folder(tmp_path)
    with pytest.raises(CheckpointError, match="draws"):
        run("states", tmp_path / "run", resume=True, draws_folder=tmp_path / "draws")
    assert digest_of_folder(tmp_path) == before
    if how in ("gone", "header", "no header"):
        with pytest.raises(CheckpointError, match="draws"):
            ParticleGibbs.read_draws(tmp_path / "draws")


def test_draws_of_another_run_are_not_written_over(tmp_path):
    run("states", tmp_path / "run", draws_folder=tmp_path / "draws")
    before = digest_of_folder(tmp_path)
    for options in ({}, {"folder": tmp_path / "other"}):
        with pytest.raises(CheckpointError, match="draws of another"):
            run("states", draws_folder=tmp_path / "draws", **options)
    assert digest_of_folder(tmp_path) == before
    with pytest.raises(CheckpointError, match="A run makes the folder with its first draw"):
        ParticleGibbs.read_draws(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="expected a folder"):
        run("states", draws_folder=3)


def test_two_runs_do_not_share_a_folder(tmp_path):
    files = DrawFiles(tmp_path)
    files.append({"a": torch.zeros(1)})
    other = DrawFiles(tmp_path, over=True)
    with pytest.raises(CheckpointError, match="another run adds draws here"):
        other.append({"a": torch.zeros(1)})
    files.close()
    other.close()
    last = DrawFiles(tmp_path, over=True)
    last.append({"a": torch.ones(1)})
    assert ParticleGibbs.read_draws(tmp_path)["a"].tolist() == [[1.0]]


def test_a_run_lets_go_of_its_folder(tmp_path):
    pg = run("states", draws_folder=tmp_path)
    DrawFiles(tmp_path, over=True).append({"a": torch.ones(1)})
    assert pg is not None
    with pytest.raises(ZeroDivisionError):
        run("states", hook_fn=lambda params, i: 1 / 0, draws_folder=tmp_path / "b")
    DrawFiles(tmp_path / "b", over=True).append({"a": torch.ones(1)})


def test_nothing_to_keep_is_no_draw(tmp_path):
    draws = Draws("occupancy", 1, 0, {"z": 2}, DrawFiles(tmp_path / "draws"))
    draws.add({"z": torch.zeros(1, 3, dtype=torch.long)})
    assert draws.samples() == {} and len(draws) == 1 and not (tmp_path / "draws").exists()
    draws.state = draws.state
    assert len(draws) == 1
