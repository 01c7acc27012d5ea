"""Particle Gibbs with Dirichlet parameters draws from the joint posterior of paths and parameters.

Two oracles: the prior, to which a sampler that also redraws the data must return (Geweke 2004,
"Getting it right"); and the posterior of the paths with the parameters integrated out by hand
(Dirichlet-multinomial), over all paths.
"""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import (
    LSTMTransition,
    MarkovTransition,
    ParticleGibbs,
    ParticleGibbsKernel,
    ssl_transition,
)
from pyro_ssl.infer.dirichlet import dirichlet_counts
from pyro_ssl.infer.globals import GlobalSites
from pyro_ssl.reading.program import Program
from pyro_ssl.transitions import PathDistribution
from tests.statistics import ALPHA, chi_square, p_value

K, V, CONCENTRATION = 2, 3, 0.7


def sharp_lstm():
    transition = LSTMTransition(K, 4)
    for parameter in transition.parameters():
        parameter.data.mul_(6.0)
    return transition


def replicated(transition):
    """Independent copies of a model with its own phi each, side by side in one plate."""

    def model(x):  # (T, B, R)
        R = x.shape[-1]
        with pyro.plate("replicates", R, dim=-1):
            phi = pyro.sample("phi", dirichlet(K, V).to_event(1))
            with pyro.plate("sequences", x.shape[1], dim=-2):
                for t, z in ssl_transition("z", transition, len(x)):
                    pyro.sample("x", dist.Categorical(phi[torch.arange(R), z]), obs=x[t])

    return model


def lstm_model(transition):
    def model(x, lengths=None):  # (T, B)
        phi = pyro.sample("phi", dirichlet(K, V).to_event(1))
        with pyro.plate("sequences", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x), lengths=lengths):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    return model


def bayesian_hmm(x, lengths=None):
    initial = pyro.sample("initial", dirichlet(K))
    matrix = pyro.sample("matrix", dirichlet(K, K).to_event(1))
    return lstm_model(MarkovTransition(K, initial=initial, matrix=matrix))(x, lengths)


def dirichlet(*shape):
    return dist.Dirichlet(torch.full(shape, CONCENTRATION))


# ------------------------------------------------------------------------- the joint distribution


def functionals(z, phi, x):
    """Of each replicate, ``(R, F)``: moments of z ``(B, R, T)``, phi ``(R, K, V)``, x."""
    B, R, T = z.shape
    rows = phi[torch.arange(R)[:, None], z]  # (B, R, T, V)
    x = x.permute(1, 2, 0)  # (B, R, T)
    fit = rows.gather(-1, x.unsqueeze(-1)).squeeze(-1)
    parts = [
        phi.flatten(1),
        phi.square().flatten(1),
        phi.clamp(min=1e-12).log().clamp(min=-9).flatten(1),
        z.permute(1, 0, 2).flatten(1).double(),
        (z[..., 1:] == z[..., :-1]).permute(1, 0, 2).flatten(1).double(),
        (z[0] == z[1]).double(),
        torch.stack([(x == v).double().mean((0, 2)) for v in range(V)], -1),
        fit.permute(1, 0, 2).flatten(1),
        (fit * z).mean((0, 2)).unsqueeze(-1),
        (x[0] == x[1]).double(),
    ]
    return torch.cat(parts, -1)


def joint_draws(transition, T, B, R):
    phi = dirichlet(R, K, V).sample()
    z = PathDistribution(transition, T, batch_shape=(B, R)).sample()
    return z, phi, emit(z, phi)


def emit(z, phi):
    return dist.Categorical(phi[torch.arange(len(phi))[:, None], z]).sample().permute(2, 0, 1)


SETTINGS = [
    {"num_particles": 2, "ancestor_sampling": 0},
    {"num_particles": 3, "ancestor_sampling": 2},
    {"num_particles": 3, "resampling": "multinomial", "ancestor_sampling": 1, "twist": None},
    {"num_particles": 2, "ancestor_sampling": 0, "path_kernel": "independent"},
]


