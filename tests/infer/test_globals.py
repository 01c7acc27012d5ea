"""Latent sites outside the loop that have no closed form: what is drawn, and what is refused."""

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC
from pyro.infer.mcmc import HMC, NUTS
from pyro.infer.mcmc.util import initialize_model
from torch.distributions import biject_to

from pyro_ssl import LSTMTransition, ParticleGibbs, ParticleGibbsKernel, ssl_transition
from pyro_ssl.errors import LatentSiteError
from pyro_ssl.infer.conjugate import FORMS, _statistics, draw_conjugate
from pyro_ssl.infer.dirichlet import DirichletSite
from pyro_ssl.infer.free import Conditional, FreeSite
from pyro_ssl.infer.globals import GlobalSites
from pyro_ssl.infer.inner import InnerKernels, _try_all
from pyro_ssl.reading.program import Program
from tests.faults.digest import nothing_changes
from tests.infer.models_of_globals import (
    MODELS,
    B,
    K,
    T,
    finite,
    gamma_over_dirichlet,
    logistic_rows,
    lstm,
    normal_mean_and_scale,
    poisson_rates,
)
from tests.infer.test_globals_law import drawn

CONTINUOUS = [model for model in MODELS if model is not finite]


def read(model):
    """A run of the model at values drawn from it, with the sites found there."""
    values, data = drawn(model)
    path = values.pop("z")
    run = Program(model, (), data).run(values)
    sites = GlobalSites("test", free=True)
    sites.check(run)
    return run, sites, values, path, data


@pytest.mark.parametrize("model", CONTINUOUS, ids=lambda model: model.__name__)
def test_the_potential_is_pyros_own(model):
    """That of Pyro's MCMC on the model given all that does not move, up to a constant: log p(z)."""
    run, sites, values, path, data = read(model)
    rest = {name: values[name] for name in sites.sites}
    target = Conditional(
        run, run.flatten(path), run.subsamples, reach_transition=sites.reach_transition
    )
    kernels = InnerKernels(sites.free, HMC, 0)
    (block,) = kernels.blocks
    block._target.aim(target, sites.free, rest)

    given = poutine.condition(model, {"z": path, **rest})
    _, potential, _, _ = initialize_model(given, (), data)
    gaps = []
    for _ in range(3):
        free = {name: torch.randn_like(sites.free[name].free(values[name])) for name in sites.free}
        gaps.append(block._target(free) - potential(free))
    assert torch.stack(gaps).allclose(gaps[0])


def test_a_finite_site_has_the_density_of_pyros_trace():
    run, sites, values, path, data = read(finite)
    target = Conditional(run, run.flatten(path), {}, reach_transition=True)
    for shift in range(3):
        now = values | {"shift": torch.tensor(shift)}
        given = poutine.condition(finite, {"z": path, **now})
        expected = poutine.trace(given).get_trace(**data).log_prob_sum()
        assert target.log_prob(now).item() == pytest.approx(expected.item())


def test_a_kernel_forgets_the_potential_of_the_last_path():
    run, sites, values, path, data = read(normal_mean_and_scale)
    kernels = InnerKernels(sites.free, functools.partial(HMC, step_size=1e-3, num_steps=1), 0)
    for states in (torch.zeros_like(path), torch.ones_like(path)):
        target = Conditional(run, run.flatten(states), {}, reach_transition=False)
        values = kernels.update(target, values)
        (block,) = kernels.blocks
        free = {name: sites.free[name].free(values[name]) for name in sites.free}
        assert block.kernel._potential_energy_last.allclose(block._target(free))


def test_a_finite_site_is_drawn_by_its_weights():
    """Two elements, each of which excludes the other's 1: only the data tell which."""

    def model(x):
        which = pyro.sample("which", dist.Bernoulli(0.5).expand([2]).to_event(1))
        pyro.sample("one", dist.Normal(which.sum(), 1e-3), obs=torch.tensor(1.0))
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", lstm(), T):
                pyro.sample("x", dist.Normal(z + 0.0 * which[0], 1.0), obs=x[t])

    x = torch.zeros(T, B)
    for start in ([1.0, 1.0], [0.0, 0.0]):
        values = {"which": torch.tensor(start)}
        run = Program(model, (x,)).run(values)
        target = Conditional(run, run.any_path(), {}, reach_transition=False)
        site = FreeSite(run.sites["which"], "test")
        assert _try_all(target, site, values).sum() == 1.0


