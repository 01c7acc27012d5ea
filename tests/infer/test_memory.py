"""Memory is told before it is gone: what is refused would not have fitted, and the figure is right.

What a run takes is counted, not timed: the largest sum of the tensors that live at a time.
"""

import gc
import weakref

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_ssl import (
    GaussianLSTMTransition,
    LSTMTransition,
    ParticleFilter,
    ParticleGibbs,
    StochasticEM,
    TopicalSSL,
    kernels,
    ssl_transition,
)
from pyro_ssl.errors import NotEnoughMemory, SSLError
from pyro_ssl.infer import memory
from pyro_ssl.infer.draws import Draws
from pyro_ssl.infer.memory import available_memory, check_fits
from tests.faults.digest import nothing_changes

pytestmark = pytest.mark.stage("system")

T, B, K, V = 20, 300, 30, 9


def topics(latent=True):
    transition = LSTMTransition(K, 4)
    phi_ = torch.full((K, V), 1.0 / V)

    def model(words, index=None):
        pyro.module("transition", transition)
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, V)).to_event(1)) if latent else phi_
        with pyro.plate("documents", words.shape[1], subsample=index) as i:
            for t, z in ssl_transition("z", transition, len(words)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[:, i][t])

    return model


def vectors():
    transition = GaussianLSTMTransition(2, 4)

    def model(x):
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x)):
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[t])

    return model


def words():
    return torch.randint(V, (T, B))


class Living(TorchDispatchMode):
    """Adds up the storages of the tensors that operations have made and that are still there."""

    def __init__(self):
        super().__init__()
        self.now, self.peak, self._seen = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._meet(tensor.untyped_storage())
        return out

    def _meet(self, storage):
        key, size = storage.data_ptr(), storage.nbytes()
        if not size or key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._leave, key, size)

    def _leave(self, key, size):
        self._seen.discard(key)
        self.now -= size


def peak_of(call):
    gc.collect()
    with kernels.turned_off(), Living() as living:
        call()
    return living.peak


@pytest.fixture
def asked(monkeypatch):
    """What the checks found to be needed, in bytes, in the order of the checks."""
    found = []

    def check(who, needed, write):
        found.append(sum(needed.values()))

    monkeypatch.setattr(memory, "check_fits", check)
    monkeypatch.setattr("pyro_ssl.infer.chain_run.check_fits", check)
    return found


# -------------------------------------------------------------------- the estimate, and what it is


def test_a_sweep_needs_what_is_said(asked):
    model, x = topics(latent=False), words()
    peak = peak_of(lambda: ParticleFilter(model, 10, twist=None).log_likelihood(x))
    assert asked[0] <= peak <= 3 * asked[0]


def test_a_step_of_em_needs_what_is_said(asked):
    em, x = StochasticEM(topics(), pyro.optim.Adam({"lr": 0.01}), 10, twist=None), words()
    peak = peak_of(lambda: em.step(x))
    assert asked[0] <= peak <= 3 * asked[0]


def test_vectors_need_what_is_said(asked):
    model, x = vectors(), torch.randn(T, B, 2)
    peak = peak_of(lambda: ParticleFilter(model, 10, twist=None).log_likelihood(x))
    assert asked[0] <= peak <= 4 * asked[0]


@pytest.mark.parametrize("keep", ["paths", "occupancy"])
@pytest.mark.parametrize("num_chains", [1, 2])
def test_draws_need_what_is_said(keep, num_chains):
    draws = Draws(keep, 1, 2, {"z": 300})
    one = {"z": torch.randint(300, (num_chains, 50, 40)), "phi": torch.rand(num_chains, 300, 9)}
    needed = draws.needed(one, 102)

    def collect():
        for _ in range(102):
            draws.add({name: value.clone() for name, value in one.items()})
        return draws.samples(), draws.occupancy()

    peak = peak_of(collect)
    assert sum(needed.values()) <= peak <= 1.3 * sum(needed.values())


@pytest.mark.parametrize("num_chains", [1, 2])
def test_a_draw_leaves_no_tensor_behind(num_chains):
    """Small ones that stay keep the allocator from using again what large ones have left."""
    pg, x, found = ParticleGibbs(topics(latent=False), 2), torch.randint(V, (4, 3)), []

    def count(params, i):
        if i in (4, 19):
            gc.collect()
            found.append(sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects()))

    how = {"num_chains": num_chains, "keep": "occupancy", "hook_fn": count}
    pg.run(x, num_samples=20, disable_progbar=True, **how)
    assert found[0] == found[1]
    assert len(pg.kernel._diagnostics.moved) == 20


# ------------------------------------------------------------------------------------- refusals