def name(settings):
    return "-".join(map(str, settings.values()))


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("settings", SETTINGS, ids=name)
def test_sampler_that_redraws_the_data_keeps_the_prior(
    settings, always_twisted, T=3, B=2, R=4000, num_steps=10
):
    """|z| < 4.5 for each of 49 functionals (false alarms: 3e-4 for all of them)."""
    transition = sharp_lstm()
    prior = functionals(*joint_draws(transition, T, B, 500_000))
    z, phi, x = joint_draws(transition, T, B, R)
    sampler = ParticleGibbs(replicated(transition), **settings)
    total = 0.0
    for _ in range(num_steps):
        start = {"z": z, "phi": phi}
        sampler.run(x, num_samples=1, initial_params=start, disable_progbar=True)
        z, phi = (sampler.get_samples()[name][0] for name in ("z", "phi"))
        x = emit(z, phi)
        total = total + functionals(z, phi, x) / num_steps
    gap = total.mean(0) - prior.mean(0)
    error = (total.var(0) / R + prior.var(0) / len(prior)).sqrt()
    assert len(gap) >= 20
    assert (gap / error).abs().max() < 4.5


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("settings", SETTINGS, ids=name)
def test_sampler_that_redraws_the_data_keeps_the_prior_for_long(settings, always_twisted):
    test_sampler_that_redraws_the_data_keeps_the_prior(
        settings, always_twisted, R=20_000, num_steps=40
    )


# --------------------------------------------------------- the posterior, parameters integrated out


def log_marginal(counts):
    """log ∫ Π φ^n Dirichlet(dφ), of each row of counts, summed over the rows."""
    a = torch.full_like(counts, CONCENTRATION)
    rows = torch.lgamma(a + counts).sum(-1) - torch.lgamma((a + counts).sum(-1))
    return (rows - torch.lgamma(a).sum(-1) + torch.lgamma(a.sum(-1))).sum(-1)


def table(rows, columns, shape):
    """How often each pair occurs: ``(N, M)`` twice to ``(N,) + shape``."""
    pairs = torch.nn.functional.one_hot(rows * shape[1] + columns, shape[0] * shape[1])
    return pairs.sum(1).double().unflatten(-1, shape)


def all_paths(T, B):
    return torch.tensor(list(itertools.product(range(K), repeat=B * T))).reshape(-1, B, T)


def emission_counts(z, x):
    """Count table of all z ``(N, B, T)`` against x ``(T, B)``: ``(N, K, V)``."""
    return table(z.flatten(1), x.T.expand(z.shape).flatten(1), (K, V))


def hmm_counts(z):
    first = torch.nn.functional.one_hot(z[..., 0], K).sum(1, keepdim=True).double()
    return first, table(z[..., :-1].flatten(1), z[..., 1:].flatten(1), (K, K))


def dirichlet_given(counts):
    return dist.Dirichlet(counts + CONCENTRATION).sample()


def path_p_value(z, log_joint):
    """Goodness of fit of paths ``(N, B, T)`` to a law over all of them."""
    powers = K ** torch.arange(z[0].numel() - 1, -1, -1)
    counts = (z.flatten(1) * powers).sum(-1).bincount(minlength=len(log_joint))
    return p_value([chi_square(counts, log_joint.softmax(0))])