def test_each_block_is_given_what_the_last_one_drew():
    run, sites, values, path, data = read(normal_mean_and_scale)
    how = {name: functools.partial(HMC, step_size=0.1, num_steps=2) for name in ("mean", "scale")}
    kernels = InnerKernels(sites.free, how, 0)
    target = Conditional(run, run.flatten(path), {}, reach_transition=False)
    for _ in range(5):
        values = kernels.update(target, values)
    first, second = kernels.blocks
    assert first.names != second.names
    for name in second._target.rest:
        assert second._target.rest[name] is values[name]


def test_chains_keep_to_their_own_values():
    """Chain 0 has no data of its own to speak of, chain 1's prior is a point."""
    values, data = drawn(gamma_over_dirichlet)
    kernel = ParticleGibbsKernel(
        gamma_over_dirichlet, 2, num_chains=2, inner_kernel=functools.partial(
            HMC, step_size=1e-9, num_steps=1, adapt_step_size=False
        ),
    )  # fmt: skip
    start = {name: torch.stack([value, value]) for name, value in values.items()}
    start["strength"] = torch.tensor([1.0, 1e9])
    kernel.initial_params = start
    kernel.setup(0, **data)
    drawn_now = kernel.update(kernel.initial_params)
    assert drawn_now["strength"].allclose(start["strength"])
    assert drawn_now["phi"][1].allclose(torch.full_like(values["phi"], 1.0 / 3.0), atol=1e-3)
    assert not drawn_now["phi"][0].allclose(torch.full_like(values["phi"], 1.0 / 3.0), atol=1e-3)


CLOSED = {
    "normal_mean_and_scale": {"mean"},
    "poisson_rates": {"rate"},
    "variances": {"variance", "mean"},
    "beta_bernoulli": {"heads"},
    "random_effect": {"effect"},
    "group_plate": {"shift"},
    "markov_rows": {"rate"},
}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_closed_forms_are_recognised_and_no_others(model):
    """From values: two coefficients of one regression are not independent, and so on."""
    data = drawn(model)[1]
    kernel = ParticleGibbsKernel(model, 2)
    kernel.setup(0, **data)
    found = {name for inner in kernel._update.inner for name in inner.forms}
    assert found == CLOSED.get(model.__name__, set())


CUTS = {"normal": dist.Normal(2.0, 2.0), "gamma": dist.Gamma(4.0, 2.0), "beta": dist.Beta(2.0, 2.0)}


@pytest.mark.parametrize("where", ["emission", "inputs", "lengths"])
@pytest.mark.parametrize("prior", CUTS)
def test_a_threshold_is_seen_where_no_gradient_is(where, prior):
    """Of a change point all slopes are 0, and so would be the statistics of a closed form."""
    transition, x = LSTMTransition(K, 4, input_size=1), torch.randn(T, B)

    def model(x):
        cut = pyro.sample("cut", CUTS[prior]) * (T if prior == "beta" else 1)
        later = (torch.arange(T) > cut).double().unsqueeze(-1)
        lengths = cut.long().clamp(0, T).expand(B) if where == "lengths" else None
        given = {"inputs": 3.0 * later if where == "inputs" else 0.0 * later, "lengths": lengths}
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", transition, T, **given):
                mean = z + 3.0 * later[t] if where == "emission" else z + 0.0
                pyro.sample("x", dist.Normal(mean, 1.0), obs=x[t])

    kernel = ParticleGibbsKernel(model, 2)
    kernel.setup(0, x)
    assert not kernel._update.inner[0].forms
    assert kernel._globals.in_transition == ({"cut"} if where != "emission" else set())
    path = torch.randint(K, (T, B))
    target = kernel._update._given(kernel._program.run(), path)
    found, exact = [], []
    for cut in torch.tensor([0.3, 0.8]) * (1 if prior == "beta" else T):
        found.append(target.log_prob({"cut": cut}).item())
        given = pyro.condition(model, {"cut": cut, "z": path.T})
        exact.append(poutine.trace(given).get_trace(x).log_prob_sum().item())
    assert found[1] - found[0] == pytest.approx(exact[1] - exact[0])


