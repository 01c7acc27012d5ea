"""``ParticleGibbs`` behaves as users of Pyro's ``MCMC`` expect; its laws are tested elsewhere."""

import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, Predictive
from pyro.nn import PyroModule, PyroSample

from pyro_ssl import (
    LSTMTransition,
    MarkovTransition,
    ParticleGibbs,
    ParticleGibbsKernel,
    ssl_transition,
)
from pyro_ssl.errors import LatentSiteError

K, V, T, B = 3, 5, 4, 2


class TopicModel:
    """A model that pickles: K topics, the words' distributions latent."""

    def __init__(self, num_states=K, input_size=0):
        self.transition = LSTMTransition(num_states, 4, input_size=input_size)
        self.prior = dist.Dirichlet(torch.ones(num_states, V)).to_event(1)

    def __call__(self, words=None, num_steps=T, num_sequences=B, lengths=None, inputs=None):
        if words is not None:
            num_steps, num_sequences = words.shape
        phi = pyro.sample("phi", self.prior)
        with pyro.plate("documents", num_sequences):
            for t, z in ssl_transition(
                "z", self.transition, num_steps, lengths=lengths, inputs=inputs
            ):
                obs = None if words is None else words[t]
                pyro.sample("x", dist.Categorical(phi[z]), obs=obs)


def bayesian_hmm(words):
    """The transition is latent too."""
    rows = pyro.sample("rows", dist.Dirichlet(torch.ones(K + 1, K)).to_event(1))
    phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, V)).to_event(1))
    chain = MarkovTransition(K, initial=rows[0], matrix=rows[1:])
    with pyro.plate("documents", words.shape[1]):
        for t, z in ssl_transition("z", chain, len(words)):
            pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])


def given_phi(model=None):
    phi = dist.Dirichlet(torch.ones(K, V)).sample()
    return poutine.condition(model or TopicModel(), {"phi": phi})


@pytest.fixture
def words():
    return torch.randint(V, (T, B))


def run(model, *args, num_samples=3, num_particles=3, seed=0, twist="markov", **kwargs):
    pyro.set_rng_seed(seed)
    pg = ParticleGibbs(model, num_particles, twist=twist)
    pg.run(*args, num_samples=num_samples, disable_progbar=True, **kwargs)
    return pg


# ------------------------------------------------------------------------------------------ samples


@pytest.mark.parametrize("C", [1, 4])
@pytest.mark.parametrize("make", [TopicModel, lambda: bayesian_hmm], ids=["topics", "hmm"])
def test_samples(make, words, C):
    model = make()
    pg = run(model, words, num_chains=C)
    samples, grouped = pg.get_samples(), pg.get_samples(group_by_chain=True)
    shapes = {"z": (B, T), "phi": (K, V)} | ({"rows": (K + 1, K)} if model is bayesian_hmm else {})
    assert set(samples) == set(grouped) == set(shapes)
    for name, shape in shapes.items():
        assert samples[name].shape == (3 * C, *shape) and not samples[name].requires_grad
        assert grouped[name].shape == (C, 3, *shape)
        assert torch.equal(grouped[name].flatten(0, 1), samples[name])
        if name == "z":
            assert samples[name].dtype == torch.long
            assert samples[name].min() >= 0 and samples[name].max() < K
        else:
            torch.testing.assert_close(samples[name].sum(-1), torch.ones(3 * C, shape[0]))
        some = pg.get_samples(num_samples=5)[name]
        assert some.shape == (5, *shape)
        assert all((value == samples[name]).flatten(1).all(1).any() for value in some)
    if C > 1:  # the chains are not copies of one
        assert len(grouped["phi"].unique(dim=0)) == C


@pytest.mark.parametrize("shape", [(), (2, 3)])
@pytest.mark.parametrize("C", [1, 2])
def test_plates(shape, C):
    words, transition = torch.randint(V, (T, *shape)), LSTMTransition(K, 4)
    phi = dist.Dirichlet(torch.ones(V)).sample((K,))

    def model():
        with pyro.plate_stack("plates", shape):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    pg = run(model, num_chains=C)
    assert pg.get_samples()["z"].shape == (3 * C, *shape, T)
    z = ParticleGibbs(model, 3).sweep(None)
    assert z.shape == (*shape, T) and ParticleGibbs(model, 3).sweep(z).shape == z.shape


