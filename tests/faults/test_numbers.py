"""Right values where wrong ones once came out in silence, a test for each kind.

They are computed here, apart from the package: by sums over all paths in float64, or by counting.
"""

import itertools
import math
import threading

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.optim import Adam

from pyro_ssl import (
    IMVLSTM,
    GaussianSSL,
    LSTMTransition,
    MarkovEM,
    MarkovTransition,
    ParticleFilter,
    ParticleGibbs,
    StochasticEM,
    TopicalSSL,
    ssl_transition,
)
from pyro_ssl.datasets import Vocabulary
from pyro_ssl.exact import enumerate_paths, markov_log_likelihood
from tests.faults.digest import nothing_changes
from tests.infer.test_refusals import CALLS, WITHOUT_LATENTS

K, V, T, B = 3, 4, 5, 4


def words_model(concentration=None, use=lambda phi: phi, emission=None):
    """Words whose table is ``use(phi)``; the first Dirichlet site is called phi."""
    transition = LSTMTransition(K, 4)
    concentration = torch.ones(K, V) if concentration is None else concentration

    def model(words, index=None, size=None):
        pyro.module("transition", transition)
        phi = pyro.sample("phi", dist.Dirichlet(concentration).to_event(1))
        with pyro.plate("documents", size or words.shape[1], subsample=index):
            for t, z in ssl_transition("z", transition, len(words)):
                x = words if index is None else words[:, index]
                fn = dist.Categorical(use(phi)[z]) if emission is None else emission(phi, z)
                pyro.sample("x", fn, obs=x[t])

    return model


def given_model(x, emission, transition=None, num_states=K):
    """Data ``(T, B)`` and nothing latent but the path."""
    transition = transition or uniform_chain(num_states)

    def model():
        with pyro.plate("sequences", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x)):
                pyro.sample("x", emission(z), obs=x[t])

    return model


def uniform_chain(K, dtype=None):
    each = torch.ones(K, dtype=dtype) / K
    return MarkovTransition(K, initial=each, matrix=each.expand(K, K))


# ------------------------------------------------------------------ defaults, losses, sparse priors


