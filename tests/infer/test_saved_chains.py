"""Particle Gibbs that is stopped at any draw and goes on elsewhere: to the last bit the same.

Nothing here is a matter of chance: two runs from one seed are the same, or they are not.
"""

import functools
import json
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.mcmc import HMC, NUTS

from pyro_ssl import (
    GaussianLSTMTransition,
    LSTMTransition,
    MarkovTransition,
    ParticleGibbs,
    ssl_transition,
)
from pyro_ssl.errors import CheckpointError
from pyro_ssl.infer.chain_run import _OWN, _kernel_state
from pyro_ssl.infer.plain import pack
from pyro_ssl.infer.run_state import KEPT
from tests.faults.digest import (
    digest_of_folder,
    digest_of_generators,
    digest_of_tensors,
    nothing_changes,
)
from tests.faults.disk import damage, full_disk, newest_save
from tests.infer import models_of_globals as worlds

K, V, T, B = 3, 5, 4, 2


def data(seed=7, num_symbols=V):
    return torch.randint(num_symbols, (T, B), generator=torch.Generator().manual_seed(seed))


def numbers():
    return torch.randn(T, B, generator=torch.Generator().manual_seed(7))


def transition(size=K, seed=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LSTMTransition(size, 4)


def topics(concentration=1.0, seed=3):
    lstm = transition(seed=seed)

    def model(x, lengths=None):
        phi = pyro.sample("phi", dist.Dirichlet(torch.full((K, V), concentration)).to_event(1))
        with pyro.plate("documents", B):
            for t, z in ssl_transition("z", lstm, T, lengths=lengths):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    return model


def vectors():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        lstm = GaussianLSTMTransition(2, 4)

    def model(x):
        with pyro.plate("series", B):
            for t, z in ssl_transition("z", lstm, T):
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=torch.stack([x[t]] * 2, -1))

    return model


def two_loops():
    first, second = transition(2), MarkovTransition(2)

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("series", B):
            for t, z in ssl_transition("z", first, T):
                pyro.sample("x", dist.Normal(z + mean.tanh().exp(), 1.0), obs=x[t])
            for t, w in ssl_transition("w", second, T):
                pyro.sample("y", dist.Normal(1.0 * w - z, 1.0), obs=x[t])

    return model


def same(model):
    return lambda: model


hmc = functools.partial(HMC, step_size=0.2, num_steps=2)
apart = {"mean": functools.partial(NUTS, max_tree_depth=2), "scale": hmc}
shallow = functools.partial(NUTS, max_tree_depth=2)
dense = functools.partial(NUTS, max_tree_depth=2, full_mass=True)

#: model, data, options of the class, options of a run
RUNS = {
    "states": (topics, data, {}, {}),
    "three chains": (topics, data, {}, {"num_chains": 3}),
    "warm-up": (topics, data, {}, {"warmup_steps": 3}),
    "no twist": (topics, data, {"twist": None, "ancestor_sampling": 2}, {}),
    "independent": (topics, data, {"path_kernel": "independent"}, {"warmup_steps": 2}),
    "occupancy": (topics, data, {}, {"keep": "occupancy", "thinning": 2, "num_chains": 2}),
    "vectors": (vectors, numbers, {}, {"warmup_steps": 2}),
    "two loops": (two_loops, numbers, {"inner_kernel": shallow}, {"warmup_steps": 3}),
    "two loops, chains": (two_loops, numbers, {"inner_kernel": hmc}, {"num_chains": 2}),
    "two chains of a loop": (same(worlds.two_chains), numbers, {"inner_kernel": hmc}, {}),
    "NUTS": (same(worlds.lstm_head), numbers, {"inner_kernel": shallow}, {"warmup_steps": 3}),
    "NUTS, chains": (
        *(same(worlds.normal_mean_and_scale), numbers, {"inner_kernel": dense}),
        {"warmup_steps": 3, "num_chains": 2},
    ),
    "a kernel a site": (
        *(same(worlds.normal_mean_and_scale), numbers, {"inner_kernel": apart}),
        {"warmup_steps": 3},
    ),
    "HMC, no warm-up": (same(worlds.logistic_rows), numbers, {"inner_kernel": hmc}, {}),
    "closed forms": (same(worlds.variances), numbers, {}, {"warmup_steps": 2}),
    "finite": (same(worlds.finite), numbers, {}, {}),
    "not conjugate": (
        *(same(worlds.not_conjugate), lambda: data(num_symbols=3), {"inner_kernel": shallow}),
        {"warmup_steps": 3},
    ),
    "rows": (same(worlds.markov_rows), lambda: data().double(), {}, {"num_chains": 2}),
}
UPDATES = 6