@pytest.mark.parametrize("how", ["two", "no gradient"])
def test_every_dirichlet_that_has_no_counts_is_free(how):
    """The first of several is not all; and what is looked up without gradients has none."""

    def model(x):
        phi, psi = (
            pyro.sample(name, dist.Dirichlet(torch.ones(K, 3)).to_event(1)) for name in ("a", "b")
        )
        with torch.set_grad_enabled(how == "two"):
            tables = [0.8 * phi + 0.2 / 3, 0.8 * psi + 0.2 / 3] if how == "two" else [phi, psi]
            tables = [table.log() for table in tables]
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", lstm(), T):
                for table, name in zip(tables, "xy", strict=True):
                    pyro.sample(name, dist.Categorical(logits=table[z]), obs=x[t])

    kernel = ParticleGibbsKernel(model, 2)
    kernel.setup(0, torch.randint(3, (T, B)))
    assert not kernel._globals.sites
    assert kernel._globals.free.keys() == {"a", "b"}


def test_statistics_are_those_of_the_data():
    """Sums and numbers of a state's observations, whatever the last value was."""
    values, data = drawn(poisson_rates)
    path, x = values.pop("z"), data["x"]
    run = Program(poisson_rates, (), data).run(values)
    target = Conditional(run, run.flatten(path), {}, reach_transition=False)
    at = run.flatten(path)
    found = _statistics(target, "rate", FORMS[dist.Gamma], values)
    assert found is not None
    s1, s2, prior = found[:3]
    for k in range(K):
        assert s1[k].item() == pytest.approx(x[at == k].sum().item(), abs=1e-8)
        assert s2[k].item() == pytest.approx((at == k).sum().item(), abs=1e-8)
    assert prior.base_dist.concentration.eq(2.0).all()


@pytest.mark.parametrize(
    "prior, form",
    [
        (dist.Gamma(2.0, 3.0), "Gamma"),
        (dist.InverseGamma(2.0, 3.0), "InverseGamma"),
        (dist.Normal(0.5, 2.0), "Normal"),
        (dist.Beta(2.0, 3.0), "Beta"),
    ],
)
def test_posteriors_are_priors_times_the_form(prior, form):
    """log posterior - log prior - s_1 F_1 - s_2 F_2 is one constant, F by its derivatives."""
    kind = FORMS[type(prior)]
    s1, s2 = torch.tensor(3.0), torch.tensor(4.0)
    value = torch.tensor([0.2, 0.5, 0.9], requires_grad=True)
    gap = kind.posterior(prior, s1, s2).log_prob(value) - prior.log_prob(value)
    (slope,) = torch.autograd.grad(gap.sum(), value)
    f1, f2 = kind.terms(value.detach())
    assert (kind.weight(value) * slope).allclose(s1 * f1 + s2 * f2)
    low, high = kind.edges(torch.finfo(torch.float64))
    assert low <= kind.far(value).min() and kind.far(value).max() <= high


