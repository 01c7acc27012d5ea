"""Targets with variables of their own, such as steps ahead; and importances over seeds."""

import math

import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from scipy import stats

from pyro_ssl.datasets import TimeSeries, make_windows
from pyro_ssl.models import IMVLSTM, SeededImportance, importance_over_seeds

M, T, N, D, Y = 6, 4, 3, 2, 2


def no_guide(*args):
    pass


def make(cell="tensor", **options):
    imv = IMVLSTM(N, D, cell=cell, **{"num_targets": Y, "by_target": True, **options})
    for parameter in imv.network.parameters():
        torch.nn.init.normal_(parameter)
    imv.network.eval()
    return imv


@pytest.fixture(params=["tensor", "full"])
def imv(request):
    return make(request.param, min_scale=0.1)


@pytest.fixture
def data():
    return torch.randn(M, T, N), torch.randn(M, Y)


def joint_by_hand(imv, x, y):
    """π_n N(y_i; μ_n, σ_n) of each target, ``(M, N, Y)``, with gradient."""
    log_weights, means, scales, _ = imv.network(x)
    density = torch.distributions.Normal(means, scales).log_prob(y.unsqueeze(1))
    return (log_weights + density).exp()


def test_each_target_has_weights_of_its_own(imv, data):
    """π of a target is that of a network whose gate is that target's row."""
    x = data[0]
    found = imv.predict(x)
    assert found.weights.shape == (M, N, Y)
    torch.testing.assert_close(found.weights.sum(1), torch.ones(M, Y))
    assert not torch.isclose(found.weights[..., 0], found.weights[..., 1]).any()
    for i in range(Y):
        one = make(imv.config["cell"], min_scale=0.1, by_target=False)
        state = dict(imv.network.state_dict())
        state |= {f"gate.{k}": state[f"gate.{k}"][i : i + 1] for k in ("weight", "bias")}
        one.network.load_state_dict(state)
        alone = one.predict(x)
        torch.testing.assert_close(found.weights[..., i], alone.weights)
        torch.testing.assert_close(found.mean[:, i], alone.mean[:, i])
        torch.testing.assert_close(found.means, alone.means)


def test_of_one_target_it_is_the_shared_model(data):
    x, y = data[0], data[1][:, :1]
    own, shared = make(num_targets=1), make(num_targets=1, by_target=False)
    shared.network.load_state_dict(own.network.state_dict())
    torch.testing.assert_close(own.log_likelihood(x, y), shared.log_likelihood(x, y))
    torch.testing.assert_close(own.importance(x, y).squeeze(-1), shared.importance(x, y))
    torch.testing.assert_close(own.predict(x).mean, shared.predict(x).mean)


@torch.no_grad()
def test_posterior_and_likelihood_are_those_of_bayes(imv, data):
    joint = joint_by_hand(imv, *data)
    q = imv.posterior(*data)
    torch.testing.assert_close(q, joint / joint.sum(1, keepdim=True))
    torch.testing.assert_close(imv.importance(*data), q.sum(0) / M)
    expected = joint.sum(1).log().sum(-1)  # targets are independent
    torch.testing.assert_close(imv.log_likelihood(*data), expected)
    forecast = imv.predict(data[0])
    torch.testing.assert_close(forecast.log_prob(data[1]), expected)
    torch.testing.assert_close(forecast.log_joint(data[1]).softmax(1), q)