def run(name, folder=None, stop=None, seed=0, every=1, quiet=False, **options):
    """A run in a process of its own, as far as one test can have it, perhaps stopped."""
    model, x, how, more = RUNS[name]
    worlds.lstm()  # which sets a seed the first time
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    pg = ParticleGibbs(model(), 5, **how)

    def hook(params, i):
        if i == stop:
            raise KeyboardInterrupt

    more = {"num_samples": UPDATES - more.get("warmup_steps", 0), **more}
    where = {} if folder is None else {"checkpoint": folder, "every": every}
    with warnings.catch_warnings():
        if stop is not None or quiet:
            warnings.filterwarnings("ignore", "Stopped after")
        options = {**more, **where, "disable_progbar": True, **options}
        pg.run(x(), **{"hook_fn": hook, **options})
    return pg


def all_of(pg):
    """All that a run leaves."""
    tensors, kernels = {}, getattr(pg.kernel, "kernels", [pg.kernel])
    found = [pg.get_samples(group_by_chain=True), pg._occupancy, *map(_kernel_state, kernels)]
    packed = json.dumps(pack(found, tensors))
    return packed, digest_of_tensors(tensors), digest_of_generators()


@pytest.mark.stage("system")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_stopped_goes_on_as_if_it_never_was(tmp_path, name):
    goes_on(tmp_path, name, [4], result_of(name))


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("name", RUNS)
def test_wherever_it_is_stopped(tmp_path, name):
    assert all_of(run(name, tmp_path / "whole")) == result_of(name)
    goes_on(tmp_path, name, range(UPDATES), result_of(name))


@functools.cache
def result_of(name, **options):
    """What a run comes to that nobody stops, and that is saved nowhere."""
    return all_of(run(name, **options))


def goes_on(tmp_path, name, stops, expected):
    for stop in stops:
        folder = tmp_path / str(stop)
        run(name, folder, stop)
        again = run(name, folder, seed=1 + stop, resume=True)
        assert all_of(again) == expected


@pytest.mark.parametrize("name", ["three chains", "NUTS, chains", "two loops"])
def test_the_twist_is_the_same(tmp_path, always_twisted, name):
    goes_on(tmp_path, name, [4], all_of(run(name)))


def test_a_run_is_stopped_again_and_again(tmp_path):
    expected = result_of("NUTS")
    for stop in (0, 1, 3, 5):
        run("NUTS", tmp_path, stop, seed=stop, every=3, resume=True)
    assert all_of(run("NUTS", tmp_path, seed=9, resume=True)) == expected


def test_what_was_given_as_a_start_is_not_asked_for_again(tmp_path):
    z = {"z": torch.ones(B, T, dtype=torch.long), "phi": torch.ones(K, V) / V}
    expected = all_of(run("states", initial_params=z))
    run("states", tmp_path, 3, initial_params=z)
    assert all_of(run("states", tmp_path, seed=5, resume=True)) == expected


def test_a_finished_run_goes_on_to_more_draws(tmp_path):
    expected = result_of("states", num_samples=12)
    run("states", tmp_path)
    before = digest_of_folder(tmp_path)
    finished = run("states", tmp_path, seed=4, resume=True)
    assert len(finished.get_samples()["z"]) == UPDATES and digest_of_folder(tmp_path) == before
    assert all_of(run("states", tmp_path, seed=4, resume=True, num_samples=12)) == expected
    with pytest.raises(CheckpointError, match="found 12 draws per chain.*write num_samples=12"):
        run("states", tmp_path, resume=True)


