"""The factorised guide: its optimum, its unbiased gradient, and what of it is exact."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoGuideList, AutoNormal
from pyro.optim import Adam

from pyro_ssl import (
    LSTMTransition,
    MarkovEM,
    MarkovTransition,
    MeanFieldELBO,
    MeanFieldGuide,
    ssl_transition,
)
from pyro_ssl.errors import LatentSiteError, NonFiniteError
from pyro_ssl.exact.chains import Enumeration, enumerate_paths
from pyro_ssl.reading.program import Program

K, T = 3, 4
LOGITS = "mean_field.z.logits"


def sharp_lstm(by=3.0, num_states=K, input_size=0):
    transition = LSTMTransition(num_states, 6, input_size=input_size)
    for parameter in transition.parameters():
        parameter.data.mul_(by)
    return transition


def make_model(transition, x, scale=1.0, **loop):
    def model():
        pyro.module("transition", transition)
        with pyro.plate("sequences", x.shape[1]), poutine.scale(scale=scale):
            for t, z in ssl_transition("z", transition, len(x), **loop):
                pyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=x[t])

    return model


def enumeration(model):
    run = Program(model).run()
    return enumerate_paths(
        run.transition, run.grid.table(), inputs=run.inputs, lengths=run.grid.lengths
    )


def path_probs(q, paths):
    """q(z) of paths (N, T) under marginals (B, T, K): (B, N)."""
    steps = torch.arange(paths.shape[1])
    return q[:, steps, paths].prod(-1)


def exact_elbo(q, every):
    """ELBO of marginals q (B, T, K), by the sum over all paths: (B,)."""
    probs = path_probs(q, every.paths)
    return (torch.xlogy(probs, every.log_joint.exp()) - torch.xlogy(probs, probs)).sum(-1)


def best_mean_field(every, starts=64, rounds=200):
    """The highest ELBO that coordinate ascent reaches on the last sequence, from many starts.

    q_t(k) ∝ exp E_{q(-t)}[log p(z, x) | z_t = k], each expectation a sum over all paths.
    """
    one_hot = torch.nn.functional.one_hot(every.paths, K).double()  # (N, T, K)
    q = dist.Dirichlet(torch.ones(K)).sample((starts, T))
    for _ in range(rounds):
        for t in range(T):
            others = q.clone()
            others[:, t] = 1.0
            weight = path_probs(others, every.paths) * every.log_joint[-1]
            q[:, t] = (weight @ one_hot[:, t]).softmax(-1)
    return exact_elbo(q, Enumeration(every.paths, every.log_joint[-1:])).max()


def fit(model, schedule):
    """Train a guide on fixed parameters, (learning rate, draws, steps) at a time."""
    guide = MeanFieldGuide(model)
    for lr, num_particles, steps in schedule:
        svi = SVI(model, guide, Adam({"lr": lr}), loss=MeanFieldELBO(num_particles))
        for _ in range(steps):
            svi.step()
    return guide


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("by", [1.0, 3.0, 6.0])
def test_reaches_the_best_mean_field_optimum(by):
    """Within 1e-3 nats, from the best of 8 starts; never above the evidence."""
    transition = sharp_lstm(by).requires_grad_(False).eval()
    model = make_model(transition, torch.randn(T, 1).expand(-1, 8))  # one sequence, 8 starts
    every, best = enumeration(model), best_mean_field(enumeration(model))
    guide = fit(model, [(0.1, 20, 150), (0.02, 100, 150), (0.005, 400, 100)])
    found = exact_elbo(guide.marginals().transpose(0, 1), every)
    assert best - found.max() < 1e-3
    assert (found <= best + 1e-9).all() and (found < every.log_evidence).all()
    assert every.log_evidence[0] - best > 2e-4  # the factorised family does not hold the posterior


def exact_gradient(model, guide):
    """ELBO and its gradient with respect to the logits and the transition, over all paths."""
    run = Program(model).run()
    logits = pyro.param(LOGITS).detach().clone().requires_grad_()
    q = logits.softmax(-1)
    paths = enumeration(model).paths
    probs = path_probs(q, paths)
    log_p = run.transition.log_prob(paths).sum(-1)
    table = run.grid.table().detach()  # (T, B, K)
    log_x = table[torch.arange(T), :, paths].sum(1).T  # (B, N)
    elbo = (probs * (log_p + log_x - probs.log())).sum()
    wanted = [logits, *run.transition.parameters()]
    return elbo.detach(), torch.autograd.grad(elbo, wanted)


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("warm", [False, True], ids=["empty table", "learned table"])
def test_value_and_gradient_are_unbiased(warm):
    """|z| < 5.5 over fewer than 1,000 means: a false alarm once in 20,000 seeds."""
    transition = sharp_lstm(4.0)
    model = make_model(transition, torch.randn(T, 2))
    guide, loss = MeanFieldGuide(model), MeanFieldELBO(num_particles=3)
    with torch.no_grad():
        guide.read(Program(model))
        guide(), loss.loss(model, guide)
    if warm:
        loss.loss_and_grads(model, guide)
    elbo, expected = exact_gradient(model, guide)
    wanted = [pyro.param(LOGITS).unconstrained(), *transition.parameters()]
    found = []
    for _ in range(1000):
        value = loss.differentiable_loss(model, guide)
        grads = torch.autograd.grad(-value, wanted)
        found.append(torch.cat([-value.detach().reshape(1), *(g.reshape(-1) for g in grads)]))
    found = torch.stack(found)
    target = torch.cat([elbo.reshape(1), *(g.reshape(-1) for g in expected)])
    error = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - target).abs() <= 5.5 * error + 1e-9).all()
    assert (error > 1e-6).any()  # something is estimated


def test_nothing_is_estimated_for_a_markov_chain():
    """Once the table is learned, the value is the exact ELBO and the gradient has no noise."""
    transition = MarkovTransition(K)
    for parameter in transition.parameters():
        parameter.data.normal_()
    model = make_model(transition, torch.randn(T, 2))
    guide, loss = MeanFieldGuide(model), MeanFieldELBO(num_particles=200)
    loss.loss_and_grads(model, guide)
    transition.zero_grad()
    pyro.param(LOGITS).unconstrained().grad = None
    elbo, (gradient, *_) = exact_gradient(model, guide)
    loss = MeanFieldELBO(num_particles=2)
    assert loss.loss_and_grads(model, guide) == pytest.approx(-float(elbo), abs=1e-10)
    torch.testing.assert_close(-pyro.param(LOGITS).unconstrained().grad, gradient)
    assert loss.loss(model, guide) == pytest.approx(loss.loss(model, guide), abs=1e-10)


@pytest.mark.stage("system")
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_lengths_inputs_and_scale(scale):
    """The mean over many draws is the exact ELBO, whatever stands past a sequence's length.

    |z| < 5: a false alarm once in 1.7 million runs.
    """
    transition = sharp_lstm(input_size=2).requires_grad_(False).eval()
    lengths, inputs = torch.tensor([2, 4, 1]), torch.randn(T, 3, 2)
    x = torch.randn(T, 3)
    model = make_model(transition, x, scale, lengths=lengths, inputs=inputs)
    guide, loss = MeanFieldGuide(model), MeanFieldELBO(num_particles=500)
    loss.loss_and_grads(model, guide)
    q, every = guide.marginals().transpose(0, 1), enumeration(model)
    past = torch.arange(T) >= lengths[:, None]
    q[past] = torch.tensor([1.0, 0.0, 0.0])  # as the enumeration has it
    probs = path_probs(q, every.paths)
    log_prior = transition.log_prob(every.paths[:, None].expand(-1, 3, -1), inputs.transpose(0, 1))
    log_prior = log_prior.masked_fill(past, 0.0).sum(-1).T
    log_x = dist.Normal(1.0 * torch.arange(K)[:, None, None], 1.0).log_prob(x)  # (K, T, B)
    log_x = log_x.masked_fill(past.T, 0.0)
    log_x = log_x[every.paths, torch.arange(T)].sum(1).T  # (B, N)
    expected = (probs * scale * (log_prior + log_x) - torch.xlogy(probs, probs)).sum()
    values = -torch.tensor([loss.loss(model, guide) for _ in range(50)])
    assert (values.mean() - expected).abs() < 5 * values.std() / math.sqrt(50)


# ------------------------------------------------------------------------- within a whole model


V, B = 5, 6


def topical(transition, size=B, concentration=0.5):
    def model(words, index=None):
        pyro.module("transition", transition)
        beta = torch.full((K, V), concentration)
        phi = pyro.sample("phi", dist.Dirichlet(beta).to_event(1))
        with pyro.plate("documents", size, subsample=index) as i:
            x = words[:, i]
            for t, z in ssl_transition("z", transition, len(x)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    return model


@pytest.fixture
def words():
    return torch.randint(V, (T, B))


def expected_counts(words, q):
    n = torch.zeros(K, V)
    for b in range(words.shape[1]):
        for t in range(len(words)):
            n[:, words[t, b]] += q[b, t]
    return n


@pytest.mark.parametrize("kind", ["mean", "mode"])
def test_dirichlet_site_is_the_closed_form_of_its_expected_counts(words, kind):
    model = topical(LSTMTransition(K, 4), concentration=1.5)
    guide = MeanFieldGuide(model, dirichlet=kind)
    q = guide.marginals(words).transpose(0, 1)
    SVI(model, guide, Adam({"lr": 0.1}), loss=MeanFieldELBO()).step(words)
    n = expected_counts(words, q) + (1.5 if kind == "mean" else 0.5)
    torch.testing.assert_close(guide.values["phi"], n / n.sum(-1, keepdim=True))


@pytest.mark.stage("statistical")
def test_svi_trains_the_guide_and_the_transition(words):
    words[:] = torch.arange(T)[:, None]
    transition = LSTMTransition(K, 4)
    model, before = topical(transition), transition.head.weight.detach().clone()
    guide = MeanFieldGuide(model)
    svi = SVI(model, guide, Adam({"lr": 0.1}), loss=MeanFieldELBO(num_particles=4))
    losses = [svi.step(words) for _ in range(60)]
    assert losses[-1] < losses[0] - 10.0
    assert not torch.equal(transition.head.weight, before)
    assert svi.evaluate_loss(words) == pytest.approx(losses[-1], rel=0.5)


def test_minibatches_train_their_own_rows(words):
    model = topical(LSTMTransition(K, 4))
    guide = MeanFieldGuide(model, averaging=0.5)
    svi = SVI(model, guide, Adam({"lr": 0.1}), loss=MeanFieldELBO())
    svi.step(words, torch.tensor([0, 1]))
    before = pyro.param(LOGITS).detach().clone()
    assert before.shape == (B, T, K)
    pyro.clear_param_store()
    guide = MeanFieldGuide(model, averaging=0.5)
    svi = SVI(model, guide, Adam({"lr": 0.1}), loss=MeanFieldELBO())
    svi.loss(model, guide, words, torch.tensor([4, 2]))
    before = pyro.param(LOGITS).detach().clone()
    svi.step(words, torch.tensor([4, 2]))
    moved = (pyro.param(LOGITS) != before).flatten(1).any(1)
    assert moved.tolist() == [False, False, True, False, True, False]
    # counts of two sequences stand for six
    assert guide.counts["phi"].sum() == pytest.approx(T * B)
    q = guide.marginals(words, torch.tensor([4, 2]))
    assert q.shape == (T, 2, K)


@pytest.mark.stage("statistical")
def test_the_value_agrees_with_trace_elbo(words):
    """|z| < 5: a false alarm once in 1.7 million runs."""
    model = topical(sharp_lstm(2.0))
    guide = MeanFieldGuide(model)
    guide.marginals(words).transpose(0, 1)
    values = []
    for loss in (MeanFieldELBO(50), Trace_ELBO(50, vectorize_particles=False)):
        values.append(torch.tensor([loss.loss(model, guide, words) for _ in range(20)]))
    error = sum(v.var() / 20 for v in values).sqrt()
    assert (values[0].mean() - values[1].mean()).abs() < 5 * error
    assert values[0].std() < values[1].std() / 3


def test_runs_under_pyros_own_tools(words):
    model = topical(LSTMTransition(K, 4))
    guide = MeanFieldGuide(model)
    assert math.isfinite(SVI(model, guide, Adam({"lr": 0.1}), loss=Trace_ELBO()).step(words))
    trace = poutine.trace(guide).get_trace(words)
    assert trace.nodes["z"]["value"].shape == (B, T)
    assert torch.equal(trace.nodes["phi"]["value"], guide.values["phi"])
    replayed = poutine.trace(poutine.replay(model, trace)).get_trace(words)
    assert torch.equal(replayed.nodes["z"]["value"], trace.nodes["z"]["value"])


def test_vectorised_particles():
    model = make_model(sharp_lstm(), torch.randn(T, 2))
    guide, elbo = MeanFieldGuide(model), Trace_ELBO(5, vectorize_particles=True)
    assert math.isfinite(SVI(model, guide, Adam({"lr": 0.1}), loss=elbo).step())
    samples = Predictive(model, guide=guide, num_samples=7)()
    assert samples["z"].numel() == 7 * 2 * T and samples["x"].shape[-2:] == (T, 2)


def test_starts_from_the_hmm(words):
    model = topical(LSTMTransition(K, 4))
    hmm = MarkovEM(model, dirichlet="mean")
    for _ in range(3):
        hmm.step(words)
    guide = MeanFieldGuide(model)
    guide.start_from(hmm, words)
    assert torch.equal(guide.values["phi"], hmm.values["phi"])
    run = Program(model, (words,)).run(hmm.values)
    chain = MarkovTransition(K, initial=hmm.initial, matrix=hmm.matrix)
    every = enumerate_paths(chain, run.grid.table())
    marginals = torch.zeros(B, T, K)
    for t in range(T):
        marginals[:, t].index_add_(1, every.paths[:, t], every.posterior)
    # the start has noise of sd 0.1 on its logits
    assert (guide.marginals(words).transpose(0, 1) - marginals).abs().max() < 0.2


def test_impossible_states_get_no_weight():
    def model():
        with pyro.plate("sequences", 2):
            for t, z in ssl_transition("z", transition, 3):
                pyro.sample("x", dist.Categorical(logits=rows[z]), obs=obs[t])

    transition = LSTMTransition(2, 3).requires_grad_(False)
    rows, obs = torch.tensor([[1.0, 0.0], [0.5, 0.5]]).log(), torch.tensor([[1, 0], [0, 0], [1, 1]])
    guide = MeanFieldGuide(model)
    assert math.isfinite(SVI(model, guide, Adam({"lr": 0.1}), loss=MeanFieldELBO()).step())
    assert pyro.param(LOGITS).isfinite().all()
    q = guide.marginals()
    assert (q[..., 0] == 0).tolist() == (obs == 1).tolist()


# ------------------------------------------------------------------------------- bad input


def test_errors_say_what_to_write(words):
    model = topical(LSTMTransition(K, 4))
    with pytest.raises(ValueError, match="num_particles is 1, expected at least 2"):
        MeanFieldELBO(num_particles=1)
    with pytest.raises(ValueError, match='dirichlet is "map", expected "mode" or "mean"'):
        MeanFieldGuide(model, dirichlet="map")
    with pytest.raises(ValueError, match="averaging is 1.0, expected a weight in"):
        MeanFieldGuide(model, averaging=1.0)
    with pytest.raises(TypeError, match="MeanFieldELBO takes a MeanFieldGuide, found function"):
        SVI(model, model, Adam({"lr": 0.1}), loss=MeanFieldELBO()).step(words)


def of_scale():
    sigma = pyro.sample("sigma", dist.Gamma(3.0, 3.0))
    chain = MarkovTransition(2, initial=torch.ones(2) / 2, matrix=torch.ones(2, 2) / 2)
    for t, z in ssl_transition("z", chain, 3):
        pyro.sample("x", dist.Normal(3.0 * z, sigma), obs=torch.zeros(3)[t])


def of_rows():
    rows = pyro.sample("rows", dist.Dirichlet(torch.ones(K, K)).to_event(1))
    chain = MarkovTransition(K, initial=torch.ones(K) / K, matrix=rows)
    for t, z in ssl_transition("z", chain, 3):
        pyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=torch.zeros(3)[t])


@pytest.mark.stage("system")
@pytest.mark.parametrize("model, site", [(of_scale, "sigma"), (of_rows, "rows")])
def test_other_latent_sites_take_guides_of_their_own(model, site):
    loss = MeanFieldELBO()
    alone = SVI(model, MeanFieldGuide(model), Adam({"lr": 0.1}), loss=loss)
    with pytest.raises(LatentSiteError, match=f'Site "{site}": latent, .*no guide is over it'):
        alone.step()
    guide = AutoGuideList(model)
    guide.append(MeanFieldGuide(model))
    guide.append(AutoNormal(pyro.poutine.block(model, expose=[site])))
    svi = SVI(model, guide, Adam({"lr": 0.05}), loss=loss)
    losses = [svi.step() for _ in range(80)]
    assert sum(losses[-20:]) < sum(losses[:20])


@pytest.mark.stage("system")
def test_the_elbo_of_a_list_is_pyros_own():
    """Both are unbiased for it: means of 150 of each, within five standard errors."""
    guide = AutoGuideList(of_scale)
    guide.append(MeanFieldGuide(of_scale))
    guide.append(AutoNormal(pyro.poutine.block(of_scale, expose=["sigma"])))
    with torch.no_grad():
        guide()
        ours, theirs = (
            torch.tensor([loss.loss(of_scale, guide) for _ in range(150)])
            for loss in (MeanFieldELBO(), Trace_ELBO())
        )
    error = (ours.var() / 150 + theirs.var() / 150).sqrt()
    assert abs(ours.mean() - theirs.mean()) < 5 * error


def test_nothing_is_updated_where_the_elbo_is_not_finite(words):
    transition = LSTMTransition(K, 4)
    model = topical(transition)
    guide = MeanFieldGuide(model)
    svi = SVI(model, guide, Adam({"lr": 0.1}), loss=MeanFieldELBO())
    svi.step(words)
    transition.head.bias.data[:] = torch.nan
    before = [guide.values["phi"].clone(), pyro.param(LOGITS).detach().clone()]
    with pytest.raises(NonFiniteError, match="the ELBO is nan, expected a finite number"):
        svi.step(words)
    assert torch.equal(guide.values["phi"], before[0])
    assert torch.equal(pyro.param(LOGITS), before[1])
