"""Nothing is made on the wrong device: shown without a GPU, and with one where there is one.

A tensor that is made without ``device=`` works on every machine that has no GPU, and fails on the
first that has. So a mode watches the package's own calls of torch's factories.
"""

import sys
from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive
from pyro.infer.mcmc import NUTS
from pyro.optim import Adam
from torch.overrides import TorchFunctionMode

import pyro_ssl
from pyro_ssl import (
    LanguageModel,
    LSTMTransition,
    MarkovEM,
    MarkovTransition,
    MeanFieldELBO,
    MeanFieldGuide,
    MultiplicativeLSTMTransition,
    ParticleFilter,
    ParticleGibbs,
    StochasticEM,
    TopicalSSL,
    ssl_transition,
)
from pyro_ssl.belief import belief_view, dependency_graph, from_hmm, memory_horizon, to_hmm
from pyro_ssl.exact import chains as exact
from pyro_ssl.exact import kalman
from pyro_ssl.models import IMVLSTM, GaussianSSL
from pyro_ssl.reading.program import Program
from pyro_ssl.smc import TableEmission, conditional_smc
from pyro_ssl.testing import invariance_test, verify, verify_sampler
from pyro_ssl.transitions import (
    GaussianLSTMTransition,
    LinearGaussianTransition,
    PathDistribution,
)

PACKAGE = str(Path(next(iter(pyro_ssl.__path__))))

#: factories whose result is floating point unless they are told otherwise
FLOATING = {"zeros", "ones", "empty", "full", "rand", "randn", "linspace", "logspace", "eye"}
FACTORIES = FLOATING | {
    *("arange", "tensor", "as_tensor", "randint", "randperm", "tril_indices", "triu_indices"),
}