def test_an_interrupt_amid_an_update_is_none(tmp_path, monkeypatch):
    """Neither block of a scan has drawn twice where the other has drawn once."""
    from pyro_ssl.infer.particle_gibbs_kernel import ParticleGibbsKernel

    expected = result_of("two loops")
    calls, update = [], ParticleGibbsKernel.update

    def interrupted(kernel, params):
        calls.append(kernel)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return update(kernel, params)

    with monkeypatch.context() as patch:
        patch.setattr(ParticleGibbsKernel, "update", interrupted)
        run("two loops", tmp_path, stop=99, every=100)
    assert not tmp_path.exists() or not list(tmp_path.glob("*/manifest.json"))
    with monkeypatch.context() as patch:
        calls.clear()
        patch.setattr(ParticleGibbsKernel, "update", interrupted)
        run("two loops", tmp_path, stop=99, every=2)
    assert all_of(run("two loops", tmp_path, seed=3, resume=True)) == expected


def test_an_error_leaves_all_as_it_was_and_the_last_save(tmp_path):
    expected, done = result_of("states"), run("states")

    def hook(params, i):
        if i == 5:
            raise ZeroDivisionError

    kept = all_of(done)[:2]
    with pytest.raises(ZeroDivisionError), nothing_changes(objects=[done]):
        done.run(data(), num_samples=8, hook_fn=hook, checkpoint=tmp_path / "a", every=2)
    assert all_of(done)[:2] == kept
    with pytest.raises(ZeroDivisionError):
        run("states", tmp_path, every=2, hook_fn=hook)
    assert all_of(run("states", tmp_path, seed=3, resume=True)) == expected


def test_every_attribute_is_kept_or_a_setting():
    kernel = run("NUTS").kernel
    settings = {"model", "settings", "num_chains", "transforms", "_validate", "_warmup_steps"}
    found_anew = {"_initial_params", "_drawn", "_before_run", "_program", "_sites", "given"}
    objects = {"_twisting", "_diagnostics", "_globals", "_update"}
    assert vars(kernel).keys() == {*_OWN} | settings | found_anew | objects
    assert vars(kernel._diagnostics).keys() == {*KEPT[type(kernel._diagnostics)]}
    assert vars(kernel._update).keys() == {"sites", "inner_kernel", "inner"}
    (inner,) = kernel._update.inner
    assert vars(inner).keys() == {"sites", "warmup_steps", "forms", "blocks"}
    (block,) = inner.blocks
    assert vars(block).keys() == {"names", "_target", "kernel", "_is_set_up", "_waiting"}


# ---------------------------------------------------------------------- what is kept of draws


@pytest.mark.parametrize("name", ["states", "three chains", "two chains of a loop", "two loops"])
def test_occupancy_is_that_of_the_paths(name):
    paths, counts = run(name, keep="paths"), run(name, keep="occupancy")
    z, found = paths.get_samples(), counts.get_samples()
    assert found.keys() == z.keys() - paths._paths.keys()
    assert all(torch.equal(found[n], z[n]) for n in found)
    assert digest_of_tensors(as_dict(paths)) == digest_of_tensors(as_dict(counts))
    for site, share in as_dict(counts).items():
        expected = torch.nn.functional.one_hot(z[site], share.shape[-1]).double().mean(0)
        torch.testing.assert_close(share, expected.transpose(0, 1))
        assert share.dtype == torch.float64


def as_dict(pg):
    found = pg.occupancy()
    return found if isinstance(found, dict) else {"z": found}


@pytest.mark.parametrize("name", ["states", "three chains", "NUTS, chains", "vectors"])
def test_a_function_of_draws_is_that_of_the_paths(name):
    def keep(draw):
        return {"last": draw["z"][..., -1], "first": 1.0 * draw["z"][:, 0]}

    z = run(name).get_samples(group_by_chain=True)["z"]
    pg = run(name, keep=keep)
    found = pg.get_samples(group_by_chain=True)
    assert torch.equal(found["last"], z[..., -1]) and torch.equal(
        found["first"], 1.0 * z[:, :, :, 0]
    )
    with pytest.raises(ValueError, match='expected keep="occupancy" or "paths"'):
        pg.occupancy()
    with pytest.raises(ValueError, match='write keep="paths" in the run'):
        pg.to_arviz()


