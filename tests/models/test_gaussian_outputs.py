"""What a fitted GaussianSSL says of sensors: holes, series of its own, scores, tables, regions."""

import math

import pyro
import pytest
import torch

from pyro_ssl import GaussianSSL
from pyro_ssl.errors import CheckpointError
from pyro_ssl.exact import kalman_filter, kalman_smoother
from pyro_ssl.models import GaussianForecast
from pyro_ssl.models.gaussian_iterates import kept_with, weights_of
from pyro_ssl.models.gaussian_outputs import crps
from pyro_ssl.models.gaussian_region import region_of
from tests.models.test_gaussian_sensors import NOISES, D, E, T, U, place, sensors, world

pd = pytest.importorskip("pandas")

QUICK = {"num_epochs": 2, "num_paths": 1, "disable_progbar": True}


def fitted(x, lengths=None, **options):
    pyro.set_rng_seed(0)
    ssl = GaussianSSL(2, hidden_size=4, noise="diagonal", **options)
    ssl.fit(x, lengths, linear_steps=3, **QUICK)
    return ssl


# ---------------------------------------------------------------------------------------- holes


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("noise", NOISES)
def test_holes_are_filled_by_what_the_joint_gaussian_says(noise):
    """Against the smoother's mean, and with full noise what the other sensors' noise adds.

    A missing sensor given the rest is the same as that sensor filtered with R's cross terms: its
    mean is taken by dropping it from the data, and adding it as a latent is not needed, for
    E[x_m | all] = E[C_m z + d_m | all] + K E[e_o | all], with E[e_o | all] = x_o - E[C_o z + d_o].
    4 chains of 250 sweeps; |z| < 6 with errors of 100 independent draws.
    """
    ssl, x, given, (chain, emission) = world(noise)
    exact = kalman_smoother(chain, emission, x, **given)
    mean, _ = place(emission, exact.mean, exact.covariance)
    found = ssl.impute(x, num_samples=250, **given)
    seen = ~x.isnan() & given["mask"]
    within = torch.arange(T).unsqueeze(-1) < given["lengths"]
    assert torch.equal(found.x[seen & within.unsqueeze(-1)], x[seen & within.unsqueeze(-1)])
    assert found.x[~within].isnan().all() and found.samples[:, ~within].isnan().all()
    R, C = emission.covariance, emission.matrix
    for t, b in within.nonzero().tolist():
        o, m = seen[t, b], ~seen[t, b]
        if not m.any():
            continue
        K = R[m][:, o] @ torch.linalg.inv(R[o][:, o]) if o.any() else torch.zeros(int(m.sum()), 0)
        expected = mean[t, b, m] + K @ (x[t, b, o] - mean[t, b, o])
        moved = C[m] - K @ C[o]
        left = moved @ exact.covariance[t, b] @ moved.T + R[m][:, m] - K @ R[o][:, m]
        sd = left.diagonal().sqrt()
        assert ((found.x[t, b, m] - expected).abs() < 6 * sd / 10).all()
        spread = found.samples[:, t, b, m].std(0) / sd
        assert (spread.square().log().abs() < 6 * math.sqrt(2 / 100)).all()


# ---------------------------------------------------------------------------------- simulations


@pytest.mark.stage("statistical")
def test_simulated_series_have_the_distribution_of_the_model():
    """Its steps, its start and its noise, standardised: within 5 standard errors."""
    ssl, _, _, law = world("full")
    u = torch.randn(T, U)
    found = ssl.simulate(T, 4000, inputs=u)
    assert found.x.shape == (T, 4000, E) and found.z.shape == (T, 4000, D)
    rest = found.x - found.z @ law[1].matrix.T - law[1].offset
    n = rest[..., 0].numel()
    flat = rest.flatten(0, 1)
    R = law[1].covariance
    bound = (torch.outer(R.diagonal(), R.diagonal()) + R.square()).div(n).sqrt()
    assert ((flat.T @ flat / n - R).abs() < 5 * bound).all()
    chain = law[0]
    step = found.z[1:] - found.z[:-1] @ chain.matrix.T - chain.drift(u.unsqueeze(1))[1:]
    for value in (step / chain.scale, (found.z[:1] - chain.initial_mean) / chain.initial_scale):
        n = value[..., 0].numel()
        assert (value.mean((0, 1)).abs() < 5 / math.sqrt(n)).all()
        assert ((value.flatten(0, 1).std(0) - 1).abs() < 5 / math.sqrt(2 * n)).all()


