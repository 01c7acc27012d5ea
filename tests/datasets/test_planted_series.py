"""The planted variables are there, at their lags, and no others."""

import math

import pytest
import torch

from pyro_ssl.datasets import make_windows, planted_variables


def parts_of(data):
    (values,) = data.series.pieces
    return values[:, :-1], values[:, -1]


@pytest.mark.parametrize("nonlinear", [False, True])
@pytest.mark.parametrize("autocorrelation", [0.0, 0.7])
def test_without_noise_the_target_is_the_sum(nonlinear, autocorrelation):
    data = planted_variables(
        200,
        5,
        lags=(4, 1, 2),
        weights=(1.0, -2.0, 0.5),
        noise=0.0,
        autocorrelation=autocorrelation,
        nonlinear=nonlinear,
    )
    x, y = parts_of(data)
    assert len(set(data.variables)) == 3 and data.lags == (4, 1, 2)
    assert y[:4].isnan().all() and y[4:].isfinite().all()
    for t in range(4, 200):
        effects = [float(x[t - lag, n]) for n, lag in zip(data.variables, (4, 1, 2), strict=True)]
        if nonlinear:
            effects = [(e * e - 1.0) / math.sqrt(2.0) for e in effects]
        assert float(y[t]) == pytest.approx(effects[0] - 2.0 * effects[1] + 0.5 * effects[2])


@pytest.mark.stage("system")
def test_one_variable_at_a_time():
    """Of 20,000 steps 0.7 follow the first: 6 standard deviations are 0.02 (false alarms 2e-9)."""
    data = planted_variables(
        20_000, 4, lags=(1, 3), weights=(2.0, 1.0), noise=0.0, shares=(0.7, 0.3)
    )
    x, y = parts_of(data)
    first, second = (
        (y[3:] - w * x[3 - lag : -lag, n]).abs() < 1e-12
        for n, lag, w in zip(data.variables, data.lags, (2.0, 1.0), strict=True)
    )
    assert torch.equal(first, ~second)
    assert float(first.double().mean()) == pytest.approx(0.7, abs=0.02)
    assert data.shares == (0.7, 0.3)


def test_the_variables_moments():
    """20,000 rows: each correlation's standard error is below 0.02, so that 6 of them are never
    exceeded by chance (false alarms below 1e-8 for each of some 40 numbers)."""
    data = planted_variables(20_000, 4, autocorrelation=0.6, noise=0.5, weights=(1.0, 1.0))
    x, y = parts_of(data)
    torch.testing.assert_close(torch.cov(x.T), torch.eye(4), atol=0.12, rtol=0.0)
    before_and_after = torch.cov(torch.cat([x[:-1], x[1:]], -1).T)[:4, 4:]
    torch.testing.assert_close(before_and_after, 0.6 * torch.eye(4), atol=0.12, rtol=0.0)
    assert float(y[5:].var()) == pytest.approx(2.25, abs=0.25)


def test_the_targets_past_is_no_input():
    data = planted_variables(300, 3, seed=2)
    split = make_windows(data.series, 8)
    assert split.names == ("x0", "x1", "x2") and split.train.x.shape[1:] == (8, 3)
    assert split.train.mask is None


def test_seeds():
    ambient = torch.get_rng_state()
    one, same, other = (planted_variables(100, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), ambient)
    torch.testing.assert_close(parts_of(one), parts_of(same), equal_nan=True, atol=0.0, rtol=0.0)
    assert not torch.equal(parts_of(one)[0], parts_of(other)[0])
    drawn = {planted_variables(20, seed=seed).variables for seed in range(20)}
    assert len(drawn) > 10  # of 90 pairs


class TestErrorsTeach:
    @pytest.mark.parametrize(
        "arguments", [{"lags": (0, 1)}, {"lags": (1, 2, 3)}, {"num_variables": 1}]
    )
    def test_lags(self, arguments):
        with pytest.raises(ValueError, match="expected as many weights as lags"):
            planted_variables(**arguments)

    @pytest.mark.parametrize("shares", [(1.0,), (1.5, -0.5)])
    def test_shares(self, shares):
        with pytest.raises(ValueError, match="expected a probability for each lag"):
            planted_variables(shares=shares)

    @pytest.mark.parametrize(
        "arguments", [{"autocorrelation": 1.0}, {"noise": -1.0}, {"num_rows": 5}]
    )
    def test_numbers(self, arguments):
        with pytest.raises(ValueError, match="more rows than the longest lag"):
            planted_variables(**arguments)