@pytest.mark.parametrize("thinning", [1, 2, 3, UPDATES])
def test_thinned_draws_are_the_last_of_each(thinning):
    every, thinned = run("three chains"), run("three chains", thinning=thinning)
    all_draws, kept = (pg.get_samples(group_by_chain=True) for pg in (every, thinned))
    for name in kept:
        assert torch.equal(kept[name], all_draws[name][:, thinning - 1 :: thinning])
    stats = thinned.to_arviz().sample_stats["log_joint"].values
    assert (
        stats == every.to_arviz().sample_stats["log_joint"].values[:, thinning - 1 :: thinning]
    ).all()


def test_states_are_kept_small_and_returned_wide():
    pg = run("states")
    assert pg._samples["z"].dtype == torch.uint8
    assert {pg.get_samples(*n)["z"].dtype for n in ((), (3,))} == {torch.int64}
    assert pg.get_samples(group_by_chain=True)["z"].dtype == torch.int64


def test_what_to_keep_is_checked():
    for wrong in ({"keep": "path"}, {"keep": 3}, {"thinning": 0}, {"thinning": 9}):
        with pytest.raises(ValueError, match="expected"), nothing_changes():
            ParticleGibbs(topics(), 5).run(data(), num_samples=8, **wrong)
    with pytest.raises(ValueError, match="of vectors; expected a function of one draw"):
        run("vectors", keep="occupancy")
    with pytest.raises(TypeError, match="expected a dict of tensors"):
        run("states", keep=lambda draw: draw["z"])


# -------------------------------------------------------------------------------- refusals


def other(told, model=topics, x=data, how=None, **options):
    return told, model, x, how or {}, options


OTHER = [
    other(r"settings: num_chains is 1 there and 2 here.*Write num_chains=1", num_chains=2),
    other(r"settings: warmup_steps is 0 there and 1", warmup_steps=1),
    other(r"settings: thinning is 1 there and 2", thinning=2),
    other(r"settings: keep is paths there and occupancy", keep="occupancy"),
    other(r"settings: twist is markov there and None", how={"twist": None}),
    other(r"settings: num_particles is 5 there and 6", how={"num_particles": 6}),
    other(r"settings: inner_kernel is NUTS there and \{'of': 'HMC'", how={"inner_kernel": hmc}),
    other(r"data: x is int64 \(4, 2\) \w+ there and int64 \(4, 2\)", x=lambda: data(8)),
    other(r"model: parameter LSTMTransition.cell.* is .* there", model=lambda: topics(seed=4)),
    other(
        r"model: prior of phi is Dirichlet \(3,\) \w+ there and Dirichlet",
        model=lambda: topics(2.0),
    ),
    other(r"model: path z is .* 3 states there and .* 2 states", model=same(worlds.poisson_rates)),
]


@pytest.mark.parametrize("row", OTHER, ids=lambda row: row[0][:24])
def test_another_run_is_refused(tmp_path, row):
    told, model, x, how, options = row
    run("states", tmp_path, 3)
    pg = ParticleGibbs(model(), **{"num_particles": 5, **how})
    options = {"num_samples": 8, "disable_progbar": True, "resume": True, **options}
    with nothing_changes(tmp_path, objects=[pg]):
        with pytest.raises(CheckpointError, match=told) as caught:
            pg.run(x(), checkpoint=tmp_path, **options)
    assert "or give a new run a folder of its own" in str(caught.value)


def test_lengths_are_data(tmp_path):
    run("states", tmp_path, 3)
    pg = ParticleGibbs(topics(), 5)
    with pytest.raises(CheckpointError, match="data: lengths of z is None there"):
        lengths = torch.tensor([4, 2])
        pg.run(data(), lengths, num_samples=8, checkpoint=tmp_path, resume=True)


def labelled(x, known, mask, scale=1.0):
    with pyro.plate("documents", B), pyro.poutine.scale(scale=scale):
        for t, z in ssl_transition("z", FROZEN, T, obs=known, obs_mask=~mask):
            pyro.sample("x", dist.Normal(z, 1.0).mask(mask[t]), obs=x[t])


FROZEN = MarkovTransition(2, initial=torch.ones(2) / 2, matrix=torch.ones(2, 2) / 2)