@pytest.mark.parametrize("concentration", [0.01, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("options", [{}, {"dirichlet": "mode"}], ids=["default", "mode"])
def test_sparse_priors_are_learned_and_warm_started(concentration, options):
    words = torch.randint(V, (7, 8))
    model = words_model(torch.full((K, V), concentration))
    em = StochasticEM(model, Adam({"lr": 0.01}), 5, **options)
    losses = [em.step(words) for _ in range(3)]
    hmm = em.warm_start(words, num_steps=3, transition_steps=2)
    losses += [em.step(words) for _ in range(2)]
    # With log p(phi), which a sparse prior makes as large as it likes, they would be below 0.
    assert all(0 < loss < math.inf for loss in losses)
    for phi in (em.values["phi"], hmm.values["phi"]):
        assert torch.allclose(phi.sum(-1), torch.ones(K)) and (phi >= 0).all()
    assert em.counts["phi"].sum().item() == pytest.approx(words.numel(), abs=1e-6)


@pytest.mark.parametrize("inference", ["particle_gibbs", "smc"])
def test_the_loss_of_an_epoch_is_per_token_and_of_paths_and_words(inference):
    """Uniform words under as many topics: between the entropy rate and that of z beside it."""
    words = torch.randint(50, (12, 20))
    ssl = TopicalSSL(4, 50, hidden_size=4)
    options = dict(markov_steps=2, markov_starts=1, transition_steps=1, disable_progbar=True)
    history = ssl.fit(words, num_epochs=2, inference=inference, **options)
    assert all(2.0 < record.loss < math.log(4 * 50) + 1.0 for record in history)


# ----------------------------------------------------------------------------- modes of autograd


@pytest.mark.stage("system")
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_learning_and_drawing_within_any_mode_of_autograd(mode):
    """Word 0 alone: phi[:, 0] is near 1 where it is right, 1/4 where the prior is drawn."""
    words, model = torch.zeros(40, 20, dtype=torch.long), words_model()
    sampler, em = ParticleGibbs(model, 3), StochasticEM(model, Adam({"lr": 0.1}), 3)
    hmm = MarkovEM(model)
    calls = {
        "draw": lambda: sampler.run(words, num_samples=6, warmup_steps=4, disable_progbar=True),
        "step": lambda: [em.step(words) for _ in range(3)],
        "hmm": lambda: [hmm.step(words) for _ in range(3)],
    }
    with mode():
        for call in calls.values():
            if mode is torch.inference_mode:
                with nothing_changes(), pytest.raises(RuntimeError, match=r"Write torch.no_grad"):
                    call()
            else:
                call()
    if mode is not torch.inference_mode:
        assert sampler.get_samples()["phi"][..., 0].mean() > 0.9
        for found in (em.values["phi"], hmm.values["phi"]):
            assert found[:, 0].max() > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["Categorical", "Bernoulli"])
def test_probabilities_near_zero_are_not_clamped(dtype, kind):
    """torch keeps them 1.2e-7 away from 0 in float32: likelihoods come out too high."""
    torch.set_default_dtype(dtype)
    tiny = torch.tensor([1e-12, 1e-9, 1e-20])
    if kind == "Categorical":
        rows, x = torch.stack([tiny, 1 - tiny], -1), torch.zeros(2, 1, dtype=torch.long)
        model = given_model(x, lambda z: dist.Categorical(rows[z]))
    else:
        model = given_model(torch.ones(2, 1), lambda z: dist.Bernoulli(tiny[z]))
    right = 2 * math.log(float(tiny.double().mean()))
    chain = uniform_chain(K)
    hmm = MarkovEM(model).start_from(chain.initial_logits.exp(), torch.ones(K, K) / K)
    for found in (ParticleFilter(model, 2).log_evidence(), hmm.log_likelihood().sum()):
        assert found.item() == pytest.approx(right, rel=1e-5)


def test_probabilities_of_exactly_zero_and_one():
    p, x = torch.tensor([0.0, 1.0]), torch.tensor([[1.0], [0.0], [1.0]])
    model = given_model(x, lambda z: dist.Bernoulli(p[z]), num_states=2)
    evidence = ParticleFilter(model, 2).log_evidence()
    assert evidence.item() == pytest.approx(-3 * math.log(2))
    assert ParticleGibbs(model, 3).sweep(None).tolist() == [[1, 0, 1]]


@pytest.mark.stage("system")
def test_long_sequences_add_up_in_float64():
    """4,000 float32 steps of log 1/3 each."""
    torch.set_default_dtype(torch.float32)
    x, rows = torch.zeros(4_000, 1, dtype=torch.long), torch.ones(1, 3) / 3
    model = given_model(x, lambda z: dist.Categorical(rows[z]), num_states=1)
    found = ParticleFilter(model, 1).log_evidence().item()
    assert found == pytest.approx(-4_000 * math.log(3), rel=2e-7)


# -------------------------------------------------------------------------------- counts add up


def test_counts_go_on_beyond_two_to_the_24():
    """In float32 a count of ones stops at 16,777,216: here one cell has 20 million.

    A scale on each observation stands for that many of it.
    """
    torch.set_default_dtype(torch.float32)
    words, weight = torch.zeros(2, 3, dtype=torch.long), 20_000_001 / 6
    model = pyro.poutine.scale(words_model(torch.ones(K, 2)), scale=weight)
    hmm, em = MarkovEM(model), StochasticEM(model, Adam({"lr": 0.0}), 1)
    for fit in (hmm, em):
        fit.step(words)
        assert fit.counts["phi"].dtype == torch.float64
        assert fit.counts["phi"].sum().item() == pytest.approx(20_000_001, rel=1e-6)


@pytest.mark.stage("system")
def test_counts_of_many_tokens_are_not_rounded_while_they_add_up():
    """200,000 float32 look-ups."""
    torch.set_default_dtype(torch.float32)
    words = torch.zeros(100, 2_000, dtype=torch.long)
    words[0] = 1
    em = StochasticEM(words_model(torch.ones(K, 2)), Adam({"lr": 0.0}), 1)
    em.step(words)
    # Each is rounded once, to float32's precision of the row's total, however many are added.
    assert em.counts["phi"].sum(0).tolist() == pytest.approx([198_000, 2_000], rel=0, abs=0.02)


@pytest.mark.stage("system")
@pytest.mark.parametrize("how", ["without replacement", "with replacement", "one, three times"])
def test_counts_are_those_of_the_paths_in_memory(how):
    N, words = 6, torch.randint(V, (T, 6))
    em = StochasticEM(words_model(), Adam({"lr": 0.01}), 3)
    seen = torch.zeros(N, dtype=torch.bool)
    for _ in range(15):
        index = torch.randint(N, (4,)) if how == "with replacement" else torch.randperm(N)[:4]
        index = torch.tensor([2, 2, 2]) if how == "one, three times" else index
        em.step(words, index, N)
        seen[index] = True
        right = torch.zeros(K, V)
        for b, t in itertools.product(seen.nonzero().squeeze(-1).tolist(), range(T)):
            right[em.paths[b, t], words[t, b]] += N / int(seen.sum())
        assert torch.allclose(em.counts["phi"], right, atol=1e-6)


# ------------------------------------------------------- outliers that no reachable state explains


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_class_goes_on_over_an_outlier_and_hard_zeros(dtype, smoothing):
    """Left to right, and x_1 in one sequence is what only the last state explains."""
    torch.set_default_dtype(dtype)
    matrix = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    initial, loc = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 5.0, 10.0])
    x = torch.tensor([0.0, 0.0, 5.0, 5.0, 10.0, 10.0])[:, None] + 0.1 * torch.randn(6, 4)
    x[0, 0] = 10.0
    chain = MarkovTransition(3, initial=initial, matrix=matrix)
    table = dist.Normal(loc, 0.3).log_prob(x.unsqueeze(-1)).double()
    terms = []
    for z in itertools.product(range(3), repeat=6):
        prior = [initial[z[0]], *(matrix[a, b] for a, b in itertools.pairwise(z))]
        prior = sum(p.double().log() for p in prior)
        terms.append(prior + sum(table[t, :, k] for t, k in enumerate(z)))
    right = torch.stack(terms).logsumexp(0)
    assert right[0] < -500 and right.isfinite().all()

    def near(found):
        return torch.allclose(found.double(), right, rtol=1e-5)

    assert near(markov_log_likelihood(initial, matrix, table.to(dtype)).sum(0))
    assert near(enumerate_paths(chain, table.to(dtype)).log_evidence)
    model = given_model(x, lambda z: dist.Normal(loc[z], 0.3), chain)
    hmm = MarkovEM(model, smoothing=smoothing).start_from(initial, matrix)
    assert near(hmm.log_likelihood().sum(0))
    assert -hmm.step() == pytest.approx(right.sum().item(), rel=1e-5)
    assert hmm.initial.isfinite().all() and hmm.matrix.isfinite().all()
    assert smoothing or hmm.matrix[1, 0] == 0
    found = ParticleFilter(model, 500).log_evidence().double()
    assert torch.allclose(found, right, atol=1.0, rtol=0)
    z = ParticleGibbs(model, 3).sweep(None)
    assert (z.diff(dim=-1) >= 0).all() and not z[:, 0].any()


