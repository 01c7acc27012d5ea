"""GaussianSSL and IMVLSTM: results do not depend on the origin and the unit of the data."""

import functools
import math

import pyro
import pytest
import torch

from pyro_ssl import IMVLSTM, GaussianSSL
from pyro_ssl.datasets import noisy_curve

pytestmark = pytest.mark.stage("system")

UNITS = [1e-12, 1.0, 1e12]
# Where rounding turns a resampling over, other paths are drawn: then R and the path are the same to
# within the noise of 1,000 particles, and the log-likelihood of a step to within four times that.
EXACT, CLOSE = 1e-6, 0.05


@functools.cache
def found(dtype, unit=1.0, level=0.0, learn=False, constant=None):
    """R, filtered path and log-likelihood, all in the unit and about the origin of the curve."""
    x = (noisy_curve("circle", num_steps=40).x.double() + level) * unit
    if constant is not None:
        x = torch.cat([x, torch.full_like(x[..., :1], constant * unit)], -1)
    pyro.set_rng_seed(0)
    ssl = GaussianSSL(2, hidden_size=4, dropout=0.0).to(dtype)
    ssl.fit(x.to(dtype), num_epochs=4, num_paths=2, learn_loading=learn, disable_progbar=True)
    pyro.set_rng_seed(1)
    path = ssl.filter(x.to(dtype), num_particles=1000).mean.double() / unit
    log_p = ssl.log_likelihood(x.to(dtype), num_particles=1000).sum() / 40
    E = x.shape[-1]
    place = path[..., :2] - level
    return ssl.covariance.double() / unit**2, place, float(log_p) + E * math.log(unit)


def assert_same(one, other, tolerance):
    torch.testing.assert_close(one[0], other[0], rtol=tolerance, atol=tolerance * 0.1)
    assert (one[1] - other[1]).abs().mean() < tolerance
    assert abs(one[2] - other[2]) < 4 * tolerance


@pytest.mark.parametrize(
    "unit, level, learn",
    [
        *[(unit, 0.0, False) for unit in UNITS],
        *[(1.0, level, True) for level in (-1e3, 1e6)],
        *[(unit, 1e6, True) for unit in (1e-12, 1e12)],
    ],
)
def test_double(unit, level, learn):
    tolerance = EXACT if level == 0.0 else CLOSE
    one, other = found(torch.float64, learn=learn), found(torch.float64, unit, level, learn)
    assert_same(one, other, tolerance)


@pytest.mark.parametrize("level", [0.0, 1e3])
@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_single(unit, level):
    assert_same(found(torch.float32), found(torch.float32, unit, level), CLOSE)


@pytest.mark.parametrize("unit, constant", [(1.0, 1e-5), (1.0, 1e6), (1e-12, 30.0), (1e12, 0.0)])
def test_a_constant_sensor(unit, constant):
    """It tells nothing, wherever it stands."""
    one = found(torch.float64, constant=0.0)
    assert_same(one, found(torch.float64, unit, constant=constant), CLOSE)


def test_all_constant_and_all_missing():
    ssl = GaussianSSL(2, hidden_size=2)
    for value in (0.0, 5.0, 1e12):
        ssl.fit(torch.full((6, 2, 2), value), num_epochs=1, disable_progbar=True)
        assert ssl.filter(torch.full((6, 2, 2), value)).mean.isfinite().all()
        assert ssl.log_likelihood(torch.full((6, 2, 2), value)).isfinite().all()
    x = torch.randn(9, 2, 3)
    x[..., 1] = torch.nan
    with pytest.raises(ValueError, match=r"1 of 3 sensors were never .*; write x\[..., \[0, 2\]\]"):
        ssl.fit(x, disable_progbar=True)


def test_sensors_in_units_of_their_own():
    """One in 1e-9, one in 1e9, behind one latent: both are read."""
    x = noisy_curve("circle", num_steps=40).x.double()[..., :1]
    unit = torch.tensor([1e-9, 1e9], dtype=torch.float64)
    noisy = torch.cat([x, x + 0.1 * torch.randn_like(x)], -1)
    results = []
    for data in (noisy, noisy * unit):
        pyro.set_rng_seed(0)
        ssl = GaussianSSL(1, hidden_size=4).double()
        ssl.fit(data, num_epochs=2, num_paths=2, disable_progbar=True)
        results.append((ssl.loading.squeeze(-1), ssl.covariance.diagonal()))
    torch.testing.assert_close(results[0][0] * unit, results[1][0], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(results[0][1] * unit**2, results[1][1], rtol=1e-6, atol=0.0)


# ------------------------------------------------------------------------------------ windows


@functools.cache
def forecast(dtype, units=(1.0, 1.0), levels=(0.0, 0.0), constant=None, gaps=False):
    """Loss, score, forecast and importance of an IMV-LSTM, in the units of x and y."""
    g = torch.Generator().manual_seed(5)
    x = torch.randn(40, 5, 3, generator=g, dtype=torch.float64)
    y = x[:, -2, 1] + 0.1 * torch.randn(40, generator=g, dtype=torch.float64)
    if constant is not None:
        x[..., 2] = constant
    x = (x + levels[0]) * units[0]
    if gaps:
        x[::3, 1, 0] = torch.nan
    y = (y + levels[1]) * units[1]
    x, y = x.to(dtype), y.to(dtype)
    pyro.set_rng_seed(0)
    imv = IMVLSTM(3, 4).to(dtype)
    how = {"num_epochs": 4, "batch_size": 16, "squared_error": 0.5, "disable_progbar": True}
    imv.fit(x[:30], y[:30], valid=(x[30:], y[30:]), **how)
    ahead = imv.predict(x[30:])
    mean, scales = (v.double() / units[1] for v in (ahead.mean, ahead.scales))
    low, high = (v.double() / units[1] - levels[1] for v in ahead.interval(0.9))
    nll = torch.tensor([r.score - math.log(units[1]) for r in imv.history])
    parts = [mean - levels[1], scales, low, high, nll.double()]
    parts += [imv.posterior(x, y).double(), imv.attention(x).double()]
    return parts


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(
    "dtype, units, levels, tolerance",
    [
        *[(torch.float64, (a, b), (0.0, 0.0), 1e-6) for a, b in [(1e-12, 1e12), (1e12, 1e-12)]],
        *[(torch.float64, (1.0, 1.0), (a, b), 1e-4) for a, b in [(1e6, -1e6), (-1e3, 0.0)]],
        (torch.float64, (1e12, 1e-12), (1e6, 1e6), 1e-4),
        (torch.float32, (1e-12, 1e12), (1e3, -1e3), 0.02),
    ],
)
def test_windows(dtype, units, levels, tolerance, gaps):
    one = forecast(dtype, gaps=gaps)
    for a, b in zip(one, forecast(dtype, units, levels, gaps=gaps), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("constant", [1e-5, -3.0, 1e6])
@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_a_constant_variable(constant, unit):
    """It tells nothing, wherever it stands."""
    one = forecast(torch.float64, constant=0.0)
    for a, b in zip(one, forecast(torch.float64, (unit, 1.0), constant=constant), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_constant_target_and_a_single_window():
    for num_windows in (1, 6):
        for value in (0.0, 5.0, 1e12):
            x, y = torch.randn(num_windows, 3, 2), torch.full((num_windows,), value)
            imv = IMVLSTM(2, 2)
            imv.fit(x, y, num_epochs=1, disable_progbar=True)
            assert imv.predict(x).mean.isfinite().all()
            assert imv.log_likelihood(x, y).isfinite().all()