# --------------------------------------------------------------------------------------- scores


def test_crps_is_its_definition():
    samples, x = torch.randn(40, 3), torch.randn(3)
    apart = (samples.unsqueeze(0) - samples.unsqueeze(1)).abs().mean((0, 1))
    torch.testing.assert_close(crps(samples, x), (samples - x).abs().mean(0) - 0.5 * apart)


@pytest.mark.stage("statistical")
@pytest.mark.usefixtures("float32")
def test_scores_are_those_of_the_exact_forecasts():
    """Of a linear model's own series: log score, RMSE and coverage by Kalman's predictions."""
    ssl, _, _, (chain, emission) = world("diagonal")
    S, N = 4, 300
    u = torch.randn(T, U)
    x = ssl.simulate(T, N, inputs=u).x
    x[:, :50, 2] = torch.nan
    found = ssl.score(x, S, inputs=u, start=T - S, num_particles=2000)
    hidden = x.clone()
    hidden[T - S :] = torch.nan
    exact = kalman_filter(chain, emission, hidden, inputs=u)
    mean, variance = place(emission, exact.mean[T - S :], exact.covariance[T - S :])
    truth, sd = x[T - S :], (variance + emission.covariance.diagonal()).sqrt()
    there = ~truth.isnan()
    assert torch.equal(found.num_observed, there.sum(1).double())
    log_p = torch.distributions.Normal(mean, sd, validate_args=False).log_prob(truth)

    def average(value):
        return torch.where(there, value, 0.0).sum(1) / there.sum(1)

    assert (found.log_score - average(log_p)).abs().max() < 0.05
    assert (found.rmse - average((mean - truth).square()).sqrt()).abs().max() < 0.05
    inside = average(((mean - truth).abs() < 1.645 * sd).double())
    assert (found.coverage - inside).abs().max() < 0.05
    z = (truth - mean) / sd
    normal = torch.distributions.Normal(0.0, 1.0, validate_args=False)
    gaussian = sd * (z * (2 * normal.cdf(z) - 1) + 2 * normal.log_prob(z).exp() - math.pi**-0.5)
    assert (found.crps - average(gaussian)).abs().max() < 0.05


def test_scores_are_from_every_origin_that_has_so_many_steps_after_it():
    x = sensors(20, 3).nan_to_num(20.0)
    ssl = fitted(x, linear=True)
    found = ssl.score(x, 4, torch.tensor([20, 14, 3]), start=5, every=4, num_particles=10)
    # 5, 9, 13 (17 is past 20 - 4) of the first; 5 and 9 of the second; none of the third
    assert (found.num_observed == 5).all() and found.crps.shape == (4, 6)
    with pytest.raises(ValueError, match="nothing was observed in 4 steps from step 18 on"):
        ssl.score(x, 4, start=18)


# --------------------------------------------------------------------------------------- tables


def tables():
    """Two series as tables, with one column in another place, and one that is missing."""
    x = sensors(30, 2)
    names = list("abcdef")
    hours = pd.date_range("2020-03-01", periods=30, freq="15min")
    one = pd.DataFrame(x[:, 0].numpy(), columns=names, index=hours)
    two = pd.DataFrame(x[:20, 1].numpy(), columns=names)[["f", "a", "b", "c", "e"]]
    y = x.clone()
    y[:, 1, 3] = torch.nan
    return [one, two], y, torch.tensor([30, 20])


@pytest.mark.stage("system")
def test_tables_are_series_with_names():
    frames, x, lengths = tables()
    one, other = fitted(frames), fitted(x, lengths)
    assert one.sensors == list("abcdef") and other.sensors is None
    for a, b in zip(one.emission, other.emission, strict=True):
        assert torch.equal(a, b)
    found = []
    for model, data in ((one, (frames,)), (other, (x, lengths))):
        torch.manual_seed(1)
        found.append(model.filter(*data, num_particles=20))
    assert torch.equal(found[0].mean, found[1].mean)
    assert torch.equal(found[0].sensor("c")[0], found[1].mean[..., 2])
    with pytest.raises(KeyError, match="no sensor is named 'g', expected one of"):
        found[0].sensor("g")


