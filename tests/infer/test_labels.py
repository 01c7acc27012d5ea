"""Labels: what is known of a path is data. The answers are those of all paths, some cells clamped.

Statistical tests ask for p > 1e-6, or |z| < 4.5 (7e-6): seven of them, no false alarm in 20,000
seeds.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam

from pyro_ssl import (
    LSTMTransition,
    MarkovEM,
    MarkovTransition,
    MeanFieldELBO,
    MeanFieldGuide,
    ParticleFilter,
    ParticleGibbs,
    StochasticEM,
    ssl_transition,
)
from pyro_ssl.errors import LatentSiteError, SMCFailed
from pyro_ssl.reading.program import Program
from pyro_ssl.testing import invariance_test
from tests.enumeration import AllPaths, all_paths, repeated
from tests.statistics import ALPHA, chi_square, p_value

T, K = 4, 3


@pytest.fixture
def transition():
    return make_transition()


def make_transition():
    made = LSTMTransition(K, 4)
    for parameter in made.parameters():
        parameter.data.mul_(5.0)
    return made


def labelled(transition, **loop):
    def model(x, labels=None, seen=None, lengths=None):  # (T, B)
        pyro.module("transition", transition)
        known = {"lengths": lengths, "obs": labels, "obs_mask": seen}
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x), **known, **loop):
                pyro.sample("x", dist.Normal(z.to(x.dtype), 1.0), obs=x[t])

    return model


def clamped(model, x, labels, seen, lengths=None):
    """All paths without labels, those that differ from them left out, and those never drawn."""
    exact = all_paths(lambda x, n: model(x, lengths=n), {"z": K}, x, lengths)
    z, n = exact.paths["z"], T if lengths is None else int(lengths)
    wrong = ((z != labels) & seen)[:, :n].any(-1) | (z[:, n:] > 0).any(-1)
    return AllPaths(exact.paths, exact.log_joint.masked_fill(wrong, -torch.inf))


def data(seed=0):
    torch.manual_seed(seed)
    return torch.randn(T), torch.tensor([1, 0, 2, 2]), torch.tensor([False, True, False, True])


CASES = {"whole": None, "ragged": torch.tensor(3), "short": torch.tensor(1)}


@pytest.mark.parametrize("case", CASES)
def test_log_joint_is_that_of_the_clamped_paths(transition, case):
    model, (x, labels, seen), n = labelled(transition), data(), CASES[case]
    exact = clamped(model, x, labels, seen, n)
    N = len(exact.log_joint)
    run = Program(model, [repeated(v, N) for v in (x, labels, seen, n)]).run()
    path = run.flatten(exact.paths["z"])
    with torch.no_grad():
        found = run.log_transition(path) + run.log_emission(path)
    possible = exact.log_joint > -torch.inf
    torch.testing.assert_close(found[possible], exact.log_joint[possible])
    within = T if n is None else int(n)
    told = ((exact.paths["z"] != labels) & seen)[:, :within].any(-1)
    assert (found[told] == -torch.inf).all()
    # Pyro's own trace says the same
    trace = poutine.trace(pyro.condition(model, exact.paths))
    trace = trace.get_trace(*(repeated(v, N) for v in (x, labels, seen, n)))
    trace.compute_log_prob()
    log_p = sum(trace.nodes[name]["log_prob"].sum(0) for name in ("x", "z_obs"))
    torch.testing.assert_close(log_p + trace.nodes["z"]["log_prob"], found)


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("case", ["whole", "ragged"])
@pytest.mark.parametrize("twist", [None, "markov"])
def test_evidence_is_that_of_data_and_labels(transition, case, twist, always_twisted, R=40_000):
    model, (x, labels, seen), n = labelled(transition), data(), CASES[case]
    args = [repeated(v, R) for v in (x, labels, seen, n)]
    log_z = ParticleFilter(model, 2, twist=twist).log_evidence(*args)
    ratio = (log_z - clamped(model, x, labels, seen, n).log_evidence).exp()
    assert (ratio.mean() - 1.0).abs() < 4.5 * ratio.std() / R**0.5


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("case", ["whole", "ragged"])
def test_one_sweep_keeps_the_exact_posterior(transition, case, R=40_000):
    model, (x, labels, seen), n = labelled(transition), data(), CASES[case]
    exact = clamped(model, x, labels, seen, n)
    start = exact.draw(R)
    sampler = ParticleGibbs(model, 2, ancestor_sampling=1, twist=None)
    path = sampler.sweep(start["z"], *(repeated(v, R) for v in (x, labels, seen, n)))
    assert p_value([chi_square(exact.counts({"z": path}), exact.posterior)]) > ALPHA
    assert (path != start["z"]).double().mean() > 0.05


@pytest.mark.stage("statistical")
def test_invariance_test_takes_them(transition):
    x, labels, seen = (v.unsqueeze(1) for v in data())
    result = invariance_test(
        labelled(transition), x, labels, seen, num_particles=2, num_replicates=40_000
    )
    assert result.p_value > ALPHA and not result.change_rate[seen].any()


def test_hmm_has_the_exact_evidence():
    chain = MarkovTransition(K)
    for parameter in chain.parameters():
        parameter.data.normal_()
    model, (x, labels, seen) = labelled(chain), data()
    exact = clamped(model, x, labels, seen).log_evidence
    one = (x.unsqueeze(1), labels.unsqueeze(1), seen.unsqueeze(1))
    initial, matrix = (p.detach().softmax(-1) for p in chain.parameters())
    hmm = MarkovEM(model).start_from(initial, matrix)
    assert hmm.log_likelihood(*one).sum().item() == pytest.approx(exact.item())
    assert (hmm.sample_paths(*one).T == one[1])[one[2]].all()
    hmm.step(*one)
    assert hmm.initial.isfinite().all() and hmm.matrix.isfinite().all()


# ---------------------------------------------------------------------------- what users meet


def batch(shape=(5,)):
    return torch.randn(T, *shape), torch.randint(K, (T, *shape)), torch.rand(T, *shape) < 0.4


def test_every_class_draws_what_is_known(transition):
    model, (x, labels, seen) = labelled(transition), batch()
    labels = labels.masked_fill(~seen, -1)  # what is not known may be anything
    sampler = ParticleGibbs(model, 3)
    sampler.run(x, labels, seen, num_samples=4, num_chains=2, disable_progbar=True)
    draws = sampler.get_samples()["z"]
    assert (draws.transpose(1, 2)[:, seen] == labels[seen]).all()
    em = StochasticEM(model, Adam({"lr": 0.01}), 3)
    for _ in range(2):
        em.step(x, labels, seen)
    assert (em.paths.T[seen] == labels[seen]).all()
    em.warm_start(x, labels, seen, num_steps=2, transition_steps=2)
    assert (em.paths.T[seen] == labels[seen]).all()
    score = ParticleFilter(em.fitted_model, 5)
    assert score.forecast(x, labels, seen, start=2).paths.shape == (5, 5, T - 2)
    assert score.perplexity(x, labels, seen) > 1.0


@pytest.mark.parametrize("loss", [MeanFieldELBO(), Trace_ELBO()], ids=["exact", "Trace_ELBO"])
def test_the_factorised_posterior_is_sure_of_them(transition, loss):
    model, (x, labels, seen) = labelled(transition), batch()
    guide = MeanFieldGuide(model)
    svi = SVI(model, guide, Adam({"lr": 0.05}), loss=loss)
    assert all(svi.step(x, labels, seen) < 1e6 for _ in range(3))
    q = guide.marginals(x, labels, seen)
    assert torch.equal(q[seen].argmax(-1), labels[seen]) and (q[seen].amax(-1) == 1.0).all()


def test_of_other_labels_paths_start_anew(transition):
    model, (x, labels, seen) = labelled(transition), batch()
    em = StochasticEM(model, Adam({"lr": 0.01}), 3)
    em.step(x, labels, seen)
    with pytest.warns(UserWarning, match="all paths start anew"):
        em.step(x, labels, ~seen)
    assert (em.paths.T[~seen] == labels[~seen]).all()


def test_what_is_known_everywhere_is_observed(transition):
    model, (x, labels, _), lengths = labelled(transition), batch(), torch.tensor([T, 0, 2, 1, T])
    trace = poutine.trace(model).get_trace(x, labels, None, lengths)
    site = trace.nodes["z"]
    past = torch.arange(T) >= lengths.unsqueeze(1)
    assert site["is_observed"] and torch.equal(site["value"], labels.T.masked_fill(past, 0))
    log_p = (transition.log_prob(labels.T) * ~past).sum(-1)
    trace.compute_log_prob()
    torch.testing.assert_close(site["log_prob"], log_p)
    with pytest.raises(LatentSiteError, match="no ssl_transition whose path is still to be drawn"):
        ParticleFilter(model, 3).log_evidence(x, labels)


def test_groups_and_effects_of_sequences(transition):
    """Plates of groups over sequences, each sequence with an effect of its own."""
    x, labels, seen = batch((2, 3))
    effect = torch.randn(2, 3)

    def model(x, labels, seen):
        with pyro.plate("groups", 2, dim=-2), pyro.plate("sequences", 3, dim=-1):
            for t, z in ssl_transition("z", transition, len(x), obs=labels, obs_mask=seen):
                pyro.sample("x", dist.Normal(z + effect, 1.0), obs=x[t])

    path = ParticleGibbs(model, 3).sweep(None, x, labels, seen)
    assert path.shape == (2, 3, T) and (path.movedim(-1, 0)[seen] == labels[seen]).all()
    alone = labelled(transition)
    whole = ParticleFilter(model, 50, seed=0, twist=None).log_evidence(x, labels, seen)
    flat = [v.flatten(1) for v in (x - effect, labels, seen)]
    found = ParticleFilter(alone, 50, seed=0, twist=None).log_evidence(*flat).view(2, 3)
    torch.testing.assert_close(whole, found)


def test_latent_rows_of_each_group(transition):
    _, labels, seen = batch((2, 3))
    words = torch.randint(5, (T, 2, 3))

    def model(labels, seen):
        with pyro.plate("groups", 2, dim=-2):
            phi = pyro.sample("phi", dist.Dirichlet(torch.ones(5)).expand([2, 1, K]).to_event(1))
            with pyro.plate("sequences", 3, dim=-1):
                for t, z in ssl_transition("z", transition, T, obs=labels, obs_mask=seen):
                    rows = phi.squeeze(1)[torch.arange(2).unsqueeze(-1), z]
                    pyro.sample("x", dist.Categorical(rows), obs=words[t])

    sampler = ParticleGibbs(model, 3)
    sampler.run(labels, seen, num_samples=3, disable_progbar=True)
    draws = sampler.get_samples()
    assert draws["phi"].shape == (3, 2, 1, K, 5) and draws["z"].shape == (3, 2, 3, T)
    assert (draws["z"].movedim(-1, 1)[:, seen] == labels[seen]).all()


def test_subsampled_plates(transition):
    x, labels, seen = batch((6,))

    def model(index=None):
        pyro.module("transition", transition)
        with pyro.plate("series", 6, subsample=index) as index:
            known = {"obs": labels[:, index], "obs_mask": seen[:, index]}
            for t, z in ssl_transition("z", transition, T, **known):
                pyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=x[:, index][t])

    em = StochasticEM(model, Adam({"lr": 0.01}), 3)
    for index in (torch.tensor([0, 3, 4]), torch.tensor([5, 1, 2]), torch.tensor([2, 0, 3])):
        em.step(index)
    assert (em.paths.T[seen] == labels[seen]).all()


def test_dtypes(transition):
    """float32 data beside a default of float64, and small integers."""
    transition.float()
    x, labels, seen = batch()
    path = ParticleGibbs(labelled(transition), 3).sweep(None, x.float(), labels.byte(), seen)
    assert path.dtype == torch.int64 and (path.T[seen] == labels[seen]).all()


def test_labels_alone_are_an_emission(transition):
    """A loop that observes nothing else."""
    _, labels, seen = batch()

    def model():
        with pyro.plate("series", 5):
            for _ in ssl_transition("z", transition, T, obs=labels, obs_mask=seen):
                pass

    path = ParticleGibbs(model, 3).sweep(None)
    assert (path.T[seen] == labels[seen]).all()


def test_impossible_data_name_the_labels(transition):
    def model(x, labels, seen):
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x), obs=labels, obs_mask=seen):
                pyro.sample("x", dist.Categorical(torch.eye(K)[z]), obs=x[t])

    x = torch.zeros(T, 2, dtype=torch.long)
    with pytest.raises(SMCFailed, match='Site.* "z_obs"|"z_obs", "x"'):
        ParticleGibbs(model, 3).sweep(None, x, x + 1, x == 0)
