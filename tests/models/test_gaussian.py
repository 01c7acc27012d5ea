"""GaussianSSL: against Kalman where its transition is linear, and on a curve."""

import math

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal, init_to_value
from pyro.optim import Adam

from pyro_ssl import ParticleGibbs
from pyro_ssl.datasets import CURVES, noisy_curve, noisy_rotation
from pyro_ssl.exact.kalman import LinearEmission, kalman_filter, kalman_smoother
from pyro_ssl.models import GaussianSSL
from pyro_ssl.models.gaussian_noise import form_of
from pyro_ssl.models.gaussian_regression import EmissionRegression
from pyro_ssl.transitions import LinearGaussianTransition
from tests.statistics import staged

T, B, D, E = 12, 3, 2, 3


@pytest.fixture
def linear():
    """A GaussianSSL whose transition is linear, with data, a mask, and Kalman's emission."""
    ssl = GaussianSSL(D)
    ssl.transition = LinearGaussianTransition(
        D,
        matrix=torch.tensor([[0.8, 0.3], [-0.2, 0.7]]),
        offset=torch.tensor([0.1, -0.2]),
        scale=torch.tensor([0.4, 0.6]),
        initial_mean=torch.zeros(D),
        initial_scale=torch.ones(D),
    )
    ssl.loading, ssl.offset = torch.randn(E, D), torch.randn(E)
    root = torch.randn(E, E)
    ssl.covariance = root @ root.T + 0.2 * torch.eye(E)
    x, mask = torch.randn(T, B, E), torch.rand(T, B) > 0.2
    x[~mask] = torch.nan
    return ssl, x, mask, LinearEmission(ssl.loading, ssl.offset, ssl.covariance)


def place(emission, mean, covariance):
    """Mean and variances of C z + b."""
    C = emission.matrix
    return mean @ C.T + emission.offset, (C @ covariance @ C.T).diagonal(dim1=-2, dim2=-1)


@pytest.mark.stage("statistical")
def test_filter_is_kalmans(linear):
    """4,000 particles; |z| < 6 with errors taken twice as large as for independent draws."""
    ssl, x, mask, emission = linear
    exact = kalman_filter(ssl.transition, emission, x, mask=mask)
    mean, variance = place(emission, exact.mean, exact.covariance)
    P = 4000
    found = ssl.filter(x, num_particles=P)
    assert ((found.mean - mean).abs() < 12 * (variance / P).sqrt()).all()
    assert ((found.scale.square() / variance).log().abs() < 12 * math.sqrt(2 / P)).all()
    log_p = ssl.log_likelihood(x, num_particles=P)
    assert log_p[~mask].abs().max() < 1e-12
    assert (log_p - exact.log_likelihood).abs().max() < 0.2


@pytest.mark.stage("statistical")
@pytest.mark.usefixtures("float32")
def test_smooth_is_the_smoothers(linear):
    """4 chains of 250 sweeps; |z| < 6 with errors of 100 independent draws."""
    ssl, x, mask, emission = linear
    exact = kalman_smoother(ssl.transition, emission, x, mask=mask)
    mean, variance = place(emission, exact.mean, exact.covariance)
    found = ssl.smooth(x, num_samples=250)
    assert ((found.mean - mean).abs() < 6 * (variance / 100).sqrt()).all()
    assert ((found.scale.square() / variance).log().abs() < 6 * math.sqrt(2 / 100)).all()


@pytest.mark.stage("statistical")
def test_forecast_is_the_filter_carried_on(linear):
    ssl, x, mask, emission = linear
    S, P = 4, 4000
    longer = torch.cat([x, torch.full((S, B, E), torch.nan)])
    there = torch.cat([mask, torch.zeros(S, B, dtype=torch.bool)])
    exact = kalman_filter(ssl.transition, emission, longer, mask=there)
    mean, variance = place(emission, exact.mean[T:], exact.covariance[T:])
    found = ssl.forecast(x, S, num_particles=P)
    assert ((found.mean - mean).abs() < 12 * (variance / P).sqrt()).all()
    spread = found.covariance.diagonal(dim1=-2, dim2=-1)
    assert ((spread / variance).log().abs() < 12 * math.sqrt(2 / P)).all()
    sd = (variance + emission.covariance.diagonal()).sqrt()
    low, high = found.interval(0.9)
    assert ((low - (mean - 1.645 * sd)).abs() < 0.2 * sd).all()
    assert ((high - (mean + 1.645 * sd)).abs() < 0.2 * sd).all()