def test_svi_learns_the_likelihood(imv, data):
    """The loss, and its gradient: z is summed out of each target exactly."""
    parameters = list(imv.network.parameters())
    loss = TraceEnum_ELBO(max_plate_nesting=2).differentiable_loss(imv.model, no_guide, *data)
    expected = -joint_by_hand(imv, *data).sum(1).log().sum()
    torch.testing.assert_close(loss, expected)
    for a, b in zip(
        torch.autograd.grad(loss, parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_model_draws_from_the_mixtures_that_are_forecast():
    imv, x = make(), torch.randn(1, T, N).expand(4000, -1, -1)
    trace = poutine.trace(imv.model).get_trace(x)
    z, y = trace.nodes["variable"]["value"], trace.nodes["y"]["value"]  # (Y, M)
    forecast = imv.predict(x[:1])
    for i in range(Y):  # two tests each: a false alarm in 250,000 seeds
        expected = 4000 * forecast.weights[0, :, i]
        assert stats.chisquare(torch.bincount(z[i], minlength=N), expected).pvalue > 1e-6
    ranks = forecast.cdf(y.T.unsqueeze(1))[:, 0]
    for i in range(Y):
        assert stats.kstest(ranks[:, i].numpy(), "uniform").pvalue > 1e-6
        low, high = forecast.interval(0.8)
    torch.testing.assert_close(forecast.cdf(high) - forecast.cdf(low), torch.full((1, Y), 0.8))


def test_finds_the_variable_of_each_step_ahead(tmp_path):
    """One step ahead is what x_0 was; two steps ahead what x_1 was."""
    torch.manual_seed(0)
    x = torch.randn(400, T, N)
    y = torch.stack([x[:, -1, 0], x[:, -1, 1]], -1)
    imv = IMVLSTM(N, 4, num_targets=2, by_target=True)
    imv.fit(
        x[:300],
        y[:300],
        valid=(x[300:], y[300:]),
        num_epochs=10,
        learning_rate=0.03,
        disable_progbar=True,
    )
    importance = imv.importance(x[300:], y[300:])
    assert importance.shape == (N, 2) and importance.argmax(0).tolist() == [0, 1]
    assert importance[0, 0] > 0.6 and importance[1, 1] > 0.6
    imv.save(tmp_path / "imv")
    loaded = IMVLSTM.load(tmp_path / "imv")
    assert torch.equal(loaded.importance(x[300:], y[300:]), importance)


def test_windows_of_several_steps_ahead():
    rows = torch.randn(60, 2).cumsum(0)
    series = TimeSeries("walk", ("a", "b"), (rows,), inputs=("a", "b"), targets=("a",))
    split = make_windows(series, 5, horizon=3)
    imv = IMVLSTM(2, 2, num_targets=3, by_target=True)
    imv.fit(split.train, valid=split.valid, num_epochs=1, disable_progbar=True)
    assert imv.importance(split.test).shape == (2, 3)
    assert imv.predict(split.test).mean.shape == (split.test.num_windows, 3)


@pytest.mark.parametrize("cell", ["tensor", "full"])
@pytest.mark.parametrize("M, N, Y", [(1, 1, 1), (1, 1, 3), (3, 2, 1)])
def test_any_size(cell, M, N, Y):
    imv = IMVLSTM(N, 2, cell=cell, num_targets=Y, by_target=True)
    x, y = torch.randn(M, T, N), torch.randn(M, Y)
    imv.fit(x, y, num_epochs=1, disable_progbar=True)
    assert imv.posterior(x, y).shape == (M, N, Y)
    assert N > 1 or torch.equal(imv.importance(x, y), torch.ones(N, Y))


def test_refuses_what_is_no_flag():
    with pytest.raises(ValueError, match="by_target is 2, expected True or False"):
        IMVLSTM(2, 2, by_target=2)


# -------------------------------------------------------------------------------------- seeds


def fitted(x, y, **options):
    def fit():
        imv = IMVLSTM(N, 2, num_targets=Y, **options)
        imv.fit(x, y, num_epochs=1, disable_progbar=True)
        return imv

    return fit


@pytest.mark.parametrize("by_target", [False, True])
def test_seeds_are_fits_of_their_own(data, by_target):
    fit = fitted(*data, by_target=by_target)
    state = torch.get_rng_state()
    found = importance_over_seeds(fit, *data, seeds=[3, 0, 3])
    assert torch.equal(torch.get_rng_state(), state)
    shape = (N, Y) if by_target else (N,)
    assert found.importance.shape == (3, *shape) and found.temporal.shape == (3, N, T)
    assert torch.equal(found.importance[0], found.importance[2])
    assert not torch.equal(found.importance[0], found.importance[1])
    torch.manual_seed(3)
    alone = fit()
    assert torch.equal(found.importance[0], alone.importance(*data))
    assert torch.equal(found.temporal[0], alone.temporal_importance(data[0]))
    assert torch.equal(found.mean, found.importance.mean(0))


@pytest.mark.parametrize("S", [2, 3, 4, 5, 11])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.999])
def test_interval_is_students(S, level):
    found = SeededImportance(torch.randn(S, N), torch.randn(S, N, T))
    for runs, (low, high) in (
        (found.importance, found.interval(level)),
        (found.temporal, found.temporal_interval(level)),
    ):
        scale = stats.sem(runs.numpy())
        expected = stats.t.interval(level, S - 1, loc=runs.mean(0).numpy(), scale=scale)
        torch.testing.assert_close(low, torch.from_numpy(expected[0]))
        torch.testing.assert_close(high, torch.from_numpy(expected[1]))