def test_pyro_module(words):
    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.topics = TopicModel().transition
            self.phi = PyroSample(dist.Dirichlet(torch.ones(K, V)).to_event(1))

        def forward(self, words):
            phi = self.phi
            with pyro.plate("documents", words.shape[1]):
                for t, z in ssl_transition("z", self.topics, len(words)):
                    pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    samples = run(Model(), words).get_samples()
    assert samples["z"].shape == (3, B, T) and samples["phi"].shape == (3, K, V)


def test_model_that_is_masked_out_is_drawn_as_nothing(words):
    z = torch.randint(K, (B, T))
    model = poutine.mask(given_phi(), mask=torch.tensor([True, False]))
    assert not ParticleGibbs(model, 3).sweep(z, words)[1].any()
    model = poutine.mask(given_phi(), mask=False)
    assert not ParticleGibbs(model, 3).sweep(z, words).any()


@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize("sizes", [(1, T, B), (K, 1, B), (K, T, 1), (1, 1, 1)])
@pytest.mark.parametrize("P", [1, 2])
def test_smallest_sizes(sizes, P, C):
    K, T, B = sizes
    pg = run(TopicModel(K), torch.randint(V, (T, B)), num_particles=P, num_chains=C)
    assert pg.get_samples()["z"].shape == (3 * C, B, T)
    assert pg.get_samples()["phi"].shape == (3 * C, K, V)


def test_ragged_with_inputs(words):
    lengths, inputs = torch.tensor([2, T]), torch.randn(T, B, 2)
    words = words.masked_fill(torch.arange(T)[:, None] >= lengths, -1)
    model = TopicModel(input_size=2)
    z = run(model, words, lengths=lengths, inputs=inputs, num_samples=20).get_samples()["z"]
    assert not z[:, 0, 2:].any() and z[:, 1].any()
    z = ParticleGibbs(given_phi(model), 3).sweep(z[0], words, lengths=lengths, inputs=inputs)
    assert not z[0, 2:].any()


def test_deterministic_data_are_found():
    """Where x tells z, every chain is there after one sweep."""
    words = torch.randint(K, (T, B))
    model = poutine.condition(TopicModel(), {"phi": torch.eye(K, V)})
    z = run(model, words, num_chains=2).get_samples()["z"]
    assert (z == words.T).all()


# ---------------------------------------------------------------------------------------- options


def test_one_particle_returns_the_reference(words):
    z = torch.randint(K, (B, T))
    pg = run(given_phi(), words, num_particles=1, initial_params={"z": z})
    assert (pg.get_samples()["z"] == z).all()
    assert not pg.diagnostics()["change_rate"].any()
    assert torch.equal(ParticleGibbs(given_phi(), 1).sweep(z, words), z)


@pytest.mark.parametrize("C", [1, 2])
def test_initial_params(words, C):
    lead = (C,) if C > 1 else ()
    start = {"z": torch.randint(K, (*lead, B, T)), "phi": torch.full((*lead, K, V), 1 / V)}
    kept = {name: value.clone() for name, value in start.items()}
    pg = run(TopicModel(), words, num_particles=1, num_chains=C, initial_params=start)
    z = pg.get_samples(group_by_chain=True)["z"]
    assert (z == start["z"].reshape(C, 1, B, T)).all()
    assert all(torch.equal(start[name], kept[name]) for name in start)


def test_same_seed_same_draws(words):
    model = TopicModel()
    first, again, other = (
        run(model, words, num_chains=2, seed=seed).get_samples() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["phi"], other["phi"])


def test_warmup_is_thrown_away(words):
    model = TopicModel()
    all_of_them = run(model, words, num_samples=5, twist=None)
    the_last = run(model, words, num_samples=2, warmup_steps=3, twist=None)
    for name, value in the_last.get_samples().items():
        assert torch.equal(value, all_of_them.get_samples()[name][3:])
    assert the_last.diagnostics()["num_sweeps"] == 2