@pytest.mark.parametrize("which", range(4))
def test_masks_labels_and_scales_are_data(tmp_path, which):
    FROZEN.double()
    first = [numbers(), torch.zeros(T, B).long(), torch.arange(T * B).view(T, B) % 3 > 0, 1.0]
    other = [numbers() + 1, torch.ones(T, B).long(), torch.arange(T * B).view(T, B) % 4 > 0, 0.5]
    how = {"num_samples": 3, "checkpoint": tmp_path, "resume": True, "disable_progbar": True}
    ParticleGibbs(labelled, 5).run(*first, **how)
    ParticleGibbs(labelled, 5).run(*first, **how)
    first[which] = other[which]
    told = ["x is", "z_obs is", "(z_obs|mask of x) is", "scale of z(_obs)? is"][which]
    with nothing_changes(tmp_path), pytest.raises(CheckpointError, match=f"other data: {told}"):
        ParticleGibbs(labelled, 5).run(*first, **how)


def test_a_run_is_not_written_over_unasked(tmp_path):
    run("states", tmp_path, 3)
    with nothing_changes(tmp_path):
        with pytest.raises(CheckpointError, match="found a checkpoint of another run.*resume=True"):
            ParticleGibbs(topics(), 5).run(data(), num_samples=8, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="write every=100"):
        run("states", tmp_path / "b", every=0)


# ---------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("how", ["flip", "cut"])
def test_a_damaged_newest_save_is_passed_over(tmp_path, how):
    expected = result_of("warm-up")
    run("warm-up", tmp_path, 4)
    damage(newest_save(tmp_path), how)
    with pytest.warns(RuntimeWarning, match="one of its two checkpoints is damaged"):
        assert all_of(run("warm-up", tmp_path, seed=3, resume=True)) == expected


def test_a_full_disk_is_told_and_the_run_goes_on(tmp_path):
    expected = result_of("states")
    run("states", tmp_path, 3)
    before = digest_of_folder(tmp_path)
    told = pytest.warns(RuntimeWarning, match="draw . could not be saved .*No space left")
    with full_disk(), told:
        assert all_of(run("states", tmp_path, seed=3, resume=True)) == expected
    assert digest_of_folder(tmp_path) == before
    assert all_of(run("states", tmp_path, seed=3, resume=True)) == expected


# ------------------------------------------------------------------------ read by others


@pytest.mark.parametrize("name", ["states", "three chains", "occupancy", "two loops", "NUTS"])
def test_draws_are_read_without_a_model(tmp_path, name):
    pg = run(name, tmp_path)
    found = ParticleGibbs.load_draws(tmp_path)
    wanted = pg.get_samples(group_by_chain=True)
    assert found.num_draws == next(iter(wanted.values())).shape[1]
    for site, value in found.get_samples(group_by_chain=True).items():
        assert value.dtype == wanted[site].dtype and torch.equal(value, wanted[site])
    assert found.get_samples(group_by_chain=True).keys() == wanted.keys()
    same = repr(found.diagnostics()), repr(as_dict(found))
    assert same[1] == repr(as_dict(pg))
    if name not in ("NUTS", "two loops"):  # step sizes are the inner kernel's
        assert same[0] == repr(pg.diagnostics())
        assert found.kernel.format() == pg.kernel.format()


def test_draws_of_a_run_in_progress_are_read(tmp_path):
    seen = []

    def hook(params, i):
        if i == 1:  # no draw yet, nothing kept
            seen.append(ParticleGibbs.load_draws(tmp_path).num_draws)
        if i >= 4:
            seen.append(len(ParticleGibbs.load_draws(tmp_path).get_samples()["z"]))

    run("warm-up", tmp_path, hook_fn=hook)
    assert seen == [0, 1, 2]


def test_draws_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        ParticleGibbs.load_draws(tmp_path / "nothing")
    run("states", tmp_path, keep=lambda draw: {"ends": draw["z"][:, -1]})
    found = ParticleGibbs.load_draws(tmp_path)
    assert found.get_samples()["ends"].shape == (UPDATES, B)
    with pytest.raises(ValueError, match="occupancy"):
        found.occupancy()
    with pytest.raises(ValueError, match=r"and then pg\.to_arviz\(\)"):
        found.to_arviz()