class NoBareFactory(TorchFunctionMode):
    """Fails factory calls of the package without device or dtype."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        caller = sys._getframe(1)
        if name in FACTORIES and caller.f_code.co_filename.startswith(PACKAGE):
            of_tensor = name == "as_tensor" and isinstance(args[0], torch.Tensor)
            floats = name in FLOATING or any(isinstance(arg, float) for arg in args)
            wanted = ["device"] * (not of_tensor) + ["dtype"] * (floats and not of_tensor)
            missing = [f"{word}=" for word in wanted if word not in kwargs]
            where = f"{caller.f_code.co_filename}:{caller.f_lineno}"
            assert not missing, f"{where}: torch.{name} without {' and '.join(missing)}"
        return func(*args, **kwargs)


K, V, T, B = 3, 5, 6, 4


class World:
    """A ragged model with inputs, on a device, with all of its data."""

    def __init__(self, device="cpu", dtype=torch.float64):
        self.device, self.dtype = torch.device(device), dtype
        like = {"device": device, "dtype": dtype}
        self.transition = LSTMTransition(K, 4, input_size=2).to(**like)
        self.words = torch.randint(V, (T, B), device=device)
        self.inputs = torch.randn(T, B, 2, **like)
        self.lengths = torch.randint(1, T + 1, (B,), device=device)
        self.prior = torch.ones(K, V, **like)
        self.log_emission = torch.randn(T, B, K, **like)
        self.initial, self.matrix = torch.full((K,), 1 / K, **like), torch.eye(K, **like) + 0.1
        self.matrix = self.matrix / self.matrix.sum(-1, keepdim=True)

    def model(self, words, num_steps=T):
        pyro.module("transition", self.transition)
        phi = pyro.sample("phi", dist.Dirichlet(self.prior).to_event(1))
        with pyro.plate("documents", B, device=self.device):
            for t, z in ssl_transition(
                "z", self.transition, num_steps, inputs=self.inputs, lengths=self.lengths
            ):
                obs = None if words is None else words[t]
                pyro.sample("x", dist.Categorical(phi[z]), obs=obs)

    def bayesian_hmm(self, words):
        rows = pyro.sample("rows", dist.Dirichlet(self.prior[:, :K]).to_event(1))
        chain = MarkovTransition(K, initial=self.initial, matrix=rows)
        with pyro.plate("documents", B, device=self.device):
            for t, z in ssl_transition("z", chain, T, lengths=self.lengths):
                pyro.sample("x", dist.Categorical(self.prior[z]), obs=words[t])

    def of_other_sites(self, x):
        """Latents by a closed form, by gradients, by their values, and in the transition."""
        like = {"device": self.device, "dtype": self.dtype}
        zero, one = torch.zeros(K, **like), torch.ones(K, **like)
        mean = pyro.sample("mean", dist.Normal(zero, one).to_event(1))
        rate = pyro.sample("rate", dist.Gamma(one, one).to_event(1))
        scale = pyro.sample("scale", dist.LogNormal(zero[0], one[0]))
        weight = pyro.sample("weight", dist.Normal(zero, one).to_event(1))
        pyro.module("transition", self.transition)
        transition = self.transition.given({"head.bias": weight})
        with pyro.plate("documents", B, device=self.device):
            sign = pyro.sample("sign", dist.Bernoulli(0.5 * one[0]))
            for t, z in ssl_transition("z", transition, T, inputs=self.inputs):
                pyro.sample("y", dist.Poisson(rate[z]), obs=self.words[t].to(self.dtype))
                pyro.sample("x", dist.Normal(mean[z] + sign, scale), obs=x[t])

    def chains(self, words, num_loops=1):
        """Two chains beside one another, with labels; or two loops, the second reading the first.

        The rows of the second chain are latent.
        """
        rows = pyro.sample("rows", dist.Dirichlet(self.prior[:2, :2]).to_event(1))
        start = torch.full((2,), 0.5, device=self.device, dtype=self.dtype)
        second = MarkovTransition(2, initial=start, matrix=rows)
        known = {"obs": words % 2, "obs_mask": words > 2}
        table = self.log_emission[:K, 0, :2].softmax(-1)
        more = {"inputs": self.inputs, "lengths": self.lengths}
        pyro.module("transition", self.transition)
        with pyro.plate("documents", B, device=self.device):
            if num_loops == 1:
                both = {"z": self.transition, "w": second}
                labels = {what: {"w": value} for what, value in known.items()}
                for t, (z, w) in ssl_transition(both, T, **more, **labels):
                    pyro.sample("x", dist.Bernoulli(table[z, w]), obs=(words[t] % 2).to(self.dtype))
                return
            for t, z in ssl_transition("z", self.transition, T, **more):
                pyro.sample("x", dist.Categorical(self.prior[z]), obs=words[t])
            for t, w in ssl_transition("w", second, T, lengths=self.lengths, **known):
                pyro.sample("y", dist.Bernoulli(table[z, w]), obs=(words[t] % 2).to(self.dtype))

    def paths(self):
        lengths, inputs = self.lengths, self.inputs.transpose(0, 1)
        return PathDistribution(self.transition, T, inputs=inputs, lengths=lengths)


# ------------------------------------------------------------------------------- what is run


def read_the_model(w):
    run = Program(w.model, (w.words,)).run()
    path = torch.zeros(T, B, dtype=torch.long, device=w.device)
    return run.grid.table(), run.grid.path(path), run.log_transition(path), run.log_joint(path)


def sweeps(w):
    z = torch.zeros(T, B, dtype=torch.long, device=w.device)
    out = []
    for resampling in ("systematic", "multinomial"):
        for reference in (None, z):
            sweep = conditional_smc(
                w.transition,
                TableEmission(w.log_emission),
                3,
                reference,
                lengths=w.lengths,
                inputs=w.inputs,
                resampling=resampling,
                ancestor_sampling=2,
                transition_scale=torch.ones(B, dtype=w.dtype, device=w.device),
            )
            out += [sweep.path, sweep.z, sweep.log_likelihood, sweep.failed]
    return out


def gibbs(w):
    out = []
    for model in (w.model, w.bayesian_hmm):
        for num_chains in (1, 2):
            pg = ParticleGibbs(model, 3, ancestor_sampling=2)
            pg.run(w.words, num_samples=4, num_chains=num_chains, disable_progbar=True)
            pg.diagnostics()
            out += [*pg.get_samples().values(), *pg.get_samples(num_samples=2).values()]
    return out


def other_sites(w):
    x, out = w.log_emission[..., 0], []
    shallow = partial(NUTS, max_tree_depth=2)
    pg = ParticleGibbs(w.of_other_sites, 3, ancestor_sampling=2, inner_kernel=shallow)
    pg.run(x, num_samples=2, warmup_steps=1, num_chains=2, disable_progbar=True)
    pg.summary()
    samples = pg.get_samples()
    score = ParticleFilter(w.of_other_sites, 3, posterior_samples=samples)
    forecast = score.forecast(x, start=2)
    out += [score.log_likelihood(x), score.log_evidence(x), forecast.log_prob, forecast.paths]
    model = pyro.condition(w.of_other_sites, {"sign": samples["sign"][0]})
    em = StochasticEM(model, Adam({"lr": 0.1}), num_particles=3)
    em.step(x)
    em.step(x)
    return [*samples.values(), *em.values.values(), *out]


def em(w):
    em = StochasticEM(w.model, Adam({"lr": 0.1}), num_particles=3, num_sweeps=2)
    em.step(w.words)
    em.step(w.words)
    return list(em.values.values())


def several_chains(w):
    out = []
    for num_loops in (1, 2):
        pyro.clear_param_store()
        model, pg = w.chains, ParticleGibbs(w.chains, 3, ancestor_sampling=2)
        run = {"num_samples": 2, "num_chains": 2, "disable_progbar": True}
        pg.run(w.words, num_loops, **run)
        em = StochasticEM(model, Adam({"lr": 0.1}), num_particles=3)
        em.step(w.words, num_loops)
        em.step(w.words, num_loops)
        out += [*pg.get_samples().values(), *em.paths.values()]
    score = ParticleFilter(pyro.condition(w.chains, {"rows": w.prior[:2, :2] / 2}), 3)
    forecast = score.forecast(w.words, start=2)
    return [*out, *forecast.paths.values(), *forecast.state_probs.values()]


def markov_em(w):
    fit = MarkovEM(w.model)
    fit.step(w.words)
    return [fit.initial, fit.matrix]


def particle_filter(w):
    model = pyro.condition(w.model, {"phi": w.prior / V})
    return [ParticleFilter(model, 3).log_likelihood(w.words)]


def mean_field(w):
    guide = MeanFieldGuide(w.model)
    svi = SVI(w.model, guide, Adam({"lr": 0.1}), loss=MeanFieldELBO())
    svi.step(w.words)
    svi.step(w.words)
    return [*guide(w.words).values(), guide.marginals(w.words), *guide.values.values()]


def tempered(w):
    """``poutine.scale`` around the loop reaches the sweep as a tensor."""
    model = poutine.scale(w.model, scale=0.5)
    pg = ParticleGibbs(model, 3)
    pg.run(w.words, num_samples=2, disable_progbar=True)
    guide = MeanFieldGuide(model)
    SVI(model, guide, Adam({"lr": 0.1}), loss=MeanFieldELBO()).step(w.words)
    return [*pg.get_samples().values(), guide.marginals(w.words)]


def multiplicative(w):
    like = {"device": w.device, "dtype": w.dtype}
    out = []
    for squash in ("cell", "output"):
        for weight_norm in (False, True):
            transition = MultiplicativeLSTMTransition(
                K, 4, input_size=2, squash=squash, weight_norm=weight_norm, variational_dropout=0.5
            ).to(**like)
            sweep = conditional_smc(transition, TableEmission(w.log_emission), 3, inputs=w.inputs)
            log_p = transition.log_prob(sweep.path.T, w.inputs.transpose(0, 1))
            assert log_p.dtype == w.dtype
            out += [sweep.path, log_p]
    return out


def topical(w):
    out = []
    for inference in ("particle_gibbs", "smc", "mean_field"):
        ssl = TopicalSSL(K, V, hidden_size=4).to(device=w.device, dtype=w.dtype)
        ssl.fit(
            w.words,
            w.lengths,
            valid=(w.words, w.lengths),
            num_epochs=2,
            batch_size=2,
            inference=inference,
            markov_steps=2,
            markov_starts=1,
            transition_steps=1,
            num_valid_particles=3,
            disable_progbar=True,
        )
        out += [ssl.phi, ssl.occupancy, ssl.transform(w.words, w.lengths, num_samples=2)]
    return out


def language_model(w):
    model = LanguageModel(V, embedding_size=3, hidden_size=4, cell="mlstm")
    model.to(device=w.device, dtype=w.dtype)
    model.fit(w.words, w.lengths, num_epochs=2, batch_size=2, disable_progbar=True)
    return [model.log_likelihood(w.words, w.lengths)]


def path_distribution(w):
    z = w.paths().sample()
    return [z, w.paths().sample((2,)), w.paths().log_prob(z)]


def predictive(w):
    return list(Predictive(w.model, num_samples=3)(None).values())


def invariance(w):
    result = invariance_test(w.model, w.words, num_replicates=1000)
    assert result.p_value > 1e-6
    return [result.change_rate, result.independent_rate]


def verified(w):
    """Over states, and over vectors with exact answers and without."""
    like = {"device": w.device, "dtype": w.dtype}
    chain = LinearGaussianTransition(2).to(**like)

    def vectors(x, make):
        pyro.module("chain", chain)
        with pyro.plate("sequences", B, device=w.device):
            for t, z in ssl_transition("z", chain, T):
                pyro.sample("x", make(z).to_event(1), obs=x[t])

    x = torch.randn(T, B, 2, **like)
    for report in (
        verify(w.model, w.words),
        verify(vectors, x, lambda z: dist.Normal(z, 1.0)),
        verify(vectors, x.abs().floor(), lambda z: dist.Poisson(z.exp())),
    ):
        assert report.passed, report
    return [w.words]


def exact_answers(w):
    enumeration = exact.enumerate_paths(
        w.transition, w.log_emission, inputs=w.inputs, lengths=w.lengths
    )
    hmm = (w.initial, w.matrix, w.log_emission, w.lengths)
    return [
        enumeration.posterior,
        enumeration.log_evidence,
        enumeration.index(enumeration.paths),
        exact.markov_log_likelihood(*hmm),
        exact.markov_marginals(*hmm),
        exact.sample_markov_paths(*hmm),
    ]


def vectors(w):
    """A linear sensor, for which the look-ahead is exact, and counts, for which it is expanded."""
    like = {"device": w.device, "dtype": w.dtype}
    x = torch.randn(T, B, 2, **like)
    out = []
    for reads in ("positions", "increments"):
        transition = GaussianLSTMTransition(2, 4, residual=True, min_scale=0.1, reads=reads)
        transition.to(**like)

        def model(data, sensor, transition=transition):
            pyro.module(transition.reads, transition)
            with pyro.plate("sequences", B, device=w.device):
                for t, z in ssl_transition("z", transition, T, lengths=w.lengths):
                    pyro.sample("x", sensor(z).to_event(1), obs=data[t])

        for data, sensor in (
            (x, lambda z: dist.Normal(z, 0.3)),
            (x.abs().round(), lambda z: dist.Poisson(z.exp())),
        ):
            pg = ParticleGibbs(model, 3, ancestor_sampling=1)
            pg.run(data, sensor, num_samples=2, disable_progbar=True)
            learn = StochasticEM(model, Adam({"lr": 0.01}), 3)
            learn.step(data, sensor)
            out += [pg.get_samples()["z"], learn.paths]
            out += [ParticleFilter(model, 3).log_likelihood(data, sensor)]
    return out


def other_emissions(w):
    x, found = torch.ones(T, B, 2, device=w.device, dtype=w.dtype), []
    x[::2, :, 0] = 0.0
    for emission in ("bernoulli", "poisson", "student_t"):
        ssl = GaussianSSL(1, hidden_size=3, emission=emission)
        ssl.to(device=w.device, dtype=w.dtype)
        ssl.fit(x, w.lengths, num_epochs=2, num_paths=1, disable_progbar=True)
        forecast = ssl.forecast(x, 2, num_particles=5)
        found += [*ssl.emission, *ssl.filter(x, num_particles=5), forecast.samples]
        found += [ssl.score(x, 1, num_particles=5).crps, ssl.simulate(2).x]
    return found


def gaussian_ssl(w):
    x = torch.randn(T, B, 3, device=w.device, dtype=w.dtype)
    ssl = GaussianSSL(2, hidden_size=4).to(device=w.device, dtype=w.dtype)
    settings = {"num_epochs": 2, "num_paths": 2, "disable_progbar": True}
    ssl.fit(x, w.lengths, learn_loading=True, **settings)
    forecast = ssl.forecast(x, 2, num_particles=5)
    smoothed = ssl.smooth(x, w.lengths, num_samples=2, warmup_steps=1, num_particles=3)
    filtered = ssl.filter(x, w.lengths, num_particles=5)
    return [*ssl.emission, *smoothed, *filtered, forecast.samples, *forecast.interval()]


def gaps(w):
    like = {"device": w.device, "dtype": w.dtype}
    x, u, out = torch.randn(T, B, 3, **like), torch.randn(T, B, 1, **like), []
    x[1:3, :, 0], x[2:, 0, 1] = torch.nan, torch.nan
    few = {"num_samples": 2, "warmup_steps": 1, "num_chains": 1, "num_particles": 3}
    for autoregressive in (False, True):
        ssl = GaussianSSL(2, hidden_size=4, input_size=1, autoregressive=autoregressive)
        ssl.to(**like).fit(x, inputs=u, num_epochs=2, num_paths=2, disable_progbar=True)
        out += [ssl.calibrate(x, inputs=u, **few), ssl.impute(x, inputs=u, **few).samples]
        later = torch.cat([u, u[:2]])
        out += ssl.smooth(x, inputs=u, **few)
        out += ssl.forecast(x, 2, inputs=later, num_particles=9)[:2]
    return out


def kalman_answers(w):
    like = {"device": w.device, "dtype": w.dtype}
    chain = LinearGaussianTransition(2).to(**like)
    emission = kalman.LinearEmission(
        torch.ones(1, 2, **like), torch.zeros(1, **like), torch.eye(1, **like)
    )
    x = torch.randn(T, B, 1, **like)
    given = (chain, emission, x)
    return [
        *kalman.kalman_filter(*given, lengths=w.lengths),
        *kalman.kalman_smoother(*given),
        kalman.sample_kalman_paths(*given, (2,)),
    ]


def imv(w):
    like = {"device": w.device, "dtype": w.dtype}
    x, y, mask = torch.randn(7, 5, 4, **like), torch.randn(7, 2, **like), torch.rand(7, 5, 4) < 0.8
    mask, out = mask.to(w.device), []
    for cell in ("tensor", "full"):
        model = IMVLSTM(4, 3, cell=cell, num_targets=2, num_steps=5).to(**like)
        settings = {"num_epochs": 2, "batch_size": 3, "disable_progbar": True}
        model.fit(x, y, mask=mask, valid=(x, y, mask), squared_error=1.0, **settings)
        forecast = model.predict(x, mask=mask)
        out += [*forecast.interval(), forecast.log_prob(y), model.importance(x, y)]
        out += [model.temporal_importance(x)]
    return out


def beliefs(w):
    like = {"device": w.device, "dtype": w.dtype}
    lstm = torch.nn.LSTM(V, 4).to(**like)
    symbols = torch.randint(V, (T, B), device=w.device)
    one_hot = torch.nn.functional.one_hot(symbols, V).to(w.dtype)
    view = belief_view(lstm, one_hot)
    hmm = to_hmm(lstm, symbols, num_states=3)
    chain = MarkovTransition(K, initial=w.initial, matrix=w.matrix)
    graph, horizon = dependency_graph(lstm), memory_horizon(chain)
    emission = w.prior / V
    gate = from_hmm(w.matrix, emission)
    return [
        *view.gates["input"],
        view.joint("input"),
        graph.strength,
        horizon.tv,
        hmm.log_prob(symbols),
        gate.sequence(one_hot)[0],
    ]


ALL = [
    read_the_model,
    sweeps,
    gibbs,
    other_sites,
    em,
    several_chains,
    markov_em,
    particle_filter,
    mean_field,
    tempered,
    multiplicative,
    topical,
    language_model,
    path_distribution,
    predictive,
    invariance,
    verified,
    exact_answers,
    vectors,
    gaussian_ssl,
    gaps,
    other_emissions,
    kalman_answers,
    imv,
    beliefs,
]


@pytest.fixture(autouse=True)
def few_sweeps(monkeypatch):
    """A verification bounds what chance may do by how much is drawn: a right model passes."""
    monkeypatch.setattr(verify_sampler, "REPLICATES", 600)


@pytest.mark.stage("system")
@pytest.mark.parametrize("use", ALL)
def test_factories_are_told_where_and_what(use):
    """The model's dtype is not the default one: no tensor of the default is mixed in."""
    assert torch.get_default_dtype() == torch.float64
    world = World(dtype=torch.float32)
    with NoBareFactory():
        assert use(world)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("use", ALL)
def test_on_cuda(use, dtype):
    world = World("cuda", dtype)
    results = [value for value in use(world) if isinstance(value, torch.Tensor)]
    assert results and all(value.is_cuda for value in results)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
@pytest.mark.parametrize("ancestor_sampling", [0, 1])
@pytest.mark.parametrize("P", [2, 3])
def test_invariance_on_cuda(resampling, ancestor_sampling, P, dtype):
    """In float32 by Triton, in float64 by torch."""
    world = World("cuda", dtype)
    with torch.no_grad():
        for parameter in world.transition.parameters():
            parameter *= 6
    result = invariance_test(
        world.model,
        world.words,
        num_particles=P,
        resampling=resampling,
        ancestor_sampling=ancestor_sampling,
    )
    assert result.p_value > 1e-6


def test_the_mode_sees_the_package():
    """The mode must look at the right callers."""
    source = "import torch\ntorch.zeros(3)\n"
    with NoBareFactory():
        exec(compile(source, "elsewhere.py", "exec"))
        with pytest.raises(AssertionError, match=r"torch.zeros without device= and dtype="):
            exec(compile(source, f"{PACKAGE}/smc/sweep.py", "exec"))
