"""Draws go to ArviZ with the names of their dimensions, and with the data that they are given."""

import contextlib
import sys
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_ssl import LSTMTransition, ParticleGibbs, ssl_transition
from pyro_ssl.transitions import LinearGaussianTransition
from tests.faults.digest import nothing_changes

az = pytest.importorskip("arviz")

K, V, T, B, D, C, S = 3, 5, 6, 4, 2, 2, 5
LENGTHS = torch.tensor([T, 1, 3, 0])


def make_model(input_size=0, plates=(B,)):
    transition = LSTMTransition(K, 4, input_size=input_size)
    names = [f"plate of {size}" for size in plates]

    def model(words, lengths=None, inputs=None):
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, V)).to_event(1))
        pyro.sample("seen", dist.Normal(phi.sum(-1), 1.0).to_event(1), obs=torch.zeros(K))
        with contextlib.ExitStack() as stack:
            for dim, (name, size) in enumerate(zip(names, plates, strict=True), -len(plates)):
                stack.enter_context(pyro.plate(name, size, dim=dim))
            for t, z in ssl_transition("z", transition, T, lengths=lengths, inputs=inputs):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    return model


def run(model, *args, **kwargs):
    sampler = ParticleGibbs(model, 3)
    sampler.run(*args, num_samples=S, num_chains=C, warmup_steps=1, disable_progbar=True, **kwargs)
    return sampler


def numbers(data):
    return torch.as_tensor(data.values)


def test_posterior_and_sample_stats():
    sampler = run(make_model(), torch.randint(V, (T, B)), LENGTHS)
    data, samples = sampler.to_arviz(), sampler.get_samples(group_by_chain=True)
    z, phi = data["posterior"]["z"], data["posterior"]["phi"]
    assert z.dims == ("chain", "draw", "sequence", "time") and z.dtype.kind == "i"
    assert phi.dims == ("chain", "draw", "phi_dim_0", "phi_dim_1")
    assert torch.equal(numbers(z), samples["z"]) and torch.equal(numbers(phi), samples["phi"])
    assert not numbers(z)[:, :, torch.arange(T) >= LENGTHS[:, None]].any()
    stats, found = data["sample_stats"], sampler.diagnostics()
    assert {"moved", "log_joint", "switches", "occupancy_entropy"} <= set(stats.data_vars)
    for name in stats.data_vars:
        assert stats[name].dims == ("chain", "draw") and stats[name].shape == (C, S)
    assert float(stats["log_joint"].mean()) == pytest.approx(found["log_joint"]["mean"])
    assert "log_likelihood" not in data


def test_share_that_moved_is_that_of_the_latents():
    sampler = run(make_model(), torch.randint(V, (T, B)))
    moved = numbers(sampler.to_arviz()["sample_stats"]["moved"])
    z = sampler.get_samples(group_by_chain=True)["z"]
    expected = (z[:, 1:] != z[:, :-1]).double().mean((2, 3))
    torch.testing.assert_close(moved[:, 1:], expected)
    assert float(moved.mean()) == pytest.approx(float(sampler.diagnostics()["change_rate"].mean()))


def test_data():
    words, inputs = torch.randint(V, (T, B)), torch.randn(T, B, 2)
    data = run(make_model(input_size=2), words, LENGTHS, inputs).to_arviz()
    assert data["observed_data"]["x"].dims == ("time", "sequence")
    assert torch.equal(numbers(data["observed_data"]["x"]), words)
    assert data["observed_data"]["seen"].shape == (K,)
    assert torch.equal(numbers(data["constant_data"]["lengths"]), LENGTHS)
    assert data["constant_data"]["inputs"].dims == ("time", "sequence", "input")
    within = (torch.arange(T)[:, None] < LENGTHS).unsqueeze(-1)
    assert torch.equal(numbers(data["constant_data"]["inputs"]), inputs * within)


@pytest.mark.parametrize("plates", [(), (B,), (2, 3)])
def test_log_likelihood_is_that_of_pyros_trace(plates):
    words, model = torch.randint(V, (T, *plates)), make_model(plates=plates)
    sampler = run(model, words)
    data, samples = sampler.to_arviz(log_likelihood=True), sampler.get_samples(group_by_chain=True)
    found = data["log_likelihood"]["x"]
    names = {0: (), 1: ("sequence",), 2: ("plate of 2", "plate of 3")}[len(plates)]
    assert found.dims == ("chain", "draw", *names)
    assert data["posterior"]["z"].dims == ("chain", "draw", *names, "time")
    for c, s in ((0, 0), (1, S - 1)):
        values = {name: value[c, s] for name, value in samples.items()}
        trace = poutine.trace(pyro.condition(model, values)).get_trace(words)
        trace.compute_log_prob()
        for name in ("x", "seen"):
            terms = trace.nodes[name]["log_prob"]
            expected = terms.sum(0) if name == "x" else terms
            torch.testing.assert_close(numbers(data["log_likelihood"][name])[c, s], expected)


@pytest.mark.parametrize("make", [lambda z: dist.Normal(z, 1.0), lambda z: dist.Poisson(z.exp())])
def test_vectors(make):
    chain, x = LinearGaussianTransition(D), torch.ones(T, B, D)

    def model(x, lengths=None):
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", chain, T, lengths=lengths):
                pyro.sample("x", make(z).to_event(1), obs=x[t])

    sampler = run(model, x, LENGTHS)
    data = sampler.to_arviz(log_likelihood=True)
    assert data["posterior"]["z"].dims == ("chain", "draw", "sequence", "time", "z_dim_0")
    assert data["observed_data"]["x"].dims == ("time", "sequence", "x_dim_0")
    z = sampler.get_samples(group_by_chain=True)["z"].movedim(3, 0)
    expected = make(z).log_prob(x[:, None, None]).sum(-1)
    within = (torch.arange(T)[:, None] < LENGTHS)[:, None, None]
    found = numbers(data["log_likelihood"]["x"])
    torch.testing.assert_close(found, (expected * within).sum(0))


def test_summary():
    data = run(make_model(), torch.randint(V, (T, B)), LENGTHS).to_arviz()
    assert len(az.summary(data, var_names=["phi"])) == K * V
    assert len(az.summary(data, group="sample_stats")) >= 4
    with warnings.catch_warnings():  # ArviZ divides by the variance of what is padded
        warnings.simplefilter("ignore", RuntimeWarning)
        assert len(az.summary(data)) == K * V + B * T


def test_an_interrupted_run_keeps_its_draws():
    def interrupt(params, i):
        if i == 3:
            raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match="Stopped after 3 of 5 draws"):
        sampler = run(make_model(), torch.randint(V, (T, B)), hook_fn=interrupt)
    data = sampler.to_arviz()
    assert data["posterior"]["z"].shape[1] == data["sample_stats"]["moved"].shape[1] == 3


def test_nothing_changes():
    sampler = run(make_model(), torch.randint(V, (T, B)))
    with nothing_changes(objects=[sampler]):
        sampler.to_arviz(log_likelihood=True)


def test_before_a_run():
    with pytest.raises(RuntimeError, match="No samples yet"):
        ParticleGibbs(make_model()).to_arviz()


def test_without_arviz(monkeypatch):
    sampler = run(make_model(), torch.randint(V, (T, B)))
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"write pip install 'pyro-ssl\[arviz\]'"):
        sampler.to_arviz()
