"""Noise of low rank: what sensors share has few dimensions."""

import math

import pyro
import pytest
import torch

from pyro_ssl import GaussianSSL
from pyro_ssl.models.gaussian_noise import OWN, form_of, low_rank

E = 6
QUICK = {"num_epochs": 2, "num_paths": 1, "disable_progbar": True}


def covariance(rank, seed=0):
    generator = torch.Generator().manual_seed(seed)
    L = torch.randn(E, rank, generator=generator)
    return L @ L.T + torch.diag(torch.rand(E, generator=generator) + 0.3)


def log_likelihood(S, R):
    """Of draws of covariance S, under R, up to a constant."""
    return float(-0.5 * (torch.logdet(R) + torch.linalg.solve(R, S).trace()))


@pytest.mark.parametrize("rank", [1, 2])
def test_what_has_the_form_is_found(rank):
    R = covariance(rank)
    torch.testing.assert_close(low_rank(R, rank), R, rtol=2e-2, atol=2e-2)


@pytest.mark.stage("system")
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_no_covariance_of_the_form_near_it_is_likelier(rank, seed):
    """Gradient ascent from there, over L and the logarithms of Ψ, gains next to nothing."""
    root = torch.randn(E, E, generator=torch.Generator().manual_seed(seed))
    S = root @ root.T / E + 0.1 * torch.eye(E)
    found = low_rank(S, rank)
    torch.testing.assert_close(found.diagonal(), S.diagonal())
    reached = log_likelihood(S, found)
    values, vectors = torch.linalg.eigh(found - torch.diag(own_of(found, rank)))
    L = (vectors[:, -rank:] * values[-rank:].clamp(min=0.0).sqrt()).requires_grad_()
    log_own = own_of(found, rank).log().requires_grad_()
    optim = torch.optim.Adam([L, log_own], lr=1e-3)
    for _ in range(300):
        R = L @ L.T + torch.diag(log_own.exp())
        loss = 0.5 * (torch.logdet(R) + torch.linalg.solve(R, S).trace())
        optim.zero_grad()
        loss.backward()
        optim.step()
    assert -float(loss.detach()) - reached < 0.02
    assert reached > log_likelihood(S, S.diagonal().diag())


def own_of(R, rank):
    """Ψ of L Lᵀ + Ψ, whose first E - rank eigenvalues after Ψ^{-1/2} on both sides are 1."""
    own = 0.5 * R.diagonal()
    for _ in range(200):
        root = own.sqrt()
        values, vectors = torch.linalg.eigh(R / root / root.unsqueeze(-1))
        loading = root.unsqueeze(-1) * vectors[:, -rank:] * (values[-rank:] - 1).clamp(min=0).sqrt()
        own = (R - loading @ loading.T).diagonal().clamp(min=1e-4)
    return own


def test_a_unit_of_each_sensor_makes_no_difference():
    R, unit = covariance(3), torch.logspace(-3, 3, E)
    scaled = low_rank(R * unit * unit.unsqueeze(-1), 1)
    torch.testing.assert_close(scaled / unit / unit.unsqueeze(-1), low_rank(R, 1))


@pytest.mark.parametrize("rank", [1, E, 2 * E])
def test_it_is_a_covariance_also_where_r_is_none_of_full_rank(rank):
    a = torch.randn(E)
    found = low_rank(torch.outer(a, a) + 1e-9 * torch.eye(E), rank)
    assert (torch.linalg.eigvalsh(found) > 0).all()
    assert (found.diagonal() / a.square() < 1 + 2 * OWN).all()
    assert low_rank(torch.tensor([[2.0]]), rank).item() == pytest.approx(2.0, rel=2 * OWN)


def test_forms():
    R = covariance(3)
    assert torch.equal(form_of("full", None)(R), R)
    assert torch.equal(form_of("diagonal", None)(R), R.diagonal().diag())
    assert torch.equal(form_of("low-rank", 2)(R), low_rank(R, 2))


@pytest.mark.stage("system")
@pytest.mark.parametrize("holes", [False, True])
def test_a_fit_finds_noise_that_sensors_share(holes, tmp_path):
    """A disturbance of five of six sensors, beside a path that all see."""
    pyro.set_rng_seed(0)
    shared, T, B = torch.tensor([0.0, 1.0, -1.0, 1.0, 1.0, -1.0]), 40, 8
    z = 0.3 * torch.randn(T, B, 1).cumsum(0)
    x = z * torch.ones(E) + torch.randn(T, B, 1) * shared + 0.3 * torch.randn(T, B, E)
    if holes:
        x[torch.rand(x.shape) < 0.1] = torch.nan
    ssl = GaussianSSL(1, hidden_size=4, noise="low-rank", noise_rank=1)
    ssl.fit(x, loading=torch.ones(E, 1), num_epochs=4, num_paths=2, disable_progbar=True)
    R = ssl.covariance
    correlation = R / R.diagonal().sqrt() / R.diagonal().sqrt().unsqueeze(-1)
    assert (correlation[1:, 1:].abs() > 0.6).all()
    assert torch.equal(correlation[1:, 1:].sign(), torch.outer(shared[1:], shared[1:]))
    ssl.save(tmp_path / "saved")
    again = GaussianSSL.load(tmp_path / "saved")
    assert again.config == ssl.config and torch.equal(again.covariance, R)
    assert ssl.impute(x, num_samples=4, warmup_steps=1).x.isfinite().all()
    assert math.isfinite(float(ssl.score(x, 3, start=30, num_particles=20).crps.sum()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_rank": 2}, 'noise_rank is 2 beside noise="full".*noise="low-rank"'),
        ({"noise": "diagonal", "noise_rank": 1}, 'beside noise="diagonal"'),
        ({"noise": "low-rank", "noise_rank": 0}, "noise_rank is 0, expected"),
        ({"noise": "low-rank", "noise_rank": True}, "noise_rank is True, expected"),
        ({"noise": "low-rank", "noise_rank": 1.5}, "noise_rank is 1.5, expected"),
        ({"noise": "low_rank"}, 'noise is "low_rank", expected one of'),
        ({"noise": "low-rank", "emission": "poisson"}, 'noise is "low-rank" beside emission'),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        GaussianSSL(1, **options)