@pytest.mark.parametrize("value", [1.7, -0.5, 0.3, math.inf, math.nan])
@pytest.mark.parametrize("of_sequence", [False, True])
def test_a_symbol_with_a_fraction_is_refused(value, of_sequence):
    rows = torch.tensor([[0.1, 0.9], [0.3, 0.7]])
    if of_sequence:  # another path than the look-up by state
        rows = rows.unsqueeze(1).expand(2, 3, 2)

    def emission(z):
        return dist.Categorical(rows[z, torch.arange(3)] if of_sequence else rows[z])

    model = given_model(torch.full((5, 3), value), emission, num_states=2)
    for validate in (True, False):
        pyro.enable_validation(validate)
        if of_sequence and not validate:
            continue  # there Pyro itself checks nothing
        with pytest.raises(ValueError):
            ParticleFilter(model, 5).perplexity()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("call", [*CALLS, *WITHOUT_LATENTS])
def test_half_precision_is_refused(dtype, call):
    loc, one = torch.zeros(K, dtype=dtype), torch.ones((), dtype=dtype)
    transition = LSTMTransition(K, 4).to(dtype)

    def model(y):
        with pyro.plate("sequences", y.shape[1]):
            for t, z in ssl_transition("z", transition, len(y)):
                pyro.sample("x", dist.Normal(loc[z], one), obs=y[t])

    y = torch.zeros(T, B, dtype=dtype)
    with nothing_changes(), pytest.raises(ValueError, match=r'Site "x": its log-density .*float16'):
        (CALLS | WITHOUT_LATENTS)[call](model, y)