X = torch.tensor([[0, 2], [0, 1], [2, 2]])  # (T, B)


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("ancestor_sampling", [0, 1])
def test_paths_with_phi_integrated_out(ancestor_sampling, always_twisted, R=50_000, num_steps=3):
    """Each of 2 p-values above ALPHA."""
    transition = sharp_lstm()
    z = all_paths(*X.shape)
    log_joint = transition.log_prob(z).sum((1, 2)) + log_marginal(emission_counts(z, X))
    z = z[log_joint.softmax(0).multinomial(R, replacement=True)]
    start = {"z": z.transpose(0, 1), "phi": dirichlet_given(emission_counts(z, X))}
    sampler = ParticleGibbs(replicated(transition), 2, ancestor_sampling=ancestor_sampling)
    sampler.run(
        X.unsqueeze(-1).expand(-1, -1, R),
        num_samples=num_steps,
        initial_params=start,
        disable_progbar=True,
    )
    z = sampler.get_samples()["z"][-1]
    assert path_p_value(z.transpose(0, 1), log_joint) > ALPHA


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("kind", ["lstm", "hmm"])
def test_chains_with_parameters_integrated_out(kind, always_twisted, num_chains=500, num_steps=2):
    """The same by chains, each with parameters of its own; in an HMM also in the transition.

    Each of 2 p-values above ALPHA.
    """
    z = all_paths(*X.shape)
    log_joint = log_marginal(emission_counts(z, X))
    if kind == "lstm":
        transition = sharp_lstm()
        model = lstm_model(transition)
        log_joint = log_joint + transition.log_prob(z).sum((1, 2))
    else:
        model = bayesian_hmm
        log_joint = log_joint + sum(log_marginal(counts) for counts in hmm_counts(z))
    z = z[log_joint.softmax(0).multinomial(num_chains, replacement=True)]
    start = {"z": z, "phi": dirichlet_given(emission_counts(z, X))}
    if kind == "hmm":
        first, following = hmm_counts(z)
        start["initial"] = dirichlet_given(first).squeeze(1)
        start["matrix"] = dirichlet_given(following)
    sampler = ParticleGibbs(model, 3, ancestor_sampling=2)
    sampler.run(
        X,
        num_samples=num_steps,
        num_chains=num_chains,
        initial_params=start,
        disable_progbar=True,
    )
    new = sampler.get_samples(group_by_chain=True)["z"][:, -1]
    assert (new != z).double().mean() > 0.1
    assert path_p_value(new, log_joint) > ALPHA


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("kind", ["lstm", "hmm"])
def test_many_chains_with_parameters_integrated_out(kind, always_twisted):
    test_chains_with_parameters_integrated_out(kind, always_twisted, num_chains=10_000, num_steps=3)


# ----------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 2, 4])])
def test_conjugate_counts_are_bincounts(lengths, verify=True):
    x, z = torch.randint(V, (5, 3)), torch.randint(K, (5, 3))
    run = Program(bayesian_hmm, (x, lengths)).run()
    sites = GlobalSites("the test").find(run)

    def objective(run):
        return (run.log_emission(z).sum() + run.log_transition(z).sum(),)

    found = dirichlet_counts(run.program, sites, objective, verify=verify)
    within = torch.ones(5, 3, dtype=torch.bool)
    if lengths is not None:
        within = torch.arange(5)[:, None] < lengths
    expected = {
        "phi": (z * V + x)[within].bincount(minlength=K * V).reshape(K, V),
        "initial": z[0].bincount(minlength=K),
        "matrix": (z[:-1] * K + z[1:])[within[1:]].bincount(minlength=K * K).reshape(K, K),
    }
    kernel = ParticleGibbsKernel(bayesian_hmm)
    kernel.setup(0, x, lengths)
    for counts in (*found, kernel._update._counts(run, z)):
        assert counts.keys() == expected.keys()
        for name, n in expected.items():
            assert torch.allclose(counts[name], n.double(), rtol=0, atol=1e-9)


def test_each_chain_keeps_its_own_labels(C=6, T=60, num_steps=3):
    """Where words tell states but for their names, each chain's names are those of its start.

    Chain c begins with the names permuted by a permutation of its own. A word is that of its state
    with probability .9999, so a chain that takes its path or its counts from another one is found
    out at once. With words that are all typical, no chain leaves its names: it would have to pass
    a ratio of 10^-4 to the power of 120.
    """
    permutations = torch.tensor(list(itertools.permutations(range(3))))[:C]  # (C, K)
    words = torch.arange(T * 2).reshape(T, 2) % 3
    transition = MarkovTransition(3)

    def model():
        phi = pyro.sample("phi", dist.Dirichlet(torch.full((3, 3), 0.1)).to_event(1))
        with pyro.plate("sequences", 2):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    one_hot = torch.nn.functional.one_hot(permutations, 3).double()  # phi_k: word perm[k]
    phi = 0.9998 * one_hot + 0.0002 / 3
    z = permutations.argsort(-1)[:, words.T]  # (C, B, T)
    sampler = ParticleGibbs(model, 3)
    sampler.run(
        num_samples=num_steps,
        num_chains=C,
        initial_params={"z": z, "phi": phi},
        disable_progbar=True,
    )
    samples = sampler.get_samples(group_by_chain=True)
    for step in range(num_steps):
        assert torch.equal(samples["phi"][:, step].argmax(-1), permutations)
        assert (samples["z"][:, step] == z).double().mean((1, 2)).min() > 0.9