EXTREME = {
    "rate": (lambda v: dist.Poisson(v), dist.Gamma(0.1, 1.0)),
    "precision": (lambda v: dist.Normal(0.0, v**-0.5), dist.Gamma(0.1, 1.0)),
    "variance": (lambda v: dist.Normal(0.0, v**0.5), dist.InverseGamma(0.1, 1.0)),
    "share": (lambda v: dist.Bernoulli(v), dist.Beta(0.1, 0.1)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", EXTREME)
def test_a_last_value_at_the_edge_hurts_no_statistic(kind, dtype):
    """A state that nothing is in takes its values from the prior, which may be sparse."""
    emission, prior = EXTREME[kind]
    prior = type(prior)(*(getattr(prior, n).to(dtype) for n in prior.arg_constraints))
    transition = LSTMTransition(K, 4).to(dtype)
    x = torch.ones(T, B, dtype=dtype)

    def model():
        value = pyro.sample("value", prior.expand([K]).to_event(1))
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", emission(value[z]), obs=x[t])

    form = FORMS[type(prior)]
    low, high = form.edges(torch.finfo(dtype))
    found = []
    for value in (low, 1e-12, 0.4, min(1e12, high), high):
        values = {"value": torch.full((K,), value, dtype=dtype)}
        with pyro.validation_enabled(False):
            run = Program(model).run(values)
            target = Conditional(run, run.zero_path(), {}, reach_transition=False)
            found.append(torch.stack(_statistics(target, "value", form, values)[:2]))
            assert draw_conjugate(target, "value", form, values).isfinite().all()
    rtol = 1e-3 if dtype == torch.float32 else 1e-6
    for statistics in found:
        assert statistics.allclose(found[2], rtol=rtol, atol=rtol)


def test_a_form_that_does_not_last_is_told():
    """Where the switch is on, the mean enters by its square."""

    def model(x, switch):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        on = pyro.sample("on", dist.Bernoulli(0.5)) if switch is None else switch
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", lstm(), T):
                pyro.sample("x", dist.Normal(z + torch.where(on > 0, mean**2, mean), 0.1), obs=x[t])

    x = 4.0 + torch.zeros(T, B)
    off, on = (torch.tensor(value) for value in (0.0, 1.0))
    for switch, forms in ((off, {"mean"}), (on, set())):
        kernel = ParticleGibbsKernel(model, 3)
        kernel.setup(0, x, switch)
        assert kernel._update.inner[0].forms.keys() == forms
    kernel = ParticleGibbsKernel(model, 3)
    start = {"mean": torch.tensor(2.0), "on": off, "z": torch.zeros(B, T, dtype=torch.long)}
    kernel.initial_params = start
    while True:  # until it is set up where the form holds
        kernel.setup(0, x, None)
        if kernel._update.inner[0].forms:
            break
    message = r'Site "mean": .* had a closed form .*inner_kernel={"mean": NUTS}'
    with nothing_changes(objects=[kernel]), pytest.raises(LatentSiteError, match=message):
        kernel.update(start | {"on": on})


def test_a_table_of_counts_that_does_not_last_is_told():
    """Where the switch is on, the rows enter by their squares."""

    def model(x):
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, 3)).to_event(1))
        on = pyro.sample("on", dist.Bernoulli(0.5))
        rows = torch.where(on > 0, phi**2 + 0.1, phi)
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", lstm(), T):
                pyro.sample("x", dist.Categorical(rows[z]), obs=x[t])

    kernel = ParticleGibbsKernel(model, 3)
    while True:  # until it is set up where it is such a table
        kernel.setup(0, torch.zeros(T, B, dtype=torch.long))
        if kernel._globals.sites:
            break
    start = kernel.initial_params | {"on": torch.tensor(1.0)}
    message = 'Site "phi": Dirichlet, but it does not enter'
    with nothing_changes(objects=[kernel]), pytest.raises(LatentSiteError, match=message):
        kernel.update(start)


def test_a_statistic_below_zero_has_no_closed_form():
    """A prior of which a factor takes mass away: its exponents are no counts."""

    def model(x):
        rate = pyro.sample("rate", dist.Gamma(5.0, 1.0))
        pyro.factor("less", -3.0 * rate.log())
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", lstm(), T):
                pyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=x[t])

    kernel = ParticleGibbsKernel(model, 3)
    kernel.setup(0, torch.zeros(T, B))
    assert not kernel._update.inner[0].forms


@pytest.mark.stage("system")
@pytest.mark.parametrize("num_chains", [1, 2])
def test_draws_come_by_site_and_are_reported(num_chains, capsys):
    data = drawn(normal_mean_and_scale)[1]
    pg = ParticleGibbs(normal_mean_and_scale, 4)
    pg.run(**data, num_samples=6, warmup_steps=4, num_chains=num_chains, disable_progbar=True)
    samples = pg.get_samples(group_by_chain=True)
    assert samples["mean"].shape == samples["scale"].shape == (num_chains, 6, K)
    assert (samples["scale"] > 0).all() and len(samples["mean"].unique()) > 6
    sites = pg.diagnostics()["sites"]
    assert sites["mean"]["n_eff"].shape == sites["mean"]["r_hat"].shape == (K,)
    assert sites["scale"]["step_size"] > 0 and sites["scale"]["divergences"] >= 0
    pg.summary()
    assert "mean[0]" in (table := capsys.readouterr().out) and "step size" in table