def test_refuses_seeds(data):
    fit = fitted(*data)
    one = importance_over_seeds(fit, *data, seeds=1)
    with pytest.raises(ValueError, match="one seed, expected 2 or more"):
        one.interval()
    with pytest.raises(ValueError, match=r"level=1.0.*write interval\(0.9\)"):
        one.interval(1.0)
    with pytest.raises(ValueError, match="found no seed"):
        importance_over_seeds(fit, *data, seeds=[])
    with pytest.raises(ValueError, match="seeds is 0"):
        importance_over_seeds(fit, *data, seeds=0)
    with pytest.raises(TypeError, match="fit returned a list, expected the fitted IMVLSTM"):
        importance_over_seeds(lambda: fit().history, *data)
    assert math.isfinite(float(one.mean.sum()))


# ------------------------------------------------------------------------------------- layers


def lstm_by_hand(lstm, x, layer):
    """h of one layer of an ``nn.LSTM``, by the equations, ``(T, d)`` to ``(T, d)``."""
    named = {k: getattr(lstm, f"{k}_l{layer}") for k in ("weight_ih", "weight_hh")}
    bias = getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}")
    h = c = torch.zeros(D)
    out = []
    for step in x:
        gates = named["weight_ih"] @ step + named["weight_hh"] @ h + bias
        i, f, g, o = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        out.append(h)
    return torch.stack(out)


@torch.no_grad()
@pytest.mark.parametrize("cell", ["tensor", "full"])
@pytest.mark.parametrize("num_layers", [2, 3])
def test_each_layer_is_an_lstm_of_each_variable(cell, num_layers, data):
    """Attention, and all that hangs on h, sees the last layer: eq. 8 from h by hand."""
    imv, x = make(cell, num_layers=num_layers), data[0]
    network, found = imv.network, imv.attention(x)
    h = network.layer(x)[0]  # (M, T, N, d)
    for m in range(M):
        for n in range(N):
            units = h[m, :, n]
            for layer in range(num_layers - 1):
                units = lstm_by_hand(network.upper[n], units, layer)
            energy = units @ network.attention_weight[n, 0] + network.attention_bias[0, n, 0]
            torch.testing.assert_close(found[m, n], energy.tanh().softmax(0))


def test_with_several_layers_variables_stay_apart(data, tmp_path):
    imv, x = make("tensor", num_layers=2), data[0]
    changed = x.clone()
    changed[:, :, 1] += 1.0
    before, after = imv.predict(x), imv.predict(changed)
    assert torch.equal(before.means[:, [0, 2]], after.means[:, [0, 2]])
    assert not torch.isclose(before.means[:, 1], after.means[:, 1]).any()
    imv.fit(*data, num_epochs=1, disable_progbar=True)
    imv.save(tmp_path / "imv")
    loaded = IMVLSTM.load(tmp_path / "imv")
    assert torch.equal(loaded.predict(x).mean, imv.predict(x).mean)
    assert loaded.config["num_layers"] == 2


def test_one_layer_is_as_it_was():
    """No parameter is added, and none is drawn otherwise."""
    torch.manual_seed(0)
    one = IMVLSTM(N, D)
    torch.manual_seed(0)
    two = IMVLSTM(N, D, num_layers=2)
    assert torch.equal(one.network.layer.weight_hh, two.network.layer.weight_hh)
    assert not any("upper" in name for name in one.state_dict())
    assert two.num_parameters - one.num_parameters == N * (8 * D * D + 8 * D)
    with pytest.raises(ValueError, match="num_layers is 0"):
        IMVLSTM(N, D, num_layers=0)