@pytest.mark.parametrize("learn", [False, True])
def test_emission_is_the_regression_of_the_data_on_the_paths(learn):
    """With C learned: the part of it that does not move the latents to other coordinates."""
    z, C, b = torch.randn(200, D), torch.randn(E, D), torch.randn(E)
    x = z @ C.T + b + 0.1 * torch.randn(200, E)
    start = LinearEmission(C + 0.1 * torch.randn(E, D), b, torch.diag(torch.rand(E) + 0.1))
    seen = torch.ones(200, 1, E, dtype=torch.bool)
    regression = EmissionRegression(x.unsqueeze(1), seen, 1, start, learn, averaging=0.5)
    found = regression.update(z.unsqueeze(0), start)
    if learn:
        design = torch.cat([z, torch.ones(200, 1)], -1)
        weight = torch.linalg.lstsq(design, x).solution.T[:, :D]
        sd = start.covariance.diagonal().sqrt().unsqueeze(-1)
        reader = torch.linalg.pinv(start.matrix / sd)
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(reader @ (found.matrix / sd), torch.eye(D))
        blind = torch.linalg.svd(start.matrix / sd).U[:, D:].T  # to what the reader sees
        torch.testing.assert_close(blind @ (found.matrix / sd), blind @ (weight / sd), **close)
        offset = (x - z @ found.matrix.T).mean(0)
        torch.testing.assert_close(found.offset, offset, **close)
    rest = x - z @ found.matrix.T - found.offset
    torch.testing.assert_close(found.covariance, rest.T @ rest / 200, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("diagonal", [False, True])
def test_missing_sensors_count_with_their_expectation(diagonal):
    """E[x xᵀ] of every frame by the conditional Gaussian, written out; R from their mean."""
    N = 40
    z, C, b = torch.randn(N, D), torch.randn(E, D), torch.randn(E)
    root = torch.randn(E, E)
    R = root @ root.T + 0.2 * torch.eye(E)
    R = R.diagonal().diag() if diagonal else R
    law = LinearEmission(C, b, R)
    x, seen = z @ C.T + b + torch.randn(N, E) @ root.T, torch.rand(N, E) < 0.6
    seen[0] = True
    x = x.masked_fill(~seen, torch.nan)
    there = seen.any(-1)
    form = form_of("diagonal" if diagonal else "full", None)
    regression = EmissionRegression(x.unsqueeze(1), seen.unsqueeze(1), 1, law, False, 0.0, form)
    assert regression.num_observed == there.sum()
    found = regression.update(z.unsqueeze(0), law).covariance
    expected = torch.zeros(E, E)
    for n in there.nonzero().squeeze(-1).tolist():
        o, m = seen[n], ~seen[n]
        away, more = torch.zeros(E), torch.zeros(E, E)
        away[o] = (x[n] - z[n] @ C.T - b)[o]
        gain = R[m][:, o] @ torch.linalg.inv(R[o][:, o])
        away[m] = gain @ away[o]
        more[m.unsqueeze(-1) & m] = (R[m][:, m] - gain @ R[o][:, m]).flatten()
        expected += (torch.outer(away, away) + more) / there.sum()
    expected = expected.diagonal().diag() if diagonal else expected
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.usefixtures("float32")
def test_tracks_a_circle_in_any_unit(scale):
    """Root mean square error well below the noise of .3; R near its .09."""
    x, z = noisy_curve("circle", num_steps=60)
    ssl = GaussianSSL(2, hidden_size=16)
    history = ssl.fit(scale * x + 5.0, num_epochs=25, num_paths=4, disable_progbar=True)
    error = (ssl.filter(scale * x + 5.0).mean - 5.0) / scale - z
    assert error.square().mean().sqrt() < 0.2
    assert (ssl.covariance.diagonal() / scale**2 - 0.09).abs().max() < 0.05
    assert len(history) == 25 and history[-1].change_rate > 0.1


@pytest.mark.parametrize("kind", staged(CURVES, ("circle",)))
@pytest.mark.usefixtures("float32")
def test_paths_move_at_every_step(kind):
    """Each of 200 latents is renewed by a tenth of the sweeps at least: half of them as measured.

    Of 160 sweeps, a step that moved in a quarter of them by right would fall below a tenth once in
    a million.
    """
    x = noisy_curve(kind, num_steps=200).x
    ssl = GaussianSSL(2, hidden_size=32)
    ssl.fit(x, num_epochs=12, num_paths=2, disable_progbar=True)
    sampler = ParticleGibbs(ssl.model, num_particles=10)
    settings = {"num_samples": 20, "warmup_steps": 5, "num_chains": 8, "disable_progbar": True}
    sampler.run(x, **settings)
    z = sampler.get_samples(group_by_chain=True)["z"]  # (C, S, B, T, D)
    assert z.shape == (8, 20, 1, 200, 2)
    rate = (z[:, 1:] != z[:, :-1]).any(-1).double().mean((0, 1, 2))
    assert rate.min() > 0.1


@pytest.mark.stage("system")
def test_the_best_epoch_may_be_an_early_one(monkeypatch):
    """Its state has nothing of what later epochs keep."""
    scores = iter(range(100))

    def log_likelihood(self, x, *args, **kwargs):
        return torch.full(x.shape[:2], -1.0 - next(scores))

    monkeypatch.setattr(GaussianSSL, "log_likelihood", log_likelihood)
    x, ssl = noisy_curve("circle", num_steps=12).x, GaussianSSL(2, hidden_size=3)
    states = []
    how = {"callback": lambda record: states.append(ssl.iterates), "disable_progbar": True}
    ssl.fit(x, valid=(x,), num_epochs=6, num_paths=2, **how)
    assert states[0] is None and states[-1] is not None and ssl.iterates is None
    assert ssl.forecast(x, 3).mean.shape == (3, 1, 2)


@pytest.mark.stage("statistical")
@pytest.mark.usefixtures("float32")
def test_intervals_cover_their_level():
    """On a planted model, 90 % intervals of 20 points to come: between 85 and 95 % of 4,000.

    The points of a sequence depend on each other; taken as 100 independent sequences with all
    points alike, the share has a standard error of .03, in truth about .01.
    """
    train, test = noisy_rotation(60, 100, seed=1), noisy_rotation(60, 100, seed=2)
    ssl = GaussianSSL(2, hidden_size=16, reads="positions", dropout=0.0)
    ssl.fit(train.x, num_epochs=40, num_paths=2, disable_progbar=True)
    low, high = ssl.forecast(test.x[:40], 20).interval()
    assert 0.85 < ((low < test.x[40:]) & (test.x[40:] < high)).double().mean() < 0.95
    found = ssl.log_likelihood(test.x).mean()
    best = kalman_filter(test.transition, test.emission, test.x).log_likelihood.mean()
    assert best - 0.15 < found < best + 0.01


def test_rotation_follows_its_distribution():
    """Standardised steps and residuals are standard normal: |mean| and |sd - 1| < 5 s.e."""
    data = noisy_rotation(40, 200)
    first, step = data.z[:1], data.z[1:] - data.z[:-1] @ data.transition.matrix.T
    for value in (first, step / data.transition.scale, (data.x - data.z) / 0.3):
        n = value.numel()
        assert value.mean().abs() < 5 / math.sqrt(n)
        assert (value.std() - 1).abs() < 5 / math.sqrt(2 * n)
    assert torch.equal(noisy_rotation(40, 200).x, data.x)


@pytest.mark.stage("statistical")
def test_start_leaves_a_model_for_pyros_svi():
    """From start values, SVI with an AutoNormal over the path lowers the loss, and tracks."""
    curve = noisy_curve("circle", num_steps=40)
    ssl = GaussianSSL(2, hidden_size=8)
    ssl.start(curve.x)
    assert ssl.emission.matrix.shape == (2, 2) and not ssl.history
    z = torch.linalg.solve(ssl.emission.matrix, (curve.x - ssl.emission.offset).unsqueeze(-1))
    guide = AutoNormal(
        pyro.poutine.block(ssl.model, expose=["z"]),
        init_loc_fn=init_to_value(values={"z": z.squeeze(-1).transpose(0, 1)}),
        init_scale=0.1,
    )
    svi = SVI(ssl.model, guide, Adam({"lr": 0.02}), Trace_ELBO())
    losses = [svi.step(curve.x) for _ in range(150)]
    assert sum(losses[-10:]) < sum(losses[:10])
    place = guide.median()["z"].transpose(0, 1) @ ssl.emission.matrix.T + ssl.emission.offset
    assert (place - curve.z).square().mean() < (curve.x - curve.z).square().mean()


def test_missing_steps_lengths_and_components():
    x = torch.randn(8, 3, 4).cumsum(0)
    x[2, 1] = torch.nan
    lengths = torch.tensor([8, 5, 3])
    ssl = GaussianSSL(2, hidden_size=4)
    ssl.fit(x, lengths, num_epochs=2, num_paths=2, learn_loading=True, disable_progbar=True)
    assert ssl.loading.shape == (4, 2) and ssl.loading.isfinite().all()
    log_p = ssl.log_likelihood(x, lengths)
    seen = (torch.arange(8)[:, None] < lengths) & x.isfinite().all(-1)
    assert ((log_p.abs() > 1e-9) == seen).all()
    smoothed = ssl.smooth(x, lengths, num_samples=3, warmup_steps=1, num_chains=2)
    assert smoothed.mean.isfinite().all()


def test_bad_input_is_told():
    ssl = GaussianSSL(2)
    with pytest.raises(ValueError, match=r"expected \(T, B, E\) with 2 at least and E >= D = 2"):
        ssl.fit(torch.randn(4, 1, 1))
    with pytest.raises(ValueError, match=r"loading has shape \(2, 2\), expected \(3, 2\)"):
        ssl.fit(torch.randn(4, 1, 3), loading=torch.eye(2))
    with pytest.raises(ValueError, match='kind is "spiral", expected one of'):
        noisy_curve("spiral")
    with pytest.raises(ValueError, match='inference is "svi", expected one of'):
        ssl.fit(torch.randn(4, 1, 2), inference="svi")
    with pytest.raises(ValueError, match='cell is "gru"'):
        GaussianSSL(2, cell="gru")


@pytest.mark.parametrize("kind", CURVES)
def test_curves(kind):
    x, z = noisy_curve(kind, 500, 20, noise=0.3, seed=1)
    noise = (x - z).flatten()
    assert noise.std() == pytest.approx(0.3, abs=5 * 0.3 / math.sqrt(2 * noise.numel()))
    assert (z[1:] - z[:-1]).norm(dim=-1).max() < 0.1
    assert torch.equal(noisy_curve(kind, 500, 20, seed=1).x, x)


def test_a_fit_does_not_write_into_what_it_was_given():
    """Buffers are copies: a state that is loaded later leaves the caller's C and b alone."""
    C, b = torch.eye(2), torch.zeros(2)
    ssl = GaussianSSL(2, hidden_size=4)
    ssl.fit(torch.randn(9, 2, 2), loading=C, offset=b, num_epochs=1, disable_progbar=True)
    assert torch.equal(ssl.loading, C)
    ssl.load_state_dict({name: value + 1.0 for name, value in ssl.state_dict().items()})
    assert torch.equal(C, torch.eye(2)) and torch.equal(b, torch.zeros(2))


def test_scales_are_part_of_the_state():
    """Of steps that are 1,000 times as long as those of a new model."""
    ssl = GaussianSSL(2, hidden_size=4)
    ssl.start(1000.0 * torch.randn(20, 1, 2).cumsum(0), loading=torch.eye(2))
    copy = GaussianSSL(**ssl.config)
    copy.load_state_dict(ssl.state_dict())
    path = 1000.0 * torch.randn(3, 9, 2)
    assert torch.equal(copy.eval().transition.log_prob(path), ssl.eval().transition.log_prob(path))
    assert float(copy.transition.increment_scale) > 100.0


def test_forecast_leaves_out_what_is_masked():
    ssl, found = GaussianSSL(2, hidden_size=4), []
    x, mask = torch.randn(9, 2, 2), torch.arange(9).unsqueeze(1) < torch.tensor([9, 6])
    ssl.start(x)
    for hidden in (0.0, 50.0):
        torch.manual_seed(0)
        data = torch.where(mask.unsqueeze(-1), x, hidden)
        found.append(ssl.forecast(data, 3, mask=mask, num_particles=20).samples)
    assert found[0].shape == (20, 3, 2, 2) and torch.equal(*found)
