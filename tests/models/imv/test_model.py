"""The IMV-LSTM: the paper's equations, the EM loss, and the mixture that it forecasts with."""

import math

import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, infer_discrete
from scipy import integrate, optimize, stats

import pyro_ssl.models.imv.model as imv_module
from pyro_ssl.models import IMVLSTM, IMVForecast

M, T, N, D, Y = 7, 5, 4, 3, 2
CELLS = ("tensor", "full")


def no_guide(*args):
    pass


def make(cell="tensor", **options):
    imv = IMVLSTM(N, D, **{"cell": cell, "num_targets": Y, **options})
    for parameter in imv.network.parameters():
        torch.nn.init.normal_(parameter)
    imv.network.eval()
    return imv


@pytest.fixture(params=CELLS)
def imv(request):
    return make(request.param, bound=1.0, min_scale=0.1)  # the paper's bound


@pytest.fixture
def data():
    return torch.randn(M, T, N), torch.randn(M, Y)


# -------------------------------------------------------------------------- the equations


def from_the_paper(network, x):
    """Eq. 8 and the mixture of one window, from h ``(T, N, d)``, variable by variable."""
    h = network.layer(x.unsqueeze(0))[0][0]
    logits, means, scales, attention = [], [], [], []
    for n in range(N):
        F, b = network.attention_weight[n, 0], network.attention_bias[:, n, 0].expand(T)
        energy = torch.stack([torch.tanh(F @ h[t, n] + b[t]) for t in range(T)]).exp()
        alpha = energy / energy.sum()
        g = sum(alpha[t] * h[t, n] for t in range(T))
        both = torch.cat([h[-1, n], g])
        out = network.head_weight[n] @ both + network.head_bias[n, :, 0]
        f = network.gate.weight[0] @ both + network.gate.bias[0]
        logits.append(f if network.bound is None else network.bound * torch.tanh(f))
        means.append(out[:Y])
        scales.append((1 + out[Y:].exp()).log() + network.min_scale)
        attention.append(alpha)
    weights = torch.stack(logits).exp()
    return weights / weights.sum(), *map(torch.stack, (means, scales, attention))


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"bound": 1.0}, {"bound": 3.0, "num_steps": T}])
@pytest.mark.parametrize("cell", CELLS)
def test_equations_of_the_paper(cell, options):
    imv, x = make(cell, **options), torch.randn(M, T, N)
    forecast, attention = imv.predict(x), imv.attention(x)
    for m in range(M):
        weights, means, scales, alpha = from_the_paper(imv.network, x[m])
        found = (forecast.weights[m], forecast.means[m], forecast.scales[m], attention[m])
        for a, b in zip(found, (weights, means, scales, alpha), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
        mean = sum(weights[n] * means[n] for n in range(N))
        torch.testing.assert_close(forecast.mean[m], mean, rtol=0, atol=1e-12)


@torch.no_grad()
def test_mixture_of_the_tensor_cell_takes_from_a_variable_its_own_component(data):
    imv, x = make("tensor"), data[0]
    changed = x.clone()
    changed[:, :, 1] += 1.0
    before, after = imv.predict(x), imv.predict(changed)
    others = [0, 2, 3]
    assert torch.equal(before.means[:, others], after.means[:, others])
    assert not torch.isclose(before.means[:, 1], after.means[:, 1]).any()


# ------------------------------------------------------------------------------ the EM loss


def log_joint(imv, x, y):
    """log π_n + Σ log N(y; μ_n, σ_n), with gradient, ``(M, N)``."""
    log_weights, means, scales, _ = imv.network(x)
    normal = torch.distributions.Normal(means, scales)
    return log_weights + normal.log_prob(y.unsqueeze(1)).sum(-1)


def em_loss(imv, x, y, q, importance):
    """L of the paper, by its double sum."""
    joint = log_joint(imv, x, y)
    loss = 0.0
    for m in range(len(x)):
        for n in range(N):
            loss = loss - q[m, n] * (joint[m, n] + importance[n].log())
    return loss


def svi_loss(imv, *args):
    with torch.enable_grad():
        return TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(imv.model, no_guide, *args)


def test_svi_loss_is_the_em_loss_at_the_posterior_less_its_entropy(imv, data):
    q = log_joint(imv, *data).softmax(-1).detach()
    entropy = -(q * q.log()).sum()
    without_importance = em_loss(imv, *data, q, torch.ones(N))
    torch.testing.assert_close(svi_loss(imv, *data), without_importance - entropy)


def test_gradient_of_svi_is_that_of_the_em_loss(imv, data):
    q = log_joint(imv, *data).softmax(-1).detach()
    parameters = list(imv.network.parameters())
    of_svi = torch.autograd.grad(svi_loss(imv, *data), parameters)
    of_em = torch.autograd.grad(em_loss(imv, *data, q, q.mean(0)), parameters)
    for a, b in zip(of_svi, of_em, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        assert bool((a != 0).any())


@torch.no_grad()
def test_bound_is_never_under_the_negative_log_likelihood(imv, data):
    nll, joint = svi_loss(imv, *data), log_joint(imv, *data)
    torch.testing.assert_close(nll, -joint.exp().sum(-1).log().sum())
    torch.testing.assert_close(nll, -imv.log_likelihood(*data).sum())
    posterior = joint.softmax(-1)
    for _ in range(200):
        q = torch.distributions.Dirichlet(10 ** torch.empty(M, N).uniform_(-1, 1)).sample()
        bound = -(q * joint).sum() + torch.xlogy(q, q).sum()
        # the gap is a divergence
        gap = torch.xlogy(q, q / posterior).sum()
        assert bound > nll
        torch.testing.assert_close(bound - nll, gap)


@torch.no_grad()
def test_importance_is_the_mean_posterior_and_minimises_the_em_loss(imv, data):
    q, importance = imv.posterior(*data), imv.importance(*data)
    torch.testing.assert_close(importance, sum(q[m] for m in range(M)) / M)
    torch.testing.assert_close(importance.sum(), torch.tensor(1.0))
    least = em_loss(imv, *data, q, importance)
    for _ in range(20):
        other = (importance.log() + 0.3 * torch.randn(N)).softmax(-1)
        assert em_loss(imv, *data, q, other) > least


@torch.no_grad()
def test_posterior_is_bayes_rule(imv, data):
    q = imv.posterior(*data)
    joint = log_joint(imv, *data).exp()
    torch.testing.assert_close(q, joint / joint.sum(-1, keepdim=True))
    torch.testing.assert_close(q, imv.predict(data[0]).log_joint(data[1]).softmax(-1))
    torch.testing.assert_close(q.sum(-1), torch.ones(M))
    decoded = infer_discrete(imv.model, first_available_dim=-2, temperature=0)
    trace = poutine.trace(decoded).get_trace(*data)
    assert torch.equal(trace.nodes["variable"]["value"], q.argmax(-1))


@torch.no_grad()
def test_minibatches_are_unbiased(imv, data):
    x, y = data[0][:6], data[1][:6]
    parts = torch.randperm(6).split(2)
    mean = sum(svi_loss(imv, x, y, None, part) for part in parts) / len(parts)
    torch.testing.assert_close(mean, svi_loss(imv, x, y))


@torch.no_grad()
def test_model_draws_from_the_mixture_that_is_forecast():
    imv, x = make(), torch.randn(1, T, N).expand(4000, -1, -1)
    trace = poutine.trace(imv.model).get_trace(x)
    z, y = trace.nodes["variable"]["value"], trace.nodes["y"]["value"]
    forecast = imv.predict(x[:1])
    expected = 4000 * forecast.weights[0]
    # one test each of the two distributions: a false alarm in 10^6 fits
    assert stats.chisquare(torch.bincount(z, minlength=N), expected).pvalue > 1e-6
    ranks = forecast.cdf(y.unsqueeze(1))[:, 0, 0]
    assert stats.kstest(ranks.numpy(), "uniform").pvalue > 1e-6


# ----------------------------------------------------------------------------- the forecast


@pytest.fixture
def forecast(data):
    return make(min_scale=0.2).predict(data[0])


def scipy_cdf(forecast, m, k, y):
    normals = stats.norm(forecast.means[m, :, k].numpy(), forecast.scales[m, :, k].numpy())
    return (forecast.weights[m].numpy() * normals.cdf(y)).sum()


@pytest.mark.stage("system")
def test_quantiles_are_those_of_the_mixture(forecast):
    q = torch.tensor([[0.001, 0.05], [0.5, 0.99]])
    found = forecast.quantile(q)
    assert found.shape == (2, 2, M, Y)
    for i, level in enumerate(q.flatten().tolist()):
        values = found.flatten(0, 1)[i]
        torch.testing.assert_close(forecast.quantile(level), values)
        for m in range(M):
            for k in range(Y):
                root = optimize.brentq(
                    lambda y, m=m, k=k, level=level: scipy_cdf(forecast, m, k, y) - level,
                    *(-1e3, 1e3),
                    xtol=1e-13,
                )
                assert abs(values[m, k] - root) < 1e-9


def test_interval_holds_its_level(forecast):
    low, high = forecast.interval(0.8)
    torch.testing.assert_close(forecast.cdf(high) - forecast.cdf(low), torch.full((M, Y), 0.8))
    torch.testing.assert_close(forecast.cdf(low), torch.full((M, Y), 0.1))


def test_density_integrates_to_the_distribution_function():
    forecast = make(num_targets=1, min_scale=0.2).predict(torch.randn(2, T, N))

    def density(y, m):
        return float(forecast.log_prob(torch.full((2, 1), y)).exp()[m])

    for m in range(2):
        low, median = (float(forecast.quantile(q)[m, 0]) for q in (1e-12, 0.5))
        points = [p for p in forecast.means[m, :, 0].tolist() if low < p < median]
        mass, error = integrate.quad(density, low, median, (m,), points=points or None)
        assert error < 1e-7 and abs(mass - 0.5) < 1e-7


def test_targets_share_their_variable(forecast, data):
    y = data[1]
    for m in range(M):
        total = 0.0
        for n in range(N):
            normals = stats.norm(forecast.means[m, n].numpy(), forecast.scales[m, n].numpy())
            total += float(forecast.weights[m, n]) * math.prod(normals.pdf(y[m].numpy()))
        assert math.isclose(float(forecast.log_prob(y)[m]), math.log(total), rel_tol=1e-10)


def test_one_component_has_quantiles_of_its_own():
    ones = torch.ones(1, 1, 1)
    forecast = IMVForecast(ones[0], torch.ones(1, 1), ones, 2.0 * ones)
    expected = 1.0 + 2.0 * stats.norm.ppf(0.975)
    torch.testing.assert_close(float(forecast.interval(0.95)[1]), float(expected))


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1, math.nan])
def test_refuses_no_probability(forecast, q):
    with pytest.raises(ValueError, match="expected numbers strictly between 0 and 1; write"):
        forecast.quantile(torch.tensor([0.5, q]))
    with pytest.raises(ValueError, match=r"write interval\(0.9\)"):
        forecast.interval(q)


