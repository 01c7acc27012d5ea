"""GaussianSSL.calibrate: intervals of filled gaps that hold as often as they say."""

import math

import pyro
import pytest
import torch

from pyro_ssl import GaussianSSL
from pyro_ssl.models.gaussian_gaps import (
    LEAST,
    ROWS,
    factors_of,
    hidden_gaps,
    misses,
    num_rounds,
    rows_of,
    stretched,
)
from tests.models.test_gaussian_sensors import T, U, world

LEVEL = 0.9


# ---------------------------------------------------------------------------- distances and gaps


@pytest.mark.stage("system")
def test_rows_are_distances_to_the_nearest_observation():
    seen = torch.rand(40, 30, 3, generator=torch.Generator().manual_seed(0)) < 0.08
    row = rows_of(seen)
    for t in range(40):
        for b in range(30):
            for e in range(3):
                steps = [abs(t - s) for s in range(40) if seen[s, b, e]]
                if not steps:
                    assert row[t, b, e] == ROWS - 1
                elif min(steps):
                    assert row[t, b, e] == int(math.log2(min(steps)))


def test_rows_end_at_512_steps():
    seen = torch.zeros(2000, 1, 1, dtype=torch.bool)
    seen[0] = True
    assert rows_of(seen)[[511, 512, 1024, 1999], 0, 0].tolist() == [8, 9, 9, 9]


@pytest.mark.parametrize("shape", [(30, 1, 4), (30, 3, 4), (30, 9, 4), (30, 2, 1), (1, 1, 1)])
def test_each_sensor_is_hidden_wholly_once_at_least(shape):
    steps, B, E = shape
    out = torch.zeros(E, dtype=torch.long)
    for turn in range(num_rounds(B, E)):
        hidden = hidden_gaps(torch.full((B,), steps), shape, turn)
        whole = hidden.all(0)
        out += whole.sum(0)
        if E > 1:
            assert (whole.sum(1) >= 1).all()
        assert hidden.any(0).all()  # and there is a gap in each other one
        if steps > 1:
            assert (hidden.sum(0)[~whole] <= steps // 2 + 1).all()
    assert E == 1 or (out >= 1).all()


def test_gaps_are_within_half_of_each_series():
    ends = torch.tensor([4, 40])
    for _ in range(50):
        hidden = hidden_gaps(ends, (40, 2, 3), 0)
        assert hidden[:, 0, 1:].sum(0).max() <= 3 and hidden[4:, 0, 1:].nonzero().shape[0] <= 4
        assert hidden[:, 1, [0, 2]].sum(0).max() <= 21


# ---------------------------------------------------------------------------------------- factors


def test_a_miss_is_how_far_to_stretch_the_interval():
    samples = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 4, 1, 1)
    ends = torch.full((4, 1, 1), -2.0), torch.full((4, 1, 1), 4.0)
    truth = torch.tensor([-3.0, 2.0, 0.0, 8.0]).view(4, 1, 1)
    assert misses(truth, samples, ends).flatten().tolist() == [1.5, 0.5, 0.0, 2.0]


def test_a_factor_is_a_quantile_of_its_group():
    n = 200
    score = torch.arange(n, dtype=torch.double)[torch.randperm(n)] / 100
    row, sensor = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)
    found = factors_of(score, row, sensor, 2, LEVEL)
    # The least that 181 of the 200, and of one more to come 180.9 of 201 at least, do not exceed.
    assert (found == 1.80).all() and found.shape == (ROWS, 2)


def test_few_numbers_are_taken_with_those_of_all_sensors():
    score = torch.cat([torch.full((LEAST,), 2.0), torch.full((LEAST - 1,), 3.0)]).double()
    sensor = torch.cat([torch.zeros(LEAST), torch.ones(LEAST - 1)]).long()
    row = torch.full_like(sensor, 4)
    found = factors_of(score, row, sensor, 3, LEVEL)
    assert (found[:, 0] == 2.0).all()  # its own, also where its row is another
    assert (found[:, 1:] == 3.0).all()  # the quantile of both


def test_without_numbers_there_is_nothing_to_stretch():
    none = torch.zeros(0, dtype=torch.long)
    assert (factors_of(torch.zeros(0).double(), none, none, 2, LEVEL) == 1.0).all()


def test_draws_are_stretched_about_their_mean_where_nothing_was_seen():
    samples = torch.randn(20, 6, 2, 3)
    seen = torch.rand(6, 2, 3) < 0.5
    factors = torch.rand(ROWS, 3) + 0.5
    found = stretched(samples, seen, factors)
    assert torch.equal(found[:, seen], samples[:, seen])
    torch.testing.assert_close(found.mean(0), samples.mean(0))
    row, sensor = rows_of(seen), torch.arange(3).expand(6, 2, 3)
    share = found.std(0)[~seen] / samples.std(0)[~seen]
    torch.testing.assert_close(share, factors[row[~seen], sensor[~seen]])
    assert stretched(samples, seen, None) is samples


# ------------------------------------------------------------------------------------- calibrated


HOW = {"num_samples": 50, "warmup_steps": 5, "num_chains": 1, "num_particles": 5}