@pytest.mark.stage("system")
def test_step_sizes_stay_after_the_warm_up():
    data = drawn(normal_mean_and_scale)[1]
    pg, seen = ParticleGibbs(normal_mean_and_scale, 4), []

    pg.run(
        **data, num_samples=5, warmup_steps=12, disable_progbar=True,
        hook_fn=lambda params, i: seen.append(params["mean"]),
    )  # fmt: skip
    (inner,) = pg.kernel._update.inner
    assert inner.blocks[0].kernel._t == 17 and inner.warmup_steps == 12
    before = inner.report()["scale"]["step_size"]
    pg.kernel.update(pg.kernel.initial_params)
    assert inner.report()["scale"]["step_size"] == before
    assert len(seen) == 17


def test_a_start_is_taken_and_checked():
    values, data = drawn(normal_mean_and_scale)
    pg = ParticleGibbs(normal_mean_and_scale, 3)
    pg.run(**data, num_samples=1, initial_params=values, disable_progbar=True)
    missing = pytest.raises(ValueError, match='Site "scale": missing from')
    with nothing_changes(objects=[pg]), missing:
        pg.run(**data, num_samples=1, initial_params={k: values[k] for k in ("z", "mean")})
    wrong = values | {"mean": torch.zeros(K + 1)}
    with (
        nothing_changes(objects=[pg]),
        pytest.raises(ValueError, match=r'Site "mean": its start has shape'),
    ):
        pg.run(**data, num_samples=1, initial_params=wrong)


@pytest.mark.parametrize("model", [finite, normal_mean_and_scale], ids=lambda m: m.__name__)
def test_pyros_mcmc_runs_it(model):
    data = drawn(model)[1]
    mcmc = MCMC(ParticleGibbsKernel(model, 3), num_samples=3, warmup_steps=2, disable_progbar=True)
    mcmc.run(**data)
    values = drawn(model)[0]
    found = mcmc.get_samples()
    assert {n: v.shape for n, v in found.items()} == {n: (3, *v.shape) for n, v in values.items()}


def test_a_site_that_is_given_is_no_site():
    values, data = drawn(normal_mean_and_scale)
    model = pyro.condition(normal_mean_and_scale, {"mean": values["mean"]})
    pg = ParticleGibbs(model, 3)
    pg.run(**data, num_samples=3, disable_progbar=True)
    assert pg.get_samples().keys() == {"z", "scale"}


# ----------------------------------------------------------------------------------------- refusals


def make(site, emit=lambda value, z: dist.Normal(value + z, 1.0)):
    def model(x):
        value = site()
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", lstm(), T):
                pyro.sample("x", emit(value, z), obs=x[t])

    return model


def of_moving_support():
    upper = pyro.sample("upper", dist.Gamma(2.0, 1.0))
    return pyro.sample("share", dist.Uniform(0.0, 1.0 + upper))


def of_many():
    with pyro.plate("many", 3000):
        return pyro.sample("switch", dist.Bernoulli(0.5)).mean()


REFUSED = {
    "countable": (lambda: pyro.sample("n", dist.Poisson(2.0)), 'Site "n": latent, of.*Poisson'),
    "moving support": (of_moving_support, 'Site "share": its support depends on another'),
    "many": (of_many, 'Site "switch": 3000 elements of 2 values each'),
}


@pytest.mark.parametrize("how", REFUSED)
def test_what_cannot_be_drawn_is_refused(how):
    site, match = REFUSED[how]
    pg = ParticleGibbs(make(site), 3)
    for _ in range(2):
        with nothing_changes(objects=[pg]), pytest.raises(LatentSiteError, match=match):
            pg.run(torch.zeros(T, B), num_samples=1, disable_progbar=True)