def test_temporal_importance_is_the_mean_attention(imv, data):
    alpha, T_n = imv.attention(data[0]), imv.temporal_importance(data[0])
    assert alpha.shape == (M, N, T)
    torch.testing.assert_close(alpha.sum(-1), torch.ones(M, N))
    torch.testing.assert_close(T_n, sum(alpha[m] for m in range(M)) / M)


def test_parts_change_nothing(imv, data, monkeypatch):
    def everything():
        return *imv.predict(data[0]), imv.attention(data[0]), imv.posterior(*data)

    whole = everything()
    monkeypatch.setattr(imv_module, "_WINDOWS", 3)  # 3 + 3 + 1
    torch.testing.assert_close(everything(), whole)
    one = imv.posterior(data[0][2:3], data[1][2:3])
    torch.testing.assert_close(one, whole[-1][2:3])


# --------------------------------------------------------------------------- missing inputs


@torch.no_grad()
def test_what_is_missing_is_read_as_zero(imv, data):
    x, y = data
    mask = torch.rand(M, T, N) < 0.6
    zeros, gaps = x * mask, torch.where(mask, x, math.nan)
    expected = imv.predict(zeros)
    for found in (imv.predict(x, mask=mask), imv.predict(gaps), imv.predict(gaps, mask=mask)):
        assert all(map(torch.equal, found, expected))
    assert torch.equal(imv.posterior(x, y, mask=mask), imv.posterior(zeros, y))
    assert torch.equal(svi_loss(imv, x, y, mask), svi_loss(imv, zeros, y))
    assert not torch.isclose(imv.predict(x).mean, expected.mean).any()


