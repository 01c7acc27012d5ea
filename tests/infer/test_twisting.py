"""Twists in the inference classes: which is taken, which turned down, and that draws stay right.

Small problems need no twist, so where its exactness is tested the choice is overruled.
"""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import (
    GaussianSSL,
    LSTMTransition,
    MarkovEM,
    MarkovTransition,
    ParticleFilter,
    ParticleGibbs,
    ParticleGibbsKernel,
    StochasticEM,
    TopicalSSL,
    ssl_transition,
    suggest_num_particles,
)
from pyro_ssl.exact import markov_log_likelihood, sample_kalman_paths
from pyro_ssl.infer.estep import SMCSettings
from pyro_ssl.infer.twisting import Twisting
from pyro_ssl.reading.emission import read_emission
from pyro_ssl.reading.program import Program
from pyro_ssl.smc import LinearSurrogate, MarkovSurrogate
from pyro_ssl.transitions import LinearGaussianTransition, PathDistribution
from tests.faults.digest import nothing_changes
from tests.smc.test_gaussian import AlmostLinear, Linear, p_values
from tests.statistics import ALPHA, Echo, chi_square, p_value, random_problem

K, V, B, T = 5, 12, 6, 60


def sticky():
    """A chain that stays where it is, so that what comes later tells much."""
    matrix = 0.9 * torch.eye(K) + 0.1 / K
    return MarkovTransition(K, initial=torch.ones(K) / K, matrix=matrix)


def topical(transition, concentration=0.3, given=True):
    """A model over data of its own, with its topics given or not."""
    phi = dist.Dirichlet(torch.full((K, V), concentration)).sample()
    z = PathDistribution(transition, T, batch_shape=(B,)).sample()
    words = dist.Categorical(phi[z]).sample().T.contiguous()

    def model():
        pyro.module("transition", transition)
        probs = phi
        if not given:
            probs = pyro.sample("phi", dist.Dirichlet(torch.full((K, V), 0.3)).to_event(1))
        with pyro.plate("documents", B):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(probs[z]), obs=words[t])

    return model


def chosen(model, how="markov", P=5):
    run = Program(model).run()
    return Twisting(how).chosen(run, read_emission(run), P)


# ------------------------------------------------------------------------------------- the choice


def test_a_good_surrogate_is_taken():
    found = chosen(topical(sticky()))
    assert isinstance(found.surrogate, MarkovSurrogate)
    assert found.trial.spread < 0.1 * found.trial_without.spread
    assert found.trial.sd_log_evidence < 0.5 * found.trial_without.sd_log_evidence
    assert found.trial.effective_share > 0.98


def test_a_poor_one_is_turned_down():
    """Where z_t copies z_1, what z_{t-1} says of the future misleads."""
    found = chosen(topical(Echo(K)))
    assert found.surrogate is None and found.trial is found.trial_without


def test_a_poor_one_of_the_users_is_told_once():
    wrong = torch.eye(K).roll(2, 1)
    with pytest.warns(RuntimeWarning, match='spreads the weights.*twist="markov"'):
        found = chosen(topical(sticky()), wrong)
    run = Program(topical(sticky())).run()
    again = found.chosen(run, read_emission(run), 5)  # no second warning, which would be an error
    assert again.surrogate is None


def test_the_users_own_is_taken():
    transition = sticky()
    model = topical(transition)
    matrix = transition.transition_logits.softmax(-1)
    assert torch.allclose(chosen(model, matrix).surrogate.matrix, 0.98 * matrix + 0.02 / K)
    hmm = MarkovEM(model)
    for _ in range(20):
        hmm.step()
    assert chosen(model, hmm).surrogate is not None
    assert chosen(model, MarkovSurrogate(matrix, floor=0.1)).surrogate is not None


def test_none_is_none():
    assert chosen(topical(sticky()), None).trial is None
    assert chosen(topical(sticky()), P=1).trial is None


