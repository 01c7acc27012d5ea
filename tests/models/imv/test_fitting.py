"""Fitting an IMV-LSTM: what is learned and kept, what is saved, and what is refused."""

import math

import pyro
import pytest
import torch
from pyro.infer import TraceEnum_ELBO

from pyro_ssl.errors import NonFiniteError
from pyro_ssl.models import IMVLSTM

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
    return make(request.param, min_scale=0.1)


@pytest.fixture
def data():
    return torch.randn(M, T, N), torch.randn(M, Y)


def planted(num_windows=300):
    x = torch.randn(num_windows, 4, 3)
    return x, x[:, -1, 1] + 0.1 * torch.randn(num_windows)


def fit(imv, data, **options):
    return imv.fit(*data, **{"num_epochs": 4, "disable_progbar": True, **options})


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("cell", CELLS)
def test_fit_finds_the_variable_and_the_step(cell):
    imv = IMVLSTM(3, 6, cell=cell, num_steps=4)
    data, valid = planted(), planted(100)
    history = fit(imv, data, valid=valid, num_epochs=30, batch_size=32, learning_rate=0.02)
    assert history is imv.history and [r.epoch for r in history] == [*range(1, len(history) + 1)]
    assert history[-1].loss < history[0].loss
    forecast = imv.predict(valid[0])
    # a constant has 1, and the noise alone 0.01
    assert min(r.metrics["mse"] for r in history) < 0.4
    if cell == "tensor":
        assert imv.importance(*valid).argmax() == 1
        assert imv.temporal_importance(valid[0])[1].argmax() == 3
    assert forecast.mean.shape == (100, 1)


@pytest.mark.parametrize("monitor", ["nll", "mse"])
def test_fit_keeps_the_best_epoch(monitor):
    imv, valid = IMVLSTM(3, 4), planted(50)
    scores, weights = [], []

    def watch(record):
        scores.append(record.metrics[monitor])
        weights.append([p.detach().clone() for p in imv.network.parameters()])

    options = {"learning_rate": 0.3, "num_epochs": 12, "patience": None, "monitor": monitor}
    noise = torch.randn(30, 4, 3), torch.randn(30)  # nothing to learn but by heart
    history = fit(imv, noise, valid=valid, callback=watch, **options)
    best = min(range(12), key=scores.__getitem__)
    assert best < 11 and len(history) == 12
    assert all(map(torch.equal, weights[best], imv.network.parameters()))
    forecast = imv.predict(valid[0])
    y = valid[1].unsqueeze(1)
    torch.testing.assert_close(history[best].metrics["nll"], float(-forecast.log_prob(y).mean()))
    torch.testing.assert_close(
        history[best].metrics["mse"], float((forecast.mean - y).pow(2).mean())
    )
    assert not imv.network.training


def test_values_under_the_mask_teach_nothing(imv, data):
    x, y = data
    mask = torch.rand(M, T, N) < 0.6
    start = {name: value.clone() for name, value in imv.network.state_dict().items()}
    fitted = []
    for hidden in (0.0, 5.0, math.nan):
        imv.network.load_state_dict(start)
        pyro.set_rng_seed(1)
        imv.fit(torch.where(mask, x, hidden), y, mask=mask, num_epochs=2, disable_progbar=True)
        fitted.append([p.clone() for p in imv.network.parameters()])
    for other in fitted[1:]:
        assert all(map(torch.equal, fitted[0], other))


def test_learning_rate_falls_after_every_epoch():
    imv, moved = IMVLSTM(3, 4), []
    last = [p.detach().clone() for p in imv.network.parameters()]

    def watch(record):
        now = [p.detach().clone() for p in imv.network.parameters()]
        moved.append(max(float((a - b).abs().max()) for a, b in zip(now, last, strict=True)))
        last[:] = now

    fit(imv, planted(20), decay=0.1, weight_decay=0.0, callback=watch)
    # Adam's longest step is about the learning rate, one step an epoch
    for epoch, step in enumerate(moved):
        assert 0.3 < step / (0.01 * 0.1**epoch) < 2.0