@pytest.mark.parametrize("wrong", [3, "NUTS", {"mean": None}, HMC(potential_fn=lambda z: 0.0)])
def test_an_inner_kernel_makes_kernels(wrong):
    with pytest.raises(TypeError, match="inner_kernel is"):
        ParticleGibbs(normal_mean_and_scale, 3, inner_kernel=wrong)


def test_an_inner_kernel_of_no_site_is_refused():
    data = drawn(normal_mean_and_scale)[1]
    pg = ParticleGibbs(normal_mean_and_scale, 3, inner_kernel={"meen": NUTS})
    with (
        nothing_changes(objects=[pg]),
        pytest.raises(ValueError, match=r"inner_kernel names \['meen'\]"),
    ):
        pg.run(**data, num_samples=1, disable_progbar=True)


def test_proposals_without_a_density_are_refused_and_no_error():
    """A huge step leaves the numbers that a float can hold."""
    data = drawn(normal_mean_and_scale)[1]
    wild = functools.partial(HMC, step_size=1e3, num_steps=2, adapt_step_size=False)
    pg = ParticleGibbs(normal_mean_and_scale, 3, inner_kernel=wild)
    pg.run(**data, num_samples=5, disable_progbar=True)
    assert torch.isfinite(pg.get_samples()["scale"]).all()


def test_gradients_are_taken_within_no_grad():
    data = drawn(normal_mean_and_scale)[1]
    with torch.no_grad():
        ParticleGibbs(normal_mean_and_scale, 3).run(**data, num_samples=2, disable_progbar=True)


def test_the_transform_of_a_site_is_its_supports():
    run, sites, values, _, _ = read(normal_mean_and_scale)
    site = sites.free["scale"]
    value, log_det = site.constrained(site.free(values["scale"]))
    assert value.allclose(values["scale"])
    expected = biject_to(site.support).log_abs_det_jacobian(site.free(value), value).sum()
    assert log_det.item() == pytest.approx(expected.item())


def test_a_transition_of_latent_rows_takes_a_sweep_of_its_own_for_each_chain():
    data = drawn(logistic_rows)[1]
    pg = ParticleGibbs(logistic_rows, 3)
    pg.run(**data, num_samples=4, num_chains=2, disable_progbar=True)
    assert pg.kernel._globals.reach_transition


def test_what_reaches_the_transition_is_asked_of_one_sequence():
    """Of all, the layers of an LSTM would take many times the memory of the tables in a block."""
    transition, met = LSTMTransition(K, 4), []
    path_logits = transition.path_logits
    transition.path_logits = lambda z, inputs=None: met.append(len(z)) or path_logits(z, inputs)

    def model(words):
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, 5)).to_event(1))
        with pyro.plate("documents", words.shape[1]):
            for t, z in ssl_transition("z", transition, len(words)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    run = Program(model, (torch.zeros(4, 300, dtype=torch.long),), {}).run()
    sites = GlobalSites("test")
    with pyro.validation_enabled(False):
        sites.check(run)
    assert met == [1] and not sites.reach_transition


@pytest.mark.stage("system")
@pytest.mark.parametrize("kind", ["draw", "mean", "mode"])
@pytest.mark.parametrize("V", [5, 5000, 50_000])
def test_rows_sum_to_one_as_their_dtype_adds(device, kind, V):
    """torch's simplex allows 1e-6; on a GPU many equal entries beside large ones miss it."""
    n = torch.zeros(60, V, dtype=torch.float64)
    n[:, : max(V // 30, 2)] = torch.rand(60, max(V // 30, 2)) ** 8 * 14_000
    site = DirichletSite(torch.full((60, V), 0.03, dtype=torch.float32, device=device))
    phi = site.draw(n.to(device)) if kind == "draw" else site.point(n.to(device), kind)
    assert phi.dtype == torch.float32 and (phi >= 0).all()
    assert (phi.sum(-1) - 1.0).abs().max() <= 1.2e-7  # two roundings
    assert (phi.double().sum(-1) - 1.0).abs().max() < 2e-6
    dist.Dirichlet(site.concentration, validate_args=True).log_prob(phi.clamp(min=1e-30))
