"""Forecasts of a GaussianSSL that reads x_{t-1}, of which something is missing."""

import math

import pyro
import pytest
import torch

from pyro_ssl import ParticleFilter
from pyro_ssl.errors import SMCFailed
from pyro_ssl.models import gaussian_forecasting, gaussian_turns
from pyro_ssl.models.gaussian_data import Series
from pyro_ssl.models.gaussian_forecasting import FUTURES
from pyro_ssl.models.gaussian_iterates import weights_of
from pyro_ssl.models.gaussian_outputs import crps
from tests.models.test_gaussian_autoregression import conditioned, dense, seeded, with_gaps, worlds
from tests.models.test_gaussian_sensors import NOISES, B, D, E, T, U

S = 4


def failing(noise):
    """A world whose first sensor fails for the last three steps of each series."""
    _, ssl, x, _, given, law = worlds(noise)
    ssl.lag_origin += 3.0  # where it is not
    for b, end in enumerate(given["lengths"].tolist()):
        x[end - 3 : end, b, 0] = torch.nan
    later = torch.cat([given["inputs"], torch.randn(S, B, U)])
    return ssl, x, given | {"inputs": later}, law


# ------------------------------------------------------------------------- against exact answers


def off(ssl, x, given, law, num_particles):
    """Of means, of means of draws, and of log variances: errors by 6 standard errors, ``(N,)``.

    These are of the draws of the past alone: as if all futures of one were the same.
    """
    found, (lengths, mask, u) = None, (given[name] for name in ("lengths", "mask", "inputs"))
    found = ssl.forecast(x, S, inputs=u, lengths=lengths, mask=mask, num_particles=num_particles)
    n, errors = num_particles / FUTURES, []
    x = x.masked_fill(~mask, torch.nan)
    for b, end in enumerate(lengths.tolist()):
        moments = dense(*law, ssl.autoregression, u[: end + S, b])
        seen = torch.cat([x[:end, b].flatten(), torch.full((S * E,), torch.nan)])
        mean, left = conditioned(*moments, seen)
        mean, var = mean[-S * E :], left.diagonal()[-S * E :]
        samples, error = found.samples[:, :, b].flatten(1), 6 * (var / n).sqrt()
        for value in (found.mean[:, b].flatten(), samples.mean(0)):
            errors.append((value - mean) / error)
        errors.append((samples.var(0) / var).log() / (6 * math.sqrt(2 / n)))
    return torch.cat(errors).abs()


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("noise", NOISES)
def test_forecasts_are_those_of_the_joint_gaussian(noise, monkeypatch):
    """Of (z, x)_{1:T+S} as one vector, given what was observed: ragged, with inputs and a mask.

    Of 144 numbers one beyond 6 standard errors has p < 1e-6. Forecasts that take what is missing
    to have been at m are off by more than three times as much.
    """
    ssl, x, given, law = failing(noise)
    assert off(ssl, x, given, law, 4000).max() < 1
    monkeypatch.setattr(Series, "is_whole", True)
    assert off(ssl, x, given, law, 4000).max() > 3


# -------------------------------------------------------------------------------------- what stays


def test_without_gaps_forecasts_are_the_particle_filters(monkeypatch):
    """To the last bit; what is missing past the end of a series is no gap."""
    ssl, x, given, _ = failing("diagonal")
    monkeypatch.setattr(gaussian_forecasting, "Pasts", None)
    x, u, (C, b, R), P = x.nan_to_num(0.3), given["inputs"], ssl.emission, 6
    found = seeded(ssl.forecast, x, S, inputs=u, num_particles=P)

    def expected():
        given = Series(torch.cat([x, torch.full((S, B, E), torch.nan)]), inputs=u).arguments
        z = ParticleFilter(ssl.model, P).forecast(*given, start=T).paths
        z = z.transpose(1, 2).contiguous()  # products round as their layout has it
        drawn = ssl.family.sample(z @ C.T, torch.zeros_like(b), R)
        last = ssl.autoregression.lags(Series(x))[-1]
        return z, drawn + ssl.autoregression.shifts_of_draws(drawn, b, last) + b

    for one, other in zip((found.latents, found.samples), seeded(expected), strict=True):
        assert torch.equal(one, other)
    longer = torch.cat([x, torch.full((1, B, E), torch.nan)])
    ragged = seeded(ssl.forecast, longer, S, [T] * B, inputs=torch.cat([u, u[:1]]), num_particles=P)
    assert torch.equal(found.samples, ragged.samples)


