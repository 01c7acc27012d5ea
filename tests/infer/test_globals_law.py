"""Particle Gibbs over latent sites of every kind leaves their joint posterior as it is.

(θ, z, x) drawn from the model make (θ, z) an exact draw of the posterior given x, so after any
number of updates it is still one, and (θ', z', x) is distributed as (θ, z, x) (Geweke 2004,
"Getting it right"; Gandy & Scott 2020, "Unit testing for MCMC and other Monte Carlo methods").
Every functional's mean must stay, whatever the model.
"""

import functools

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer.mcmc import HMC, NUTS
from pyro.ops.stats import effective_sample_size
from pyro.poutine.subsample_messenger import _Subsample
from scipy import stats

from pyro_ssl import ParticleGibbs, ParticleGibbsKernel
from pyro_ssl.exact.chains import enumerate_paths
from pyro_ssl.infer.free import Conditional
from pyro_ssl.reading.program import Program
from tests.infer.models_of_globals import (
    MODELS,
    gamma_over_dirichlet,
    lstm_head,
    normal_mean_and_scale,
    poisson_rates,
    random_effect,
    semi_supervised,
    two_chains,
    variances,
)
from tests.statistics import ALPHA

#: few steps, and no half a period of a standard normal, after which its square is what it was
QUICK = functools.partial(HMC, step_size=0.3, num_steps=3)
DATA, PATHS = ("x", "y"), ("z", "a", "b")
ALL = [*MODELS, two_chains, semi_supervised]


def drawn(model):
    """Values of the latent sites, and the data, of one draw from the model."""
    trace = poutine.trace(model).get_trace()
    sites = {
        name: site["value"]
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not isinstance(site["fn"], _Subsample)
    }
    data = {name: sites.pop(name) for name in DATA if name in sites}
    if model is semi_supervised:
        data["known"] = sites["z"].T
    return sites, data


def functionals(values, data):
    """Numbers whose means must not move."""
    level = data["x"].double().mean()
    out = []
    for name in sorted(values):
        value = values[name].double().flatten()
        if name in PATHS:
            path = values[name].double()
            moves = (path[..., 1:] != path[..., :-1]).double().mean()
            value = torch.stack([path.mean(), path[..., -1].mean(), moves])
        out += [value, value * level]
        if name not in PATHS:
            out += [value.square(), value.square().sum().reshape(1)]
    return torch.cat(out)


def differences(model, inner_kernel, num_data, num_updates=1):
    """Functionals after updates, on average, less those before, ``(N, F)``."""
    rows = []
    with pyro.validation_enabled(False):
        for _ in range(num_data):
            values, data = drawn(model)
            kernel = ParticleGibbsKernel(model, 3, twist=None, inner_kernel=inner_kernel)
            kernel.initial_params = params = values
            kernel.setup(0, **data)
            after = 0.0
            for _ in range(num_updates):
                params = kernel.update(params)
                after = after + functionals(params, data) / num_updates
            rows.append(after - functionals(values, data))
    return torch.stack(rows)


def least_p_value(rows):
    """Of a t-test of each functional's mean; those that never moved are left out."""
    rows = rows[:, rows.abs().sum(0) > 0]
    assert rows.shape[1] > 3, "nothing moved"
    z = rows.mean(0) / rows.std(0) * len(rows) ** 0.5
    return float(2 * stats.t.sf(z.abs().numpy(), len(rows) - 1).min())


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("model", ALL, ids=lambda model: model.__name__)
def test_updates_leave_the_joint_law(model):
    """About 17 x 18 functionals: an alarm by chance once in 3,000 seeds."""
    assert least_p_value(differences(model, QUICK, 40)) > ALPHA


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("model", [gamma_over_dirichlet, normal_mean_and_scale, random_effect])
def test_nuts_leaves_the_joint_law(model):
    assert least_p_value(differences(model, NUTS, 50)) > ALPHA


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("model, site", [(poisson_rates, "rate"), (variances, "mean")])
def test_gradients_in_place_of_closed_forms_leave_the_joint_law(model, site):
    assert least_p_value(differences(model, {site: QUICK}, 80)) > ALPHA


@pytest.mark.stage("statistical")
def test_kernels_by_site_leave_the_joint_law():
    by_site = {"mean": QUICK, "scale": functools.partial(HMC, step_size=0.5, num_steps=2)}
    assert least_p_value(differences(normal_mean_and_scale, by_site, 80)) > ALPHA


@pytest.mark.stage("statistical")
def test_a_prior_that_counts_twice_is_found(monkeypatch):
    """Else the tests above would hold of anything."""
    right = Conditional.log_prob

    def twice(self, values):
        run = self.program.run({**self.fixed, **values})
        return right(self, values) + run.log_elsewhere(observed=False)

    monkeypatch.setattr(Conditional, "log_prob", twice)
    assert least_p_value(differences(lstm_head, QUICK, 150, 4)) < 1e-4


def exact_means(model, data, num_draws):
    """Posterior means of the sites' elements and squares, and their standard errors.

    Draws from the prior, each weighed by p(x | θ), which is a sum over all paths.
    """
    log_w, found = [], []
    with torch.no_grad(), pyro.validation_enabled(False):
        for _ in range(num_draws):
            run = Program(model, (), data).run()
            log_p = enumerate_paths(run.transition, run.grid.table()).log_evidence.sum()
            log_w.append(log_p + run.log_elsewhere(observed=True))
            latent = sorted(n for n, s in run.sites.items() if is_latent(s))
            found.append(torch.cat([run.sites[n]["value"].double().flatten() for n in latent]))
    w, draws = torch.stack(log_w).softmax(0).unsqueeze(-1), torch.stack(found)
    draws = torch.cat([draws, draws.square()], -1)
    mean = (w * draws).sum(0)
    return mean, (w * (draws - mean)).square().sum(0).sqrt()


def is_latent(site):
    return not site["is_observed"] and not isinstance(site["fn"], _Subsample)


def sampled_means(model, data, num_samples):
    """The same by particle Gibbs, two chains."""
    pg = ParticleGibbs(model, 4)
    pg.run(**data, num_samples=num_samples, warmup_steps=300, num_chains=2, disable_progbar=True)
    samples = pg.get_samples(group_by_chain=True)
    latent = sorted(samples.keys() - set(PATHS))
    values = (samples[name].double() for name in latent)
    draws = torch.cat([value.reshape(*value.shape[:2], -1) for value in values], -1)
    draws = torch.cat([draws, draws.square()], -1)
    sizes = effective_sample_size(draws, chain_dim=0, sample_dim=1)
    return draws.mean((0, 1)), draws.flatten(0, 1).std(0) / sizes.sqrt()


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("model", ALL, ids=lambda model: model.__name__)
def test_posterior_means_are_those_of_enumeration(model):
    """Within five standard errors, of about 17 x 8 means: by chance once in 10,000 seeds."""
    data = drawn(model)[1]
    mean, error = exact_means(model, data, 6000)
    found, other = sampled_means(model, data, 1500)
    z = (found - mean) / (error.square() + other.square()).sqrt()
    print(f"{model.__name__}: {len(z)} means, off by {float(z.abs().max()):.1f} standard errors")
    assert float(z.abs().max()) < 5.0


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("model", ALL, ids=lambda model: model.__name__)
def test_updates_leave_the_joint_law_of_many_data_sets(model):
    assert least_p_value(differences(model, QUICK, 1000, 4)) > ALPHA