@pytest.mark.stage("system")
def test_results_go_on_with_the_index_of_a_table(tmp_path):
    (one, _), _, _ = tables()
    ssl = fitted(one)
    tracked = ssl.filter(one, num_particles=20).to_frame()
    assert tracked.index.equals(one.index)
    assert list(tracked.columns[:2]) == [("a", "mean"), ("a", "scale")]
    assert ("z1", "scale") in tracked.columns
    ahead = ssl.forecast(one, 4, num_particles=20)
    frame = ahead.to_frame(0.5)
    step = pd.Timedelta(minutes=15)
    assert list(frame.index) == [one.index[-1] + (k + 1) * step for k in range(4)]
    low, high = ahead.interval(0.5)
    assert torch.equal(torch.tensor(frame["b"]["low"].to_numpy()), low[:, 0, 1])
    assert torch.equal(torch.tensor(frame["b"]["high"].to_numpy()), high[:, 0, 1])
    filled = ssl.impute(one, num_samples=3, warmup_steps=1, num_chains=1).to_frame()
    assert filled.index.equals(one.index) and list(filled.columns) == list(one.columns)
    assert filled.notna().all().all()
    assert filled.where(one.notna()).equals(one.where(one.notna()))
    made = ssl.simulate(5, 2).to_frame()
    assert len(made) == 2 and list(made[0].columns) == list("abcdef")
    scores = ssl.score(one, 3, start=20, num_particles=10).to_frame()
    assert list(scores.index) == [1, 2, 3] and ("f", "crps") in scores.columns
    ssl.save(tmp_path / "model")
    assert GaussianSSL.load(tmp_path / "model").sensors == list("abcdef")


def test_inputs_come_as_tables_too():
    x, u = sensors(12, 2), torch.randn(15, U)
    ssl = GaussianSSL(2, hidden_size=4, linear=True, input_size=U, noise="diagonal")
    table = pd.DataFrame(u.numpy(), columns=["sun", "wind"])
    frames = [pd.DataFrame(x[:, b].numpy()) for b in range(2)]
    ssl.fit(frames, inputs=table[:12], linear_steps=2, **QUICK)
    found = []
    for inputs in (u, table, [table, table]):
        torch.manual_seed(0)
        found.append(ssl.forecast(x, 3, inputs=inputs, num_particles=9).samples)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.stage("system")
def test_a_saved_fit_knows_other_tables_from_its_own(tmp_path):
    """Two that are printed alike, as data and as validation data."""
    one = pd.DataFrame(sensors(80, 1).nan_to_num(20.0)[:, 0].numpy())
    other = one.copy()
    other.iloc[40, 3] += 1.0
    assert repr(one) == repr(other)
    how = {"linear_steps": 1, "num_particles": 2, "num_valid_particles": 2, **QUICK}
    for name, given in (("x", {"x": other}), ("valid", {"valid": (other,)})):
        given = {"x": one, "valid": (one,)} | given
        ssl = GaussianSSL(1, hidden_size=2, linear=True, noise="diagonal")
        ssl.fit(one, valid=(one,), checkpoint=tmp_path / name, **how)
        with pytest.raises(CheckpointError, match=name):
            ssl.fit(**given, checkpoint=tmp_path / name, resume=True, **how)


def test_bad_tables_are_told():
    (one, two), _, _ = tables()
    ssl = fitted(one)
    with pytest.raises(ValueError, match=r"the columns \['other'\], expected some of .* write x\["):
        ssl.filter(one.rename(columns={"a": "other"}))
    with pytest.raises(ValueError, match=r"\['a'\] twice"):
        ssl.filter(pd.concat([one, one[["a"]]], axis=1))
    with pytest.raises(ValueError, match="lengths were given beside tables"):
        ssl.filter([one, two], [30, 10])


# -------------------------------------------------------------------------------------- regions


def test_region_holds_what_it_is_of_and_does_not_depend_on_coordinates():
    """A ring: its middle is outside of it, as is what is far from it."""
    angle, A = 2 * math.pi * torch.rand(300), torch.randn(3, 3)
    ring = torch.stack([angle.cos(), angle.sin(), 0.3 * torch.randn(300)], -1)
    z = ring + 0.05 * torch.randn(5, 300, 3)
    new = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]).view(3, 1, 1, 3)
    region, moved = region_of(z), region_of(z @ A.T + 5.0)
    inside = region.outside(z.unsqueeze(2).flatten(0, 1).unsqueeze(1)[:1500])
    assert float(inside) < 0.03
    for one, shift in ((region, lambda v: v), (moved, lambda v: v @ A.T + 5.0)):
        assert [float(one.outside(shift(v[None]))) for v in new] == [1.0, 0.0, 1.0]
    flat = region_of(torch.cat([z, torch.zeros(5, 300, 1)], -1))
    assert float(flat.outside(torch.tensor([1.0, 0.0, 0.0, 1.0]).view(1, 1, 1, 4))) == 1.0