def coverage(ssl, x, u):
    hidden = hidden_gaps(torch.full((x.shape[1],), len(x)), tuple(x.shape), 0)
    low, high = ssl.impute(x.masked_fill(hidden, torch.nan), inputs=u, **HOW).interval(LEVEL)
    return float(((low <= x) & (x <= high))[hidden].double().mean())


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("share", [0.2, 4.0])
@pytest.mark.usefixtures("float32")
def test_intervals_hold_as_often_as_they_say(share):
    """Of a model that takes R for ``share`` of what it is.

    Series are independent, but numbers of one are not: of 200 series the share that is held has a
    standard deviation of at most sqrt(.9 * .1 / 200) = .021, as if those of a series agreed wholly;
    the factors have as much, which makes .03, and |z| < 3.
    """
    pyro.set_rng_seed(0)
    ssl = world("diagonal")[0].float()  # in which sweeps are compiled
    u = torch.randn(T, U)
    train, test = (ssl.simulate(T, 200, inputs=u).x for _ in range(2))
    ssl.covariance = ssl.covariance * share
    before = coverage(ssl, test, u)
    assert before < 0.75 if share < 1 else before > 0.8
    ssl.calibrate(train, inputs=u, level=LEVEL, **HOW)
    after = coverage(ssl, test, u)
    assert abs(after - LEVEL) < 3 * 0.03


def small():
    pyro.set_rng_seed(0)
    ssl = GaussianSSL(1, hidden_size=4, noise="diagonal")
    x = torch.randn(10, 3, 2)
    ssl.fit(x, num_epochs=1, num_paths=1, disable_progbar=True)
    return ssl, x


QUICK = {"num_samples": 4, "warmup_steps": 1, "num_chains": 2, "num_particles": 3}


@pytest.mark.stage("system")
def test_factors_are_kept_saved_and_forgotten_by_a_fit(tmp_path):
    ssl, x = small()
    assert ssl.gap_factors is None
    found = ssl.calibrate(x, **QUICK)
    assert found.shape == (ROWS, 2) and torch.equal(ssl.gap_factors, found)
    ssl.save(tmp_path / "saved")
    again = GaussianSSL.load(tmp_path / "saved")
    assert torch.equal(again.gap_factors, found)
    copy = GaussianSSL(**ssl.config)
    copy.load_state_dict(ssl.state_dict())
    assert torch.equal(copy.gap_factors, found)
    x[5:9, :, 1] = torch.nan
    pyro.set_rng_seed(1)
    wide = ssl.impute(x, **QUICK)
    pyro.set_rng_seed(1)
    same = again.impute(x, **QUICK)
    assert torch.equal(wide.samples.nan_to_num(), same.samples.nan_to_num())
    ssl.fit(x, num_epochs=1, num_paths=1, disable_progbar=True)
    assert ssl.gap_factors is None


@pytest.mark.stage("system")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("noise", ["full", "diagonal"])
def test_every_kind_of_noise_lengths_and_mask(noise, dtype):
    pyro.set_rng_seed(0)
    ssl = GaussianSSL(1, hidden_size=4, noise=noise).to(dtype)
    x, lengths = torch.randn(12, 3, 2), [12, 5, 1]
    mask = torch.rand(12, 3, 2) < 0.9
    mask[0] = True
    how = {"num_epochs": 1, "num_paths": 1, "disable_progbar": True}
    ssl.fit(x, lengths, mask=mask, **how)
    found = ssl.calibrate(x, lengths, mask=mask, **QUICK)
    assert found.dtype == torch.double and (found > 0).all()
    assert ssl.gap_factors.dtype == dtype


@pytest.mark.parametrize("level", [0.0, 1.0, 90])
def test_a_level_is_a_probability(level):
    ssl, x = small()
    with pytest.raises(ValueError, match=r"found level=.*write score\(x, horizon, level=0.9\)"):
        ssl.score(x, 2, level=level)
    with pytest.raises(ValueError, match=r"found level=.*write calibrate\(x, level=0.9\)"):
        ssl.calibrate(x, level=level, **QUICK)
    assert ssl.gap_factors is None


@pytest.mark.parametrize("emission", ["bernoulli", "poisson"])
def test_flags_and_counts_are_not_stretched(emission):
    pyro.set_rng_seed(0)
    ssl, x = GaussianSSL(1, hidden_size=4, emission=emission), torch.ones(9, 3, 2)
    x[::2] = 0.0
    ssl.fit(x, num_epochs=1, num_paths=1, disable_progbar=True)
    with pytest.raises(ValueError, match=f'emission is "{emission}".*write impute'):
        ssl.calibrate(x, **QUICK)
    assert ssl.gap_factors is None


def test_an_interval_has_two_ends():
    ssl, x = small()
    with pytest.raises(ValueError, match="num_samples is 1, expected an integer from 2"):
        ssl.calibrate(x, **QUICK | {"num_samples": 1})
    assert ssl.gap_factors is None


@pytest.mark.stage("system")
def test_calibrated_again_it_starts_anew():
    ssl, x = small()
    pyro.set_rng_seed(1)
    first = ssl.calibrate(x, **QUICK)
    pyro.set_rng_seed(1)
    assert torch.equal(ssl.calibrate(x, **QUICK), first)


@pytest.mark.stage("system")
def test_numbers_with_outliers_are_calibrated_too():
    pyro.set_rng_seed(0)
    ssl, x = GaussianSSL(1, hidden_size=4, emission="student_t"), torch.randn(9, 3, 2)
    ssl.fit(x, num_epochs=1, num_paths=1, disable_progbar=True)
    assert (ssl.calibrate(x, **QUICK) > 0).all()