@pytest.mark.parametrize("how", ["chain", 3, torch.ones(K, K), torch.ones(K), MarkovEM])
def test_another_word_is_told(how):
    with pytest.raises(ValueError, match='twist is .*, expected "markov", None'):
        ParticleGibbs(topical(sticky()), twist=how)
    with pytest.raises(ValueError, match='twist is .*, expected "markov", None'):
        StochasticEM(topical(sticky()), pyro.optim.Adam({"lr": 0.1}), twist=how)


def test_one_of_another_size_or_kind_is_told():
    model = topical(sticky())
    linear = LinearSurrogate(torch.eye(2), torch.zeros(2), torch.eye(2))
    for how in (torch.eye(K + 1), linear):
        with pytest.raises(ValueError, match=rf'Site "z": the twist is .*of \({K},\)'):
            ParticleGibbs(model, 3, twist=how).sweep(None)


def test_a_fit_is_kept_until_the_parameters_change():
    transition = LSTMTransition(K, 4)
    run = Program(topical(transition)).run()
    first = Twisting("markov").chosen(run, read_emission(run), 5)
    again = first.chosen(run, read_emission(run), 5)
    assert again._fitted is first._fitted
    with torch.no_grad():
        transition.head.bias.add_(1.0)
    assert again.chosen(run, read_emission(run), 5)._fitted is not first._fitted


def test_choosing_leaves_the_object_as_it_was():
    run = Program(topical(sticky())).run()
    before = Twisting("markov")
    state = copy.copy(vars(before))
    before.chosen(run, read_emission(run), 5)
    before.learned(run, run.any_path())
    state.pop("_fitted")
    assert state.items() <= vars(before).items()


# --------------------------------------------------------------------------------- in the classes


def test_diagnostics_tell_of_the_twist(capsys):
    pg = ParticleGibbs(topical(sticky()), 5)
    pg.run(num_samples=3, warmup_steps=2, disable_progbar=True)
    found = pg.diagnostics()
    assert found["twisted"] and found["effective_share"] > 0.9 and found["sd_log_evidence"] >= 0
    pg.summary()
    assert "twisted: sd of log Ẑ" in capsys.readouterr().out
    pg = ParticleGibbs(topical(sticky()), 5, twist=None)
    pg.run(num_samples=3, disable_progbar=True)
    assert not pg.diagnostics()["twisted"]


def test_it_moves_more():
    """Sweeps without ancestor sampling, of the same model: twice as often, over the first ten."""
    model, moved = topical(sticky()), {}
    for twist in ("markov", None):
        torch.manual_seed(0)
        pg = ParticleGibbs(model, 5, ancestor_sampling=0, twist=twist)
        pg.run(num_samples=30, warmup_steps=5, disable_progbar=True)
        moved[twist] = float(pg.diagnostics()["change_rate"][:10].mean())
    assert moved["markov"] > 2 * moved[None] and moved["markov"] > 0.05


def test_after_the_warmup_no_surrogate_learns_from_paths():
    kernel = ParticleGibbsKernel(topical(LSTMTransition(K, 4)), 5)
    kernel.setup(4)
    params = kernel.initial_params
    for _ in range(4):
        params = kernel.sample(params)
    learned = kernel._twisting._along
    assert learned is not None
    kernel.end_warmup()
    for _ in range(12):
        params = kernel.sample(params)
        assert kernel._twisting._along is learned


def test_em_learns_along_its_paths():
    em = StochasticEM(topical(LSTMTransition(K, 4), given=False), pyro.optim.Adam({"lr": 0.1}), 5)
    em.step()
    first = em._twisting._along
    em.step()
    assert first is not None and em._twisting._along is not first


def test_sweeps_that_take_no_twist_learn_none():
    """One particle is not twisted (LLA), so nothing is spent on a surrogate."""
    model = topical(LSTMTransition(K, 4), given=False)
    em = StochasticEM(model, pyro.optim.Adam({"lr": 0.1}), 1, conditional=False)
    em.step()
    assert em._twisting._along is None and em._twisting.surrogate is None


