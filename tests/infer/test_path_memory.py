"""Paths in a file: the same steps as in memory, bit by bit, and a file that cleans up after itself.

Nothing here is a matter of chance: two runs from one seed are the same, or they are not.
"""

import errno
import functools
import os

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.optim import Adam

from pyro_ssl import LSTMTransition, StochasticEM, ssl_transition
from pyro_ssl.errors import CheckpointError
from pyro_ssl.infer.path_rows import longer_rows, rows_like, zero_rows
from tests.faults.digest import nothing_changes
from tests.faults.disk import damage, full_disk
from tests.infer.test_saved_em import RUNS, fresh, step, words
from tests.statistics import by_pairs

KINDS = ("drawn", "minibatches", "vectors", "two chains", "two loops")
quietly = pytest.mark.filterwarnings("ignore:.*the twist that")


def losses_of(name, folder=None, saved=None, start=0, stop=4, seed=0):
    """Losses of some steps and the paths after them, perhaps from a save, or saved at the end."""
    em = fresh(name, seed)
    em._memory.folder = folder
    if start:
        em.load(saved, *RUNS[name][2](0))
    losses = [step(em, name, i) for i in range(start, stop)]
    if saved is not None and not start:
        em.save(saved)
    return losses, em.paths


@functools.cache
def whole(name):
    return losses_of(name)


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
    return torch.equal(one, other) and one.dtype == other.dtype


@pytest.mark.stage("system")
@quietly
@pytest.mark.parametrize("name", KINDS)
def test_steps_are_the_same_wherever_paths_are(tmp_path, name):
    losses, paths = whole(name)
    found, on_disk = losses_of(name, tmp_path / "paths")
    assert found == losses and same(on_disk, paths)
    assert not list((tmp_path / "paths").iterdir())  # the file has no name


@pytest.mark.stage("system")
@quietly
@pytest.mark.parametrize("name, before, after", by_pairs(KINDS, *[("memory", "disk")] * 2))
def test_a_run_goes_on_wherever_paths_are(tmp_path, name, before, after):
    losses, paths = whole(name)
    folders = {"memory": None, "disk": tmp_path / "paths"}
    kept = losses_of(name, folders[before], tmp_path / "saved", stop=2)[1]
    again = fresh(name, 7)
    again._memory.folder = folders[after]
    again.load(tmp_path / "saved", *RUNS[name][2](0))
    assert same(again.paths, kept)  # on which few particles may hang at the next step
    found, last = losses_of(name, folders[after], tmp_path / "saved", start=2, seed=5)
    assert found == losses[2:] and same(last, paths)


def test_states_take_one_byte_in_memory_too():
    em = fresh("drawn", 0)
    step(em, "drawn", 0)
    assert em._memory._paths.dtype == torch.uint8 and em.paths.dtype == torch.int64


@pytest.mark.parametrize("on_disk", [False, True])
def test_many_states_and_texts_of_other_lengths(tmp_path, on_disk):
    """Minibatches as long as their longest text, of more states than a byte holds."""
    K, lengths = 300, torch.tensor([3, 5, 9, 4])
    x = torch.arange(36).reshape(9, 4) * 8 % K
    transition = LSTMTransition(K, 2)
    emission = torch.full((K, K), 1e-9).fill_diagonal_(1.0)

    def model(index):
        pyro.module("transition", transition)
        n, T = lengths[index], int(lengths[index].max())
        with pyro.plate("documents", 4, subsample=index):
            for t, z in ssl_transition("z", transition, T, lengths=n):
                pyro.sample("x", dist.Categorical(emission[z]), obs=x[:T, index][t])

    folder = tmp_path if on_disk else None
    em = StochasticEM(model, Adam({"lr": 0.01}), 3, twist=None, paths_folder=folder)
    for index in ([0, 1], [2], [0, 3], [1]):
        em.step(torch.tensor(index))
    assert em.paths.shape == (4, 9)
    for b, n in enumerate(lengths.tolist()):
        assert em.paths[b, :n].tolist() == x[:n, b].tolist() and not em.paths[b, n:].any()
    em.save(tmp_path / "saved")
    again = StochasticEM(model, Adam({"lr": 0.01}), 3, twist=None, paths_folder=folder)
    again.load(tmp_path / "saved", torch.tensor([0, 1]))
    assert torch.equal(again.paths, em.paths)


def test_rows_grow_seldom_in_a_file_and_to_the_step_in_memory(tmp_path):
    rows = torch.arange(6, dtype=torch.int16).reshape(2, 3)
    for folder, expected in ((None, 4), (tmp_path, 6)):
        longer = longer_rows(rows_like(rows, folder), 4, folder)
        assert longer.shape == (2, expected) and longer.dtype == torch.int16
        assert torch.equal(longer[:, :3], rows) and not longer[:, 3:].any()
        assert longer_rows(longer, 4, folder) is longer


def test_a_full_disk_is_told_before_a_step(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    em = fresh("drawn", 0)
    em._memory.folder = tmp_path
    monkeypatch.setattr(os, "posix_fallocate", fail, raising=False)
    with (
        nothing_changes(tmp_path, objects=[em]),
        pytest.raises(OSError, match="No space left on device; 48 bytes of paths do not fit"),
    ):
        em.step(words())
    monkeypatch.undo()
    em.step(words())


def test_the_space_of_the_file_is_taken_at_once(tmp_path):
    before = os.statvfs(tmp_path)
    rows = zero_rows((2**13, 2**13), torch.empty(0, dtype=torch.uint8), tmp_path)
    after = os.statvfs(tmp_path)
    assert (before.f_bfree - after.f_bfree) * before.f_frsize > 2**25 and not rows.any()


@pytest.mark.stage("system")
@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_damaged_paths_of_a_save(tmp_path, how):
    em, losses, folder = fresh("drawn", 0), [], tmp_path / "saved"
    em._memory.folder = tmp_path / "paths"
    for i in range(3):
        losses.append(step(em, "drawn", i))
        em.save(folder)
    old, new = sorted(folder.rglob("tensors-*"), key=lambda file: file.stat().st_mtime_ns)
    new.unlink() if how == "gone" else damage(new, how)
    again = fresh("drawn", 3)
    with pytest.warns(RuntimeWarning, match="one of its two checkpoints is damaged"):
        again.load(folder, words())
    assert step(again, "drawn", 2) == losses[2]
    damage(old, "flip")
    with nothing_changes(folder, objects=[again]), pytest.raises(CheckpointError):
        again.load(folder, words())


@pytest.mark.parametrize("which", range(4))
def test_a_full_disk_leaves_the_last_save(tmp_path, which):
    em = fresh("drawn", 0)
    em._memory.folder = tmp_path / "paths"
    step(em, "drawn", 0)
    em.save(tmp_path / "saved")
    losses = [step(em, "drawn", 1)]
    with full_disk(after=which), pytest.raises(OSError, match="No space left"):
        em.save(tmp_path / "saved")
    again = fresh("drawn", 5)
    again.load(tmp_path / "saved", words())
    assert again._num_steps == 2 or step(again, "drawn", 1) == losses[0]