def test_hook_fn(words):
    seen = []
    pg = run(
        TopicModel(),
        words,
        num_samples=3,
        warmup_steps=2,
        hook_fn=lambda params, i: seen.append((i, params)),
    )
    assert [i for i, _ in seen] == list(range(5))
    kept = torch.stack([params["z"] for _, params in seen[2:]])
    assert torch.equal(kept, pg.get_samples()["z"])


def test_progress_bar_shows_how_far_the_paths_move(words, capfd, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    ParticleGibbs(TopicModel(), 3).run(words, num_samples=2)
    assert "moved=" in capfd.readouterr().err
    monkeypatch.setenv("CI", "1")
    ParticleGibbs(TopicModel(), 3).run(words, num_samples=2)
    assert not capfd.readouterr().err


@pytest.mark.stage("system")
def test_diagnostics_and_summary(words, capsys):
    pg = run(TopicModel(), words, num_samples=20, num_chains=2)
    report = pg.diagnostics()
    assert report["num_sweeps"] == 20
    assert report["change_rate"].shape == (T,)
    assert ((report["change_rate"] >= 0) & (report["change_rate"] <= 1)).all()
    for name in ("log_joint", "switches", "occupancy_entropy"):
        assert set(report[name]) == {"mean", "sd", "n_eff", "r_hat"}
        assert report[name]["n_eff"] > 0 and report[name]["r_hat"] > 0.5
    pg.summary()
    printed = capsys.readouterr().out
    assert "log_joint" in printed and "r_hat" in printed and "changed in a sweep" in printed


def test_log_joint_is_that_of_the_trace(words):
    model = TopicModel()
    pg = run(model, words, num_samples=1)
    # The draw of phi comes after z, and the record is of z and the phi that it was drawn given.
    pyro.set_rng_seed(0)
    kernel = ParticleGibbsKernel(model, 3)
    kernel.setup(0, words)
    phi = kernel.initial_params["phi"]
    given = poutine.condition(model, {"z": pg.get_samples()["z"][0], "phi": phi})
    expected = poutine.trace(given).get_trace(words).log_prob_sum().item()
    assert pg.diagnostics()["log_joint"]["mean"] == pytest.approx(expected, abs=1e-9)


def test_leaves_pyro_as_it_was(words):
    trace = poutine.trace(lambda: run(TopicModel(), words)).get_trace()
    assert not [n for n in trace.nodes if n not in ("_INPUT", "_RETURN")]
    assert not list(pyro.get_param_store())


# ------------------------------------------------------------------------------ Pyro's own drivers


@pytest.mark.parametrize("make", [TopicModel, lambda: bayesian_hmm], ids=["topics", "hmm"])
def test_in_pyros_mcmc(make, words):
    model = make()
    mcmc = MCMC(ParticleGibbsKernel(model, 3), num_samples=6, warmup_steps=2, disable_progbar=True)
    mcmc.run(words)
    samples = mcmc.get_samples()
    assert samples["z"].shape == (6, B, T) and samples["phi"].shape == (6, K, V)
    assert torch.equal(samples["z"], samples["z"].round())
    assert samples["z"].min() >= 0 and samples["z"].max() < K
    mcmc.diagnostics()
    mcmc.summary()


def test_in_pyros_mcmc_draws_are_those_of_run(words):
    model = TopicModel()
    ours = run(model, words, num_samples=4).get_samples()
    pyro.set_rng_seed(0)
    mcmc = MCMC(ParticleGibbsKernel(model, 3), num_samples=4, warmup_steps=0, disable_progbar=True)
    mcmc.run(words)
    for name, value in mcmc.get_samples().items():
        assert torch.equal(value, ours[name].to(value.dtype))


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive(words, parallel):
    model = given_phi()
    samples = run(model, words, num_samples=6).get_samples()
    assert Predictive(model, samples, parallel=parallel)(None)["x"].shape == (6, T, B)


def test_predictive_for_new_documents(words):
    model = TopicModel()
    phi = run(model, words, num_samples=6).get_samples()["phi"]
    assert Predictive(model, {"phi": phi})(None, T + 2, 7)["x"].shape == (6, T + 2, 7)


def test_kernel_pickles(words):
    kernel = ParticleGibbsKernel(TopicModel(), 3, num_chains=2)
    pickle.loads(pickle.dumps(kernel)).setup(0, words)
    kernel.setup(0, words)
    twin = pickle.loads(pickle.dumps(kernel))
    draws = []
    for each in (kernel, twin):
        pyro.set_rng_seed(0)
        draws.append(each.sample(each.initial_params))
    assert all(torch.equal(draws[0][name], draws[1][name]) for name in draws[0])


# ------------------------------------------------------------------------------------------- sweep


def test_sweep(words):
    pg = ParticleGibbs(given_phi(), 3)
    first = pg.sweep(None, words)
    kept = first.clone()
    second = pg.sweep(first, words)
    for z in (first, second):
        assert z.shape == (B, T) and z.dtype == torch.long and z.max() < K
    assert torch.equal(first, kept)


def test_sweep_in_a_sampler_of_ones_own(words):
    """phi | z by hand, z | phi by sweep()."""
    model, phi, z = TopicModel(), torch.full((K, V), 1 / V), None
    for _ in range(3):
        z = ParticleGibbs(poutine.condition(model, {"phi": phi}), 3).sweep(z, words)
        counts = torch.zeros(K, V).index_put_((z.T, words), torch.tensor(1.0), accumulate=True)
        phi = dist.Dirichlet(1.0 + counts).sample()
    assert z.shape == (B, T)


@pytest.mark.parametrize(
    "reference, message",
    [
        (
            torch.zeros(T, B).long(),
            r"shape \(4, 2\) and dtype torch.int64, expected int64 \(2, 4\)",
        ),
        (torch.zeros(B, T + 1).long(), r"shape \(2, 5\).*expected int64 \(2, 4\), sequences first"),
        (torch.zeros(B, T), "dtype torch.float.., expected int64"),
        (torch.zeros(B, T).bool(), "dtype torch.bool, expected int64"),
        (torch.full((B, T), K), "holds states from 3 to 3, expected 0 to 2"),
        (torch.full((B, T), -1), "holds states from -1 to -1, expected 0 to 2"),
    ],
)
def test_sweep_checks_its_reference(words, reference, message):
    with pytest.raises(ValueError, match=f'Site "z": the reference .*{message}'):
        ParticleGibbs(given_phi(), 3).sweep(reference, words)


def test_sweep_names_the_other_latent_site(words):
    message = r'Site "phi": latent, but sweep\(\).*Give it: pyro.condition\(model, {"phi": value}'
    with pytest.raises(LatentSiteError, match=message):
        ParticleGibbs(TopicModel(), 3).sweep(None, words)


# ------------------------------------------------------------------------------------------ errors


def test_nothing_before_run():
    pg = ParticleGibbs(TopicModel(), 3)
    for ask in (pg.get_samples, pg.diagnostics, pg.summary):
        with pytest.raises(RuntimeError, match="No samples yet; write pg.run"):
            ask()


@pytest.mark.parametrize("wrong", [{"num_samples": 0}, {"warmup_steps": -1}, {"num_chains": 0}])
def test_run_checks_its_numbers(words, wrong):
    with pytest.raises(ValueError, match=r"expected at least 1, 0 and 1, integers\."):
        run(TopicModel(), words, **wrong)


@pytest.mark.parametrize(
    "start, message",
    [
        ({}, r'Site "z": missing from initial_params, which hold \[\]; expected a start for'),
        (
            {"z": torch.zeros(T, B).long()},
            r'Site "z": its start has shape \(4, 2\), expected \(2, 4',
        ),
        ({"z": torch.zeros(B, T)}, "dtype torch.float.., expected int64"),
        ({"z": torch.full((B, T), K)}, "holds states from 3 to 3, expected 0 to 2"),
    ],
)
def test_initial_params_are_checked(words, start, message):
    with pytest.raises(ValueError, match=message):
        run(given_phi(), words, initial_params=start)


def test_grouped_samples_are_not_subsampled(words):
    with pytest.raises(ValueError, match="group_by_chain=False"):
        run(TopicModel(), words).get_samples(num_samples=2, group_by_chain=True)


def test_subsampled_plate(words):
    transition = LSTMTransition(K, 4)

    def model():
        with pyro.plate("documents", B, subsample_size=1) as index:
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(torch.ones(K, V)[z]), obs=words[:, index][t])

    with pytest.raises(ValueError, match='Site "z": its plate is subsampled.*use StochasticEM'):
        run(model)