@pytest.mark.parametrize("make", [lambda: TopicalSSL(2, 5), lambda: GaussianSSL(1)])
def test_a_ready_made_model_passes_its_twist_on(make):
    model = make()
    data = [[1], [2]] if isinstance(model, TopicalSSL) else [[[1.0]], [[2.0]], [[0.5]]]
    with nothing_changes(modules=[model]), pytest.raises(ValueError, match="twist is 'chain'"):
        model.fit(data, twist="chain", disable_progbar=True)


def test_vectors_take_a_linear_surrogate():
    transition = LinearGaussianTransition(
        2, matrix=torch.tensor([[1.0, 1.0], [0.0, 0.99]]), scale=torch.tensor([1e-3, 0.1])
    )
    z = PathDistribution(transition, T).sample((B,)).transpose(0, 1)
    x = z[..., 0].detach() + torch.randn(T, B)

    def model():
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x[t])

    found = chosen(model)
    assert isinstance(found.surrogate, LinearSurrogate)
    assert found.trial.sd_log_evidence < 0.1 and found.trial_without.sd_log_evidence > 10


# -------------------------------------------------------------------------------------- scores


def exact_scores(model, start=0):
    """log p(x_{s+1:T} | x_{1:s}) of every sequence, by the forward algorithm."""
    run = Program(model).run()
    chain = run.transition
    initial, matrix = chain.initial_logits.softmax(-1), chain.transition_logits.softmax(-1)
    return markov_log_likelihood(initial, matrix, run.grid.table())[start:].sum(0)


@pytest.mark.parametrize("start", [0, 20])
def test_scores_of_a_chain_are_exact(start):
    """A chain is its own surrogate, so even two particles give its evidence, to the floor's 1e-6.

    A plain filter with as few is off by tens of nats.
    """
    model = topical(sticky())
    exact = exact_scores(model, start)
    if not start:
        log_z = ParticleFilter(model, 2).log_evidence()
        torch.testing.assert_close(log_z, exact, atol=0.02, rtol=0)
        assert (ParticleFilter(model, 2, twist=None).log_evidence() - exact).abs().mean() > 1
    found = ParticleFilter(model, 2).perplexity(start=start)
    assert found == pytest.approx(float((-exact.sum() / (B * (T - start))).exp()), rel=1e-3)


def test_one_step_ahead_figures_are_not_twisted():
    """With many particles they are those of the forward algorithm, each and not in sum alone."""
    model = topical(sticky())
    run = Program(model).run()
    chain = run.transition
    initial, matrix = chain.initial_logits.softmax(-1), chain.transition_logits.softmax(-1)
    exact = markov_log_likelihood(initial, matrix, run.grid.table())
    found = ParticleFilter(model, 5_000).log_likelihood()
    assert (found - exact).abs().max() < 0.2


def test_a_continuation_knows_nothing_of_what_it_scores():
    """Where x_{s+1:T} say all and x_{1:s} nothing, a twisted one-step figure would flatter."""
    chain = MarkovTransition(2, initial=torch.ones(2) / 2, matrix=torch.eye(2))
    x = torch.ones(6, 200)

    def model():
        with pyro.plate("sequences", 200):
            for t, z in ssl_transition("z", chain, 6):
                late = (t >= 3).unsqueeze(-1)
                p = torch.where(late, torch.tensor([1e-6, 1.0 - 1e-6])[z], 0.5)
                pyro.sample("x", dist.Bernoulli(p), obs=x[t])

    found = ParticleFilter(model, 10).perplexity(start=3)
    exact = torch.tensor([0.5 * 1e-18, 0.5 * (1 - 1e-6) ** 3]).sum() ** (-1 / 3)
    assert found == pytest.approx(float(exact), rel=1e-2)