def test_takes_other_optimisers_and_schedules():
    for optim in (
        pyro.optim.ClippedAdam({"lr": 0.01}),
        pyro.optim.StepLR(
            {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.01}, "step_size": 1}
        ),
        pyro.optim.ReduceLROnPlateau({"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.01}}),
    ):
        imv = IMVLSTM(3, 4)
        history = fit(imv, planted(20), valid=planted(20), optim=optim)
        assert history[-1].loss < history[0].loss


def test_loss_is_the_mean_over_windows(imv, data):
    still = {"learning_rate": 0.0, "weight_decay": 0.0, "num_epochs": 1}
    for batch_size in (100, 3):  # 3 + 3 + 1
        record = fit(imv, data, batch_size=batch_size, **still)[0]
        torch.testing.assert_close(record.loss, float(-imv.log_likelihood(*data).mean()))
        assert math.isnan(record.score) and not record.metrics


def test_squared_error_is_that_of_the_mean_forecast(imv, data):
    still = {"learning_rate": 0.0, "weight_decay": 0.0, "num_epochs": 1}
    plain, both = (fit(imv, data, squared_error=w, **still)[0].loss for w in (0.0, 2.5))
    error = ((imv.predict(data[0]).mean - data[1]) / imv.y_unit).square().sum(-1).mean()
    torch.testing.assert_close(both - plain, 2.5 * float(error))
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    q = elbo.compute_marginals(imv.model, no_guide, *data, None, None, 2.5)["variable"].probs
    torch.testing.assert_close(q, imv.posterior(*data))


def test_bounded_weights_stay_within_the_bound(data):
    ratios = []
    for bound in (1.0, None):
        imv = make(bound=bound)
        with torch.no_grad():
            imv.network.gate.weight.mul_(100.0)
        weights = imv.predict(data[0]).weights
        ratios.append(weights.amax(-1) / weights.amin(-1))
    assert bool((ratios[0] <= math.exp(2.0) + 1e-9).all())
    assert bool((ratios[1] > math.exp(2.0)).all())


def test_dropout_is_for_learning_alone(data):
    imv = make(dropout=0.5)
    for training in (True, False):
        imv.network.train(training)
        first, second = imv.predict(data[0]), imv.predict(data[0])
        assert all(map(torch.equal, first, second))
        assert torch.equal(imv.posterior(*data), imv.posterior(*data))
        assert imv.network.training == training
    imv.network.train()
    assert not torch.equal(imv.network(data[0]).means, imv.network(data[0]).means)


def test_dtype_follows_the_parameters(data):
    imv = make(num_targets=1).to(torch.float32)
    x, y = data[0].float(), data[1][:, 0].float()
    fit(imv, (x, y), valid=(x, y))
    forecast = imv.predict(x)
    out = (*forecast, forecast.quantile(0.3), imv.importance(x, y), imv.temporal_importance(x))
    assert all(value.dtype == torch.float32 for value in out)


# ------------------------------------------------------------------------- saving, bad input


@pytest.mark.parametrize("options", [{}, {"cell": "full", "bound": 1.0, "num_steps": T}])
def test_saved_and_loaded(tmp_path, data, options):
    imv = make(dropout=0.1, **options)
    fit(imv, data, num_epochs=2)
    imv.save(tmp_path)
    loaded = IMVLSTM.load(tmp_path)
    assert all(map(torch.equal, loaded.predict(data[0]), imv.predict(data[0])))


@pytest.mark.parametrize(
    "options, match",
    [
        ({"cell": "gru"}, r"cell is \"gru\", expected one of \['full', 'tensor'\]"),
        ({"num_targets": 0}, "num_targets is 0, expected a whole number of 1 or more"),
        ({"num_steps": 0}, "num_steps is 0, expected a whole number of 1 or more"),
        ({"bound": 0.0}, "bound is 0.0, expected a positive number"),
        ({"min_scale": 0.0}, "min_scale=0.0"),
    ],
)
def test_refuses_other_options(options, match):
    with pytest.raises(ValueError, match=match):
        IMVLSTM(N, D, **options)


@pytest.mark.parametrize(
    "x, match",
    [
        (torch.zeros(M, T, N + 1), r"expected \(M, 5, 4\).*write IMVLSTM\(num_variables=x.shape"),
        (torch.zeros(M, T - 1, N), r"num_steps=x.shape\[1\]"),
        (torch.zeros(T, N), r"x.unsqueeze\(0\) for a single one"),
        (torch.zeros(M, 0, N), "expected"),
    ],
)
def test_refuses_windows_of_another_shape(x, match):
    with pytest.raises(ValueError, match=match):
        make(num_steps=T).predict(x)


def test_refuses_data_that_do_not_fit(imv, data):
    x, y = data
    with pytest.raises(ValueError, match=r"y has shape \(7,\), expected \(7, 2\); write num_tar"):
        imv.fit(x, y[:, 0])
    with pytest.raises(ValueError, match=r"fit\(valid=\): y has shape \(6, 2\), expected \(7, 2"):
        imv.fit(x, y, valid=(x, y[1:]))
    with pytest.raises(ValueError, match=r"mask has shape \(7, 5\).*write mask=~x.isnan\(\)"):
        imv.log_likelihood(x, y, mask=torch.ones(M, T, dtype=torch.bool))
    gap = torch.where(torch.arange(M).unsqueeze(1) == 2, math.nan, y)
    with pytest.raises(ValueError, match="1 of 7 windows have a target that is not finite"):
        imv.posterior(x, gap)
    with pytest.raises(ValueError, match="found 0 windows"):
        imv.fit(x[:0], y[:0])
    with pytest.raises(ValueError, match="posterior: found 0 windows"):
        imv.importance(x[:0], y[:0])
    with pytest.raises(ValueError, match="squared_error is -1.0, expected a number of 0 or more"):
        imv.fit(x, y, squared_error=-1.0)
    with pytest.raises(ValueError, match='monitor is "mae", expected "nll" or "mse"'):
        imv.fit(x, y, monitor="mae")


@pytest.mark.filterwarnings("ignore:Encountered NaN")
@pytest.mark.parametrize("validate", [True, False])
def test_says_when_the_weights_are_spoilt(imv, data, validate):
    with torch.no_grad():
        imv.network.head_bias[0, 0] = math.nan
    match = "the loss is nan.*begin with a new model and a lower learning_rate"
    with pyro.validation_enabled(validate), pytest.raises(NonFiniteError, match=match):
        fit(imv, data)


def test_other_errors_of_pyro_pass(imv, data, monkeypatch):
    def broken(*args):
        raise ValueError("of the user's own")

    monkeypatch.setattr(imv, "model", broken)
    with pytest.raises(ValueError, match="of the user's own"):
        fit(imv, data)


@pytest.mark.parametrize("cell", CELLS)
def test_device(device, cell):
    like = {"device": device, "dtype": torch.float32}
    imv = make(cell, num_steps=T).to(**like)
    x, y = torch.randn(M, T, N, **like), torch.randn(M, Y, **like)
    mask = torch.rand(M, T, N, **like) < 0.8
    fit(imv, (x, y), mask=mask, valid=(x, y, mask), batch_size=3)
    forecast, on_cpu = imv.predict(x, mask=mask), make(cell, num_steps=T)
    on_cpu.load_state_dict(imv.state_dict())
    found = (
        *forecast,
        forecast.quantile(0.3),
        imv.posterior(x, y, mask=mask),
        imv.attention(x, mask=mask),
    )
    x, y, mask = x.cpu().double(), y.cpu().double(), mask.cpu()
    there = on_cpu.predict(x, mask=mask)
    expected = (
        *there,
        there.quantile(0.3),
        on_cpu.posterior(x, y, mask=mask),
        on_cpu.attention(x, mask=mask),
    )
    for a, b in zip(found, expected, strict=True):
        assert a.device.type == device.type and a.dtype == torch.float32
        torch.testing.assert_close(a.cpu().double(), b, rtol=1e-3, atol=1e-3)