def gib(monkeypatch, amount):
    monkeypatch.setattr(memory, "available_memory", lambda: int(amount * 2**30))
    monkeypatch.setattr("pyro_ssl.models.learners.available_memory", memory.available_memory)


MILLION = 10**6


@pytest.mark.parametrize(
    ("room", "options", "match"),
    [
        (
            1.0,
            {},
            r"1,000,000 draws of z \(1, 300, 20\): 11\.2 GiB\).* 1\.0 GiB .*keep=\"occupancy\"",
        ),
        (1.0, {"num_chains": 2}, r"draws of z \(2, 300, 20\): 22\.4 GiB"),
        (1.0, {"thinning": 10}, r"100,000 draws of z \(1, 300, 20\): 1\.1 GiB"),
        (3e-3, {"keep": "occupancy"}, r"visits of z: 3\.4 MiB.*write keep=lambda draw"),
        (
            1e-4,
            {},
            r'ParticleGibbs: site "z", T=20, B=300, P=10: needs 2\.7 MiB .*write num_chains=1',
        ),
    ],
)
def test_too_many_draws_are_told_before_the_first(monkeypatch, room, options, match):
    pg, x = ParticleGibbs(topics(latent=False), 10), words()
    gib(monkeypatch, room)
    with nothing_changes(objects=[pg]), pytest.raises(NotEnoughMemory, match=match):
        pg.run(x, num_samples=MILLION, disable_progbar=True, **options)


def test_what_is_on_disk_or_fits_is_not_refused(monkeypatch, tmp_path):
    pg, x = ParticleGibbs(topics(latent=False), 2, twist=None), words()
    gib(monkeypatch, 0.02)

    def stop(params, i):
        raise KeyboardInterrupt

    for options in ({"draws_folder": tmp_path}, {"keep": "occupancy"}, {"thinning": MILLION}):
        with pytest.warns(RuntimeWarning, match="Stopped after 1 of"):
            pg.run(x, num_samples=MILLION, hook_fn=stop, disable_progbar=True, **options)
    pg.run(x, num_samples=2, disable_progbar=True)


def test_a_step_that_does_not_fit_is_told_before_it(monkeypatch):
    em, x = StochasticEM(topics(), pyro.optim.Adam({"lr": 0.01}), 10), words()
    gib(monkeypatch, 1e-3)
    with nothing_changes(objects=[em]), pytest.raises(NotEnoughMemory, match="subsample=index"):
        em.step(x)
    em.step(x, torch.arange(20))  # a minibatch does


def test_scores_that_do_not_fit_are_told(monkeypatch):
    pf, x = ParticleFilter(topics(latent=False), 10), words()
    gib(monkeypatch, 1e-3)
    for call in (pf.log_likelihood, pf.log_evidence, pf.perplexity):
        with nothing_changes(objects=[pf]), pytest.raises(NotEnoughMemory, match="batches="):
            call(x)
    assert pf.perplexity(batches=[(x, index) for index in torch.arange(B).split(20)]) > 1.0


def test_a_fit_that_does_not_fit_is_told_before_its_hmm(monkeypatch):
    ssl, x = TopicalSSL(K, V, hidden_size=4), words()
    gib(monkeypatch, 1e-3)
    with (
        nothing_changes(modules=[ssl]),
        pytest.raises(
            NotEnoughMemory, match=r"a step of 300 texts of up to 20 words: .*batch_size=18,"
        ),
    ):
        ssl.fit(x)
    gib(monkeypatch, 4e-3)
    ssl.fit(x, batch_size=20, num_epochs=1, markov_steps=0, disable_progbar=True)


def test_the_error_is_pythons_too():
    assert issubclass(NotEnoughMemory, MemoryError) and issubclass(NotEnoughMemory, SSLError)
    check_fits("nobody", {"nothing": 0}, "")


# ------------------------------------------------------------------------------ what there is


def test_what_is_available(monkeypatch, tmp_path):
    found = available_memory()
    assert found is None or 2**20 < found < 2**50
    monkeypatch.setattr(memory, "_machine", lambda: None)
    monkeypatch.setattr(memory, "_groups", list)
    monkeypatch.setattr(memory, "_own_limit", lambda: None)
    assert available_memory() is None
    check_fits("anyone", {"anything": 2**80}, "")  # where nothing is known nothing is refused


@pytest.mark.parametrize("names", memory._GROUP_FILES)
def test_limits_of_groups(tmp_path, names):
    assert memory._group(tmp_path) is None
    content = ("1000", "700", "anon 500\nactive_file 40\ninactive_file 60\n")
    for name, text in zip(names, content, strict=True):
        (tmp_path / name).write_text(text)
    assert memory._group(tmp_path) == 400
    (tmp_path / names[0]).write_text("max\n")
    assert memory._group(tmp_path) is None