def test_evidence_has_an_error():
    """Within 4.5 standard errors of the truth, over all sequences: false alarms, 1e-3 for 6."""
    model = topical(LSTMTransition(K, 4))
    found = ParticleFilter(model, 3, twist=None).evidence(num_runs=40)
    truth = ParticleFilter(model, 1_000).log_evidence()
    assert found.log_evidence.shape == found.standard_error.shape == (B,)
    assert (found.standard_error > 0).all()
    assert ((found.log_evidence - truth).abs() < 4.5 * found.standard_error + 0.02).all()
    with pytest.raises(ValueError, match="num_runs is 1, expected at least 2"):
        ParticleFilter(model, 3).evidence(num_runs=1)


def test_a_number_of_particles_is_suggested():
    model = topical(sticky())
    assert suggest_num_particles(model) == 2
    plain = suggest_num_particles(model, twist=None)
    assert plain >= 10
    assert ParticleFilter(model, plain, twist=None).spread() < 1.3
    with pytest.warns(RuntimeWarning, match="standard deviation of .* at 1000 particles"):
        suggest_num_particles(model, twist=None, target_sd=1e-9, num_runs=2)
    with pytest.raises(ValueError, match="num_runs=1"):
        suggest_num_particles(model, num_runs=1)


# ------------------------------------------------------------------------------------- exactness


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("path_kernel", ["conditional", "independent"])
@pytest.mark.parametrize("twist", [None, "markov", "wrong"])
def test_one_update_keeps_the_posterior(twist, path_kernel, always_twisted, n=40_000):
    """From exact draws to exact draws; each of 6 x 2 p-values above ALPHA."""
    for seed, P in ((0, 2), (1, 3)):
        torch.manual_seed(seed)
        problem = random_problem(3, 4, sharpness=6.0)
        model = model_of(problem, n)
        posterior = problem.log_joint()[0].softmax(-1)
        start = problem.paths()[posterior.multinomial(n, replacement=True)]
        how = torch.eye(3).roll(1, 1) if twist == "wrong" else twist
        pg = ParticleGibbs(model, P, ancestor_sampling=2, twist=how, path_kernel=path_kernel)
        after = pg.sweep(start)
        counts = problem.index(after.T).bincount(minlength=len(posterior))
        assert p_value([chi_square(counts, posterior)]) > ALPHA
        assert (after != start).any(-1).double().mean() > 0.1


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("make", [Linear, AlmostLinear])
@pytest.mark.parametrize("path_kernel", ["conditional", "independent"])
def test_one_update_keeps_the_posterior_of_vectors(make, path_kernel, always_twisted, n=20_000):
    """From Kalman draws to Kalman draws; each of 4 x 16 p-values above ALPHA."""
    case = make(4, 1, seed=3)
    draws = sample_kalman_paths(*case.oracle, (2 * n,)).squeeze(2)  # (2n, T, D)
    pg = ParticleGibbs(case.model, 3, ancestor_sampling=2, path_kernel=path_kernel)
    after = pg.sweep(draws[:n], n)
    assert min(p_values(draws[n:], after)) > ALPHA


def model_of(problem, n):
    """The Pyro model of n copies of a problem with one sequence."""
    emission, ones = problem.log_emission[:, 0].exp(), torch.ones(len(problem.log_emission), n)

    def model():
        with pyro.plate("copies", n):
            for t, z in ssl_transition("z", problem.transition, len(emission)):
                pyro.sample("x", dist.Bernoulli(emission[t.unsqueeze(-1), z]), obs=ones[t])

    return model


@pytest.mark.parametrize("T, states, vectors", [(1, 10, 10), (121, 11, 10), (1600, 134, 23)])
def test_redraws_of_a_long_path_are_few(T, states, vectors):
    """Each scores what is left of it: a sweep's cost is to grow with T, not with T²."""
    assert SMCSettings(5).redraw_every(T, True) == states
    assert SMCSettings(5).redraw_every(T, False) == vectors
    assert SMCSettings(5, ancestor_sampling=3).redraw_every(T, True) == 3
    assert SMCSettings(5, ancestor_sampling=0).redraw_every(T, False) == 0