def test_scores_are_of_the_forecasts():
    ssl, x, given, _ = failing("diagonal")
    u, truth, P = given["inputs"][:T], torch.randn(2, B, E), 9
    past, mask = x[: T - 2], given["mask"].clone()
    mask[T - 2 :] = True
    how = {"num_particles": P, "inputs": u}
    found = seeded(ssl.score, torch.cat([past, truth]), 2, mask=mask, start=T - 2, **how)
    ahead = seeded(ssl.forecast, past, 2, mask=mask[: T - 2], **how)
    assert ahead.latents.shape == (P, 2, B, D)
    torch.testing.assert_close(found.rmse, (ahead.mean - truth).square().mean(1).sqrt())
    torch.testing.assert_close(found.crps, crps(ahead.samples, truth).mean(1))
    assert found.log_score.isfinite().all()


# ----------------------------------------------------------------------------- whatever is asked


@pytest.mark.parametrize(
    "noise, dtype, linear",
    [("diagonal", torch.float64, True), ("full", torch.float32, False)],
)
@pytest.mark.parametrize("steps, series, sensors, dim", [(1, 1, 1, 1), (2, 1, 1, 2), (21, 2, 3, 2)])
def test_sizes(steps, series, sensors, dim, noise, dtype, linear):
    """A series of which nothing was seen, a sensor without any, and one step alone."""
    ssl, x = with_gaps(steps, series, sensors, dim, linear=linear, noise=noise, dtype=dtype)
    horizon, P = (1, 1) if steps == 1 else (2, FUTURES + 1)
    u = {"inputs": torch.randn(steps + horizon, series - 1)} if series > 1 else {}
    lengths = torch.arange(steps, steps - series, -1)
    found = ssl.forecast(x, horizon, lengths, num_particles=P, **u)
    assert found.samples.shape == (P, horizon, series, sensors)
    assert found.samples.dtype == found.mean.dtype == dtype
    assert found.samples.isfinite().all() and found.covariance.isfinite().all()
    assert len({float(draw) for draw in found.samples.flatten()}) == found.samples.numel()


def with_two_weights():
    ssl, x, given, _ = failing("diagonal")
    own = weights_of(ssl.transition)
    ssl.iterates = torch.stack([own + 0.3 * torch.randn(len(own)), own])
    return ssl, x, given, own


def test_draws_go_by_the_weights_of_several_epochs():
    """The first ones are those of the first weights alone, and the model keeps its own."""
    ssl, x, given, own = with_two_weights()
    found = seeded(ssl.forecast, x[:5], S, inputs=given["inputs"][: 5 + S], num_particles=21)
    assert found.latents.shape == (21, S, B, D) and torch.equal(weights_of(ssl.transition), own)
    parts = []
    for weights in ssl.iterates.clone():
        ssl.iterates = weights.unsqueeze(0)
        how = {"inputs": given["inputs"][: 5 + S], "num_particles": 11}
        parts.append(seeded(ssl.forecast, x[:5], S, **how).latents)
    assert torch.equal(found.latents[:11], parts[0]) and not torch.equal(*parts)


@pytest.mark.parametrize("method", ["forecast", "score"])
def test_one_that_fails_leaves_all_as_it_was(method, monkeypatch):
    """Under the second weights: generators, weights and parameter store."""
    ssl, x, given, own = with_two_weights()
    turns, calls = gaussian_turns.draw_paths, []

    def fails(*args, **kwargs):
        calls.append(args)
        if len(calls) > 8:
            raise SMCFailed("all particles died")
        return turns(*args, **kwargs)

    monkeypatch.setattr(gaussian_turns, "draw_paths", fails)
    before, names = torch.get_rng_state(), set(pyro.get_param_store().keys())
    u = given["inputs"] if method == "forecast" else given["inputs"][:T]
    with pytest.raises(SMCFailed):
        getattr(ssl, method)(x, S, inputs=u, num_particles=20)
    assert len(calls) == 9 and torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights_of(ssl.transition), own)
    assert set(pyro.get_param_store().keys()) == names