# -------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("M", [1, 3])
@pytest.mark.parametrize("T, N, d, Y", [(1, 1, 1, 1), (1, 3, 2, 2), (4, 1, 2, 1), (4, 3, 1, 2)])
def test_posterior_of_any_size_is_by_bayes(cell, M, T, N, d, Y):
    """q_n ∝ π_n Π_i N(y_i; μ_ni, σ_ni), also of one variable, unit, step, target or window."""
    imv = IMVLSTM(N, d, cell=cell, num_targets=Y)
    imv.fit(torch.randn(5, T, N), torch.randn(5, Y), num_epochs=1, disable_progbar=True)
    x, y = torch.randn(M, T, N), torch.randn(M, Y)
    found = imv.predict(x)
    weight = found.weights.clone()
    for n in range(N):
        for i in range(Y):
            away = (y[:, i] - found.means[:, n, i]) / found.scales[:, n, i]
            weight[:, n] *= (-0.5 * away.square()).exp() / found.scales[:, n, i]
    expected = weight / weight.sum(-1, keepdim=True)
    q = imv.posterior(x, y)
    torch.testing.assert_close(q, expected)
    torch.testing.assert_close(imv.importance(x, y), expected.mean(0))
    likelihood = weight.sum(-1) / (2 * math.pi) ** (Y / 2)
    torch.testing.assert_close(imv.log_likelihood(x, y), likelihood.log())
    assert N > 1 or torch.equal(q, torch.ones(M, 1))
    assert imv.attention(x).shape == (M, N, T)


def test_posterior_far_from_every_mean():
    """Where all densities underflow, logarithms still tell the variables apart."""
    imv = make(num_targets=1)
    x, y = torch.randn(3, T, N), torch.full((3, 1), 1e4)
    q = imv.posterior(x, y)
    assert q.isfinite().all()
    torch.testing.assert_close(q.sum(-1), torch.ones(3))
    assert imv.log_likelihood(x, y).isfinite().all()