# ----------------------------------------- sizes and shapes of models, second fits, stops, threads


@pytest.mark.stage("system")
def test_one_step_is_a_mixture():
    words = torch.randint(5, (1, 8))
    ssl = TopicalSSL(2, 5, hidden_size=4)
    how = {"markov_steps": 3, "transition_steps": 2, "disable_progbar": True}
    history = ssl.fit(words, num_epochs=1, **how)
    assert math.isfinite(history[0].loss) and ssl.perplexity(words) >= 1.0


@pytest.mark.parametrize("shape, dim", [((40, 2), 2), ((40, 3), 1)])
def test_a_shape_of_two_readings_is_refused(shape, dim):
    """One series of two sensors, or two series of one: not as many series as there are steps."""
    with pytest.raises(ValueError, match=r"expected \(T, B, E\).*x\[:, None\]"):
        GaussianSSL(dim, hidden_size=4).fit(torch.randn(shape), disable_progbar=True)


@pytest.mark.stage("system")
def test_data_as_they_come():
    x, series = torch.randn(20, 4, 1), torch.randn(8, 2, 2).cumsum(0)
    options = dict(num_epochs=1, disable_progbar=True)
    for data in (x, x.double(), x.numpy(), x.expand(-1, -1, 2)):
        IMVLSTM(data.shape[-1], 4).fit(data, torch.randn(20), **options)
    settings = {"num_paths": 1, "num_particles": 2, "num_valid_particles": 2, **options}
    for data in (series.double(), series.numpy(), (9 * series).long()):
        GaussianSSL(2, hidden_size=2).fit(data, **settings)
    GaussianSSL(2, hidden_size=2).fit(series, mask=torch.ones(8, 2), **settings)
    words = torch.randint(3, (6, 4)).numpy()
    vocabulary = Vocabulary.build([["a", "b"]], size=3)
    options |= {"markov_steps": 2, "markov_starts": 1, "transition_steps": 1}
    TopicalSSL(2, vocabulary, hidden_size=4).fit(words % len(vocabulary), **options)


def test_a_refused_fit_leaves_the_fitted_model():
    x = torch.randn(30, 2, 2).cumsum(0)
    ssl = GaussianSSL(2, hidden_size=4)
    ssl.fit(x, num_epochs=2, num_paths=1, disable_progbar=True)
    for wrong in ({"num_particles": 0}, {"num_paths": 0}):
        history = list(ssl.history)
        with nothing_changes(modules=[ssl]), pytest.raises(ValueError, match=next(iter(wrong))):
            ssl.fit(x, **{"disable_progbar": True, **wrong})
        assert ssl.history == history


def test_a_stopped_run_keeps_its_draws():
    def stop(params, i):
        if i == 5:
            raise KeyboardInterrupt

    sampler, words = ParticleGibbs(words_model(), 3), torch.randint(V, (T, B))
    with pytest.warns(RuntimeWarning, match="Stopped after 6 of 20 draws, which are kept"):
        sampler.run(words, num_samples=20, hook_fn=stop, disable_progbar=True)
    assert sampler.get_samples()["z"].shape == (6, B, T)


def test_threads_take_turns():
    """Else what one of them enters stands around the other's model."""
    words, rows = torch.randint(V, (T, B)), torch.rand(K, V)
    model = given_model(words, lambda z: dist.Categorical(rows[z]))
    hmm = MarkovEM(model).start_from(torch.ones(K) / K, torch.ones(K, K) / K)
    score = ParticleFilter(model, 5)
    right, found = score.perplexity(), []  # of a chain without memory: exact

    def work(ask):
        found.extend([ask() for _ in range(15)])

    threads = [threading.Thread(target=work, args=[of.perplexity]) for of in (score, hmm, score)]
    for step in ("start", "join"):
        for thread in threads:
            getattr(thread, step)()
    assert found == pytest.approx([right] * 45) and not pyro.get_param_store().keys()