def test_a_forecast_says_where_it_extrapolates():
    """By where the latents of the fit were: around those of the forecast, or far from them."""
    x = sensors(20, 2)
    ssl = fitted(x)
    ahead = ssl.forecast(x, 3, num_particles=200)
    assert ahead.outside.shape == (3, 2) and torch.equal(ahead.extrapolates, ahead.outside > 0.25)
    draws = ahead.latents[:, -1].transpose(0, 1).reshape(1, 400, 2).movedim(1, 0)
    for shift, share in ((0.0, 0.1), (1e3, 1.0)):
        ssl._set_region(draws + shift, torch.ones(400, 1, dtype=torch.bool))
        found = ssl.forecast(x, 3, num_particles=200)
        assert ((found.outside[-1] - share).abs() <= 0.1).all()
        assert found.extrapolates[-1].all() == (share == 1.0)


@pytest.mark.stage("system")
def test_pooled_forecasts_are_the_mixture():
    x = sensors(20, 2)
    parts = [fitted(x).forecast(x, 3, num_particles=30) for _ in range(2)]
    parts[1] = GaussianForecast(parts[1].samples + 5.0, parts[1].mean + 5.0, parts[1].covariance)
    pooled = GaussianForecast.pooled(parts)
    assert pooled.samples.shape == (60, 3, 2, 6)
    torch.testing.assert_close(pooled.mean, parts[0].mean + 2.5)
    torch.testing.assert_close(pooled.covariance, parts[0].covariance + 6.25)
    with pytest.raises(RuntimeError, match="does not know where its latents were"):
        pooled.extrapolates  # noqa: B018
    with pytest.raises(ValueError, match="expected one or more of one shape"):
        GaussianForecast.pooled([])


def test_a_model_saved_before_there_were_regions_loads():
    x = sensors(15, 2)
    ssl = fitted(x)
    old = {name: v for name, v in ssl.state_dict().items() if "region" not in name}
    copy = GaussianSSL(**ssl.config)
    copy.load_state_dict(old)
    assert copy.region is None and ssl.region is not None
    assert copy.forecast(x, 2, num_particles=5).outside is None


# ------------------------------------------------------------------------------------- iterates


@pytest.mark.stage("system")
def test_forecasts_go_by_the_weights_of_several_epochs():
    """Of 9 particles five go by the one, four by the other; the model keeps its own."""
    x = sensors(15, 2).nan_to_num(20.0)
    ssl = fitted(x)
    assert ssl.iterates is None
    ssl.fit(x, num_paths=1, num_epochs=11, disable_progbar=True)
    own = weights_of(ssl.transition)
    assert ssl.iterates.shape == (2, len(own))
    assert torch.equal(kept_with(ssl.iterates, ssl.transition, 15)[2], own)
    assert kept_with(ssl.iterates, ssl.transition, 11) is ssl.iterates
    torch.manual_seed(1)
    found = ssl.forecast(x, 3, num_particles=9).latents
    assert torch.equal(weights_of(ssl.transition), own)
    parts, several = [], ssl.iterates
    torch.manual_seed(1)
    for weights, P in zip(several, (5, 4), strict=True):
        ssl.iterates = weights.unsqueeze(0)
        parts.append(ssl._forecast_from(ssl._take("", x, *[None] * 3), 15, 3, P).latents)
    assert found.shape == (9, 3, 2, 2)
    # The noise is drawn after the paths, so the first part's are the same, number by number.
    assert torch.equal(found[:5], parts[0])
    assert not torch.equal(several[0], several[1])


def test_no_more_weights_are_kept_than_are_asked_for():
    module, kept = torch.nn.Linear(2, 1), None
    for epoch in range(1, 60):
        module.bias.data.fill_(epoch)
        kept = kept_with(kept, module, epoch)
    assert kept[:, -1].tolist() == [20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0, 55.0]
