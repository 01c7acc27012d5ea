"""Several chains in one loop: exact answers by all joint paths, and all that users meet.

Statistical tests ask for p > 1e-6, or |z| < 4.5 (7e-6): eight of them fail by chance, with another
seed, once in 20,000 times.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.inspect import get_dependencies
from pyro.optim import Adam

from pyro_ssl import (
    GaussianLSTMTransition,
    LSTMTransition,
    MarkovEM,
    MarkovTransition,
    MeanFieldGuide,
    ParticleFilter,
    ParticleGibbs,
    ParticleGibbsKernel,
    StochasticEM,
    ssl_transition,
)
from pyro_ssl.errors import LatentSiteError
from pyro_ssl.reading.program import Program
from pyro_ssl.testing import invariance_test
from pyro_ssl.transitions import ProductTransition
from tests.enumeration import all_paths, repeated
from tests.statistics import ALPHA, chi_square, p_value

T = 3
SIZES = {"a": 3, "b": 2}


def sharp(transition, factor=4.0):
    for parameter in transition.parameters():
        parameter.data.normal_().mul_(factor / 3)
    return transition


@pytest.fixture
def chains():
    return make_chains()


def make_chains():
    return {"a": sharp(LSTMTransition(3, 4)), "b": sharp(MarkovTransition(2))}


def factorial(chains, scale=1.0, mask=None, **loop):
    """x_t depends on both, and not on their sum alone."""
    table = torch.randn(3, 2)

    def model(x, lengths=None, scale=scale, mask=mask):  # (T, B)
        for name, transition in chains.items():
            pyro.module(name, transition)
        with (
            pyro.plate("series", x.shape[1]),
            poutine.scale(scale=scale),
            poutine.mask(mask=True if mask is None else mask),
        ):
            for t, (a, b) in ssl_transition(chains, len(x), lengths=lengths, **loop):
                pyro.sample("x", dist.Normal(2.0 * table[a, b], 1.0), obs=x[t])

    return model


# ------------------------------------------------------------------------------- exact answers

VARIANTS = {
    "plain": {},
    "ragged": {"lengths": torch.tensor(2)},
    "scaled": {"scale": torch.tensor(0.4)},
    "masked": {"mask": torch.tensor(False)},
}


def enumerated(model, x, given):
    args = [x, *(given.get(name) for name in ("lengths", "scale", "mask"))]
    return all_paths(lambda x, n, s, m: model(x, n, 1.0 if s is None else s, m), SIZES, *args)


@pytest.mark.parametrize("variant", VARIANTS)
def test_joint_of_the_samplers_is_that_of_the_trace(chains, variant):
    """log p(z, x) of every joint path, as the table and the product have it."""
    model, given, x = factorial(chains), VARIANTS[variant], torch.randn(T)
    exact = enumerated(model, x, given)
    N = len(exact.log_joint)
    kwargs = {name: repeated(value, N) for name, value in given.items()}
    run = Program(model, (repeated(x, N),), kwargs).run()
    path = run.flatten(exact.paths)
    with torch.no_grad():
        found = run.log_transition(path) + run.log_emission(path)
    torch.testing.assert_close(found, exact.log_joint)
    assert run.result(path).keys() == SIZES.keys()
    assert all(torch.equal(z, exact.paths[name]) for name, z in run.result(path).items())


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("variant", ["plain", "ragged"])  # the power of a density is no density
@pytest.mark.parametrize("twist", [None, "markov"])
def test_evidence_is_unbiased(chains, variant, twist, always_twisted, R=40_000):
    model, given, x = factorial(chains), VARIANTS[variant], torch.randn(T)
    kwargs = {name: repeated(value, R) for name, value in given.items()}
    log_z = ParticleFilter(model, 2, twist=twist).log_evidence(repeated(x, R), **kwargs)
    ratio = (log_z - reachable(enumerated(model, x, given), given).log_evidence).exp()
    assert (ratio.mean() - 1.0).abs() < 4.5 * ratio.std() / R**0.5


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("variant", ["plain", "ragged", "scaled"])
def test_one_sweep_keeps_the_exact_joint_posterior(chains, variant, R=40_000):
    model, given, x = factorial(chains), VARIANTS[variant], torch.randn(T)
    exact = reachable(enumerated(model, x, given), given)
    kwargs = {name: repeated(value, R) for name, value in given.items()}
    start = exact.draw(R)
    sampler = ParticleGibbs(model, 2, ancestor_sampling=1, twist=None)
    path = sampler.sweep(start, repeated(x, R), **kwargs)
    assert p_value([chi_square(exact.counts(path), exact.posterior)]) > ALPHA
    moved = (path["a"] != start["a"]) | (path["b"] != start["b"])
    assert moved.double().mean() > 0.1


def reachable(exact, given):
    """Without the paths that are not 0 past their length, which are never drawn."""
    if "lengths" not in given:
        return exact
    past = sum(z[:, given["lengths"] :].sum(-1) for z in exact.paths.values())
    return exact._replace(log_joint=exact.log_joint.masked_fill(past > 0, -torch.inf))


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("seed", range(3))
def test_invariance_test_takes_them(seed):
    torch.manual_seed(seed)
    chains = {
        "a": sharp(LSTMTransition(2, 3, input_size=1), 9.0),
        "b": sharp(LSTMTransition(2, 3), 9.0),
    }
    model = factorial(chains, inputs=torch.randn(4, 1))
    x, lengths = torch.randn(4, 2), torch.tensor([4, 3])
    result = invariance_test(model, x, lengths, num_particles=2, num_replicates=40_000, seed=seed)
    assert result.p_value > ALPHA
    assert result.change_rate.sum() > 0.1 * result.independent_rate.sum()


# --------------------------------------------------------------------- one chain, or some given


@pytest.mark.parametrize("name, other", [("a", "b"), ("b", "a")])
def test_given_the_others_a_chain_is_a_model_of_one(chains, name, other):
    """By ``condition`` and by ``replay``."""
    model, x = factorial(chains), torch.randn(T, 4)
    drawn = poutine.trace(model).get_trace(x)
    paths = {site: drawn.nodes[site]["value"] for site in SIZES}
    conditioned = pyro.condition(model, {other: paths[other]})
    run = Program(conditioned, (x,)).run()
    replayed = Program(poutine.replay(model, trace=only(drawn, other)), (x,)).run()
    for found in (run, replayed):
        assert found.paths.names == (name,) and found.transition is chains[name]
        assert torch.equal(found.grid.table(), run.grid.table())
        site = found.sites[other]
        assert site["is_observed"] and torch.equal(site["value"], paths[other])
        log_p = found.log_joint(found.flatten(paths[name])).item()
        assert log_p == pytest.approx(drawn.log_prob_sum().item())
    log_x = run.log_emission(run.flatten(paths[name])).sum()
    assert log_x.item() == pytest.approx(drawn.log_prob_sum(lambda n, _: n == "x").item())
    assert ParticleGibbs(conditioned, 3).sweep(None, x).keys() == {name}


def only(trace, name):
    trace = trace.copy()
    for other in list(trace.nodes):
        if trace.nodes[other]["type"] == "sample" and other != name:
            del trace.nodes[other]
    return trace


def test_a_chain_that_is_known_everywhere_is_observed(chains):
    known = torch.randint(2, (T, 4))
    model, x = factorial(chains, obs={"b": known}), torch.randn(T, 4)
    found = ParticleGibbs(model, 3).sweep(None, x)
    assert found.keys() == {"a"}
    given = pyro.condition(factorial(chains), {"b": known.T})
    tables = []
    for one in (model, given):
        pyro.set_rng_seed(0)
        tables.append(Program(one, (x,)).run().grid.table())
    assert tables[0].shape == tables[1].shape == (T, 4, 3)
    both = pyro.condition(model, {"a": torch.randint(3, (4, T))})
    with pytest.raises(LatentSiteError, match="no ssl_transition whose path is still to be drawn"):
        ParticleFilter(both, 3).log_evidence(x)


def test_what_is_left_to_draw_may_change(chains):
    """Paths of other chains than before start anew, with a warning."""
    model, x = factorial(chains), torch.randn(T, 4)
    given = {"b": torch.zeros(4, T, dtype=torch.long)}

    def sometimes(x, with_b):
        return (model if with_b else pyro.condition(model, given))(x)

    em = StochasticEM(sometimes, Adam({"lr": 0.01}), 3)
    em.step(x, True)
    assert em.paths.keys() == {"a", "b"}
    with pytest.warns(UserWarning, match="all paths start anew"):
        em.step(x, False)
    assert em.paths.keys() == {"a"}


def test_one_chain_in_a_dict_is_a_loop_of_one(chains):
    a, x = chains["a"], torch.randn(T, 4)

    def one(x):
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("a", a, len(x)):
                pyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=x[t])

    def dictionary(x):
        with pyro.plate("series", x.shape[1]):
            for t, (z,) in ssl_transition({"a": a}, len(x)):
                pyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=x[t])

    found = []
    for model in (one, dictionary):
        pyro.set_rng_seed(1)
        found.append(ParticleGibbs(model, 3).sweep(None, x))
    assert torch.equal(found[0], found[1]["a"])


# -------------------------------------------------------------------------- Pyro's own inference


@pytest.mark.parametrize("vectorised", [False, True])
def test_sites_of_pyros_own_inference(chains, vectorised):
    model, x = factorial(chains), torch.randn(T, 4)
    trace = poutine.trace(model).get_trace(x)
    assert {name: trace.nodes[name]["value"].shape for name in SIZES} == {"a": (4, T), "b": (4, T)}
    z = {name: torch.randint(K, (4, T)) for name, K in SIZES.items()}

    def guide(x):
        with pyro.plate("series", x.shape[1]):
            for name, K in SIZES.items():
                logits = 200.0 * torch.nn.functional.one_hot(z[name], K)  # certain to draw z
                pyro.sample(name, dist.Categorical(logits=logits.double()).to_event(1))

    elbo = Trace_ELBO(num_particles=3, vectorize_particles=vectorised)
    expected = poutine.trace(pyro.condition(model, z)).get_trace(x).log_prob_sum().item()
    assert SVI(model, guide, Adam({"lr": 0.01}), elbo).step(x) == pytest.approx(-expected)
    draws = {name: path.expand(6, 4, T) for name, path in z.items()}
    for parallel in (False, True):
        found = Predictive(poutine.uncondition(model), draws, parallel=parallel)(x)
        assert found["x"].shape == (6, T, 4)


def test_dependencies_are_those_of_the_body(chains):
    found = get_dependencies(factorial(chains), (torch.randn(T, 4),))
    assert found["posterior_dependencies"]["a"].keys() == {"a", "b", "x"}
    assert found["prior_dependencies"]["x"].keys() == {"a", "b", "x"}
    assert found["prior_dependencies"]["b"].keys() == {"b"}


# -------------------------------------------------------------------------- the inference classes


@pytest.mark.parametrize("num_chains", [1, 2])
def test_particle_gibbs_has_a_site_for_each(chains, num_chains):
    model, x = factorial(chains), torch.randn(T, 4)
    sampler = ParticleGibbs(model, 3)
    sampler.run(x, num_samples=5, num_chains=num_chains, disable_progbar=True)
    draws = sampler.get_samples(group_by_chain=True)
    assert {name: z.shape for name, z in draws.items()} == dict.fromkeys(
        SIZES, (num_chains, 5, 4, T)
    )
    assert all(int(draws[name].max()) < K for name, K in SIZES.items())
    start = {name: z[:, -1].squeeze(0) for name, z in draws.items()}
    again = {"num_samples": 1, "num_chains": num_chains, "disable_progbar": True}
    sampler.run(x, **again, initial_params=start)
    sampler.summary()
    kernel = ParticleGibbsKernel(model, 3)
    mcmc = pyro.infer.MCMC(kernel, num_samples=2, disable_progbar=True)
    mcmc.run(x)
    assert mcmc.get_samples().keys() == SIZES.keys()


def test_filter_splits_its_forecast(chains):
    chains["a"] = LSTMTransition(3, 4, input_size=2)
    u = torch.randn(T + 2, 4, 2)
    for inputs, future in ((u[:T], u[T:]), ({"a": u[:T]}, {"a": u[T:]})):
        model, x = factorial(chains, inputs=inputs), torch.randn(T, 4)
        score = ParticleFilter(model, 50)
        assert score.log_likelihood(x).shape == (T, 4)
        found = score.forecast(x, start=1, horizon=2, future_inputs=future)
        for name, K in SIZES.items():
            assert found.paths[name].shape == (50, 4, T + 1)
            assert found.state_probs[name].shape == (T + 1, 4, K)
            share = torch.nn.functional.one_hot(found.paths[name][..., 0], K).double().mean(0)
            assert (share - found.state_probs[name][0]).abs().max() < 0.5
        both = ProductTransition(chains.values())
        states = both.split(score.sweep(x).path)
        assert [int(z.max()) < K for z, K in zip(states, SIZES.values(), strict=True)]


def test_draws_of_a_posterior_make_one_forecast(chains):
    """Paths among the draws are drawn anew; a particle's chains are of one draw."""
    x = torch.randn(T, 4)

    def model(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("series", x.shape[1]):
            for t, (a, b) in ssl_transition(chains, len(x)):
                pyro.sample("x", dist.Normal(loc + a - b, 1.0), obs=x[t])

    sampler = ParticleGibbs(model, 3)
    sampler.run(x, num_samples=3, disable_progbar=True)
    score = ParticleFilter(model, 5, posterior_samples=sampler.get_samples())
    assert score.log_evidence(x).shape == (4,)
    found = score.forecast(x, start=1, horizon=1)
    for name, K in SIZES.items():
        assert found.paths[name].shape == (5, 4, T)
        torch.testing.assert_close(found.state_probs[name].sum(-1), torch.ones(T, 4))
        assert found.state_probs[name].shape[-1] == K
    assert found.samples.shape == (5, 4)


def test_marginals_of_a_forecast_are_sums(chains):
    run = Program(factorial(chains), (torch.randn(T, 1),)).run()
    probs = dist.Dirichlet(torch.ones(6)).sample((4,))
    found, table = run.paths.marginals(probs), probs.view(4, 3, 2)
    torch.testing.assert_close(found["a"], table.sum(2))
    torch.testing.assert_close(found["b"], table.sum(1))


@pytest.mark.stage("system")
def test_em_keeps_paths_by_site_and_learns(chains):
    """Planted: two chains that persist, and means that add up."""
    z = {name: torch.zeros(20, 8, dtype=torch.long) for name in SIZES}
    for name, K in SIZES.items():
        for t in range(1, 20):
            new = torch.randint(K, (8,))
            z[name][t] = torch.where(torch.rand(8) < 0.15, new, z[name][t - 1])
    loc = {"a": torch.tensor([-4.0, 0.0, 4.0]), "b": torch.tensor([0.0, 1.5])}
    x = sum(loc[name][z[name]] for name in SIZES) + 0.3 * torch.randn(20, 8)
    untrained = {"a": LSTMTransition(3, 8), "b": MarkovTransition(2)}

    def model(x):
        for name, transition in untrained.items():
            pyro.module(name, transition)
        with pyro.plate("series", x.shape[1]):
            for t, (a, b) in ssl_transition(untrained, len(x)):
                pyro.sample("x", dist.Normal(loc["a"][a] + loc["b"][b], 0.3), obs=x[t])

    em = StochasticEM(model, Adam({"lr": 0.05}), 5)
    losses = [em.step(x) for _ in range(20)]
    assert losses[-1] < losses[0] - 100.0
    for name in SIZES:
        assert em.paths[name].shape == (8, 20)
        assert (em.paths[name].T == z[name]).double().mean() > 0.9
    hmm = em.warm_start(x, num_steps=3, transition_steps=2)
    assert hmm.matrix.shape == (6, 6)
    assert {name: path.shape for name, path in hmm.sample_paths(x).items()} == dict.fromkeys(
        SIZES, (8, 20)
    )
    before = [p.clone() for p in untrained["b"].parameters()]
    em.step(x)
    after = untrained["b"].parameters()
    assert not all(torch.equal(p, q) for p, q in zip(before, after, strict=True))


def test_hmm_of_two_markov_chains_has_the_exact_evidence():
    chains = {"a": sharp(MarkovTransition(3)), "b": sharp(MarkovTransition(2))}
    model, x = factorial(chains), torch.randn(T)
    exact = all_paths(model, SIZES, x).log_evidence
    both = ProductTransition(chains.values())
    initial = both.step_logits(None, both.initial_state((1,)))[0].softmax(-1)
    matrix = both.step_logits(torch.arange(6), both.initial_state((6,)))[0].softmax(-1)
    hmm = MarkovEM(model).start_from(initial.flatten().detach(), matrix.detach())
    found = hmm.log_likelihood(x.unsqueeze(1)).sum()
    assert found.item() == pytest.approx(exact.item())


@pytest.mark.parametrize("scale", [1.0, None], ids=["linear", "any emission"])
def test_vectors_may_stand_alone_in_a_dict(scale):
    track, x = GaussianLSTMTransition(2, 4), torch.randn(T, 4, 2)

    def model(x):
        with pyro.plate("series", x.shape[1]):
            for t, (z,) in ssl_transition({"z": track}, len(x)):
                noise = z.abs() + 0.5 if scale is None else scale
                pyro.sample("x", dist.Normal(z, noise).to_event(1), obs=x[t])

    found = ParticleGibbs(model, 3).sweep(None, x)
    assert found["z"].shape == (4, T, 2)
    again = ParticleGibbs(model, 3).sweep(found, x)
    assert again.keys() == {"z"}


def test_mean_field_refuses(chains):
    with pytest.raises(
        TypeError, match=r'Site "a, b": .*dict of chains.*expected one chain: write'
    ):
        MeanFieldGuide(factorial(chains))(torch.randn(T, 2))
