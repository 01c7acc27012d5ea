"""Exact EM of linear-Gaussian models: it rises to where the exact likelihood has no gradient."""

import math

import pytest
import torch

from pyro_ssl.exact import LinearEmission, LinearGaussianEM, kalman_filter, kalman_smoother
from pyro_ssl.transitions import LinearGaussianTransition

T, B, E, U = 20, 5, 3, 2


def planted(num_sequences=B, num_steps=T, driven=False, seed=0):
    """A chain of two latents behind three sensors, its data and its inputs."""
    torch.manual_seed(seed)
    given = {"matrix": torch.tensor([[0.9, 0.2], [-0.2, 0.9]]), "scale": torch.tensor([0.3, 0.5])}
    u = None
    if driven:
        G = torch.tensor([[0.5, -0.2], [0.1, 0.4]])
        given |= {"input_matrix": G, "input_size": U}
        u = torch.randn(num_steps, num_sequences, U) + 0.5
    chain = LinearGaussianTransition(2, **given).requires_grad_(False)
    z = [torch.randn(num_sequences, 2)]
    for t in range(1, num_steps):
        drift = chain.drift(None if u is None else u[t])
        z.append(z[-1] @ chain.matrix.T + drift + chain.scale * torch.randn(num_sequences, 2))
    emission = LinearEmission(
        torch.tensor([[1.0, 0.0], [0.5, 1.0], [-1.0, 0.7]]),
        torch.tensor([5.0, -1.0, 0.0]),
        torch.diag(torch.tensor([0.1, 0.3, 0.2])),
    )
    noise = emission.covariance.diagonal().sqrt() * torch.randn(num_steps, num_sequences, E)
    return chain, emission, torch.stack(z) @ emission.matrix.T + emission.offset + noise, u


def spoiled(x):
    """Holes, a sensor that is out for a whole sequence, and steps without any sensor."""
    x = x.clone()
    x[torch.rand(x.shape) < 0.2] = torch.nan
    x[:, 1, 0] = x[3:6, 2] = torch.nan
    return x


def problem(kind):
    """Data of one kind, as arguments of ``step``."""
    _, _, x, u = planted(driven=kind == "driven")
    if kind == "missing":
        return {"x": spoiled(x)}
    if kind == "ragged":
        return {"x": spoiled(x), "lengths": torch.tensor([T, 1, 7, T, 2])}
    if kind == "driven":
        return {"x": spoiled(x), "inputs": u}
    if kind == "shared":
        return {"x": x, "inputs": torch.randn(T, U)}
    return {"x": x[:, :1] if kind == "single" else x}


KINDS = ("whole", "missing", "ragged", "driven", "shared", "single")


@pytest.mark.parametrize(
    "kind, dim",
    [*zip(KINDS, (1, 2, 4) * 2, strict=True)]
    + [
        pytest.param(kind, dim, marks=pytest.mark.stage("nightly"))
        for i, kind in enumerate(KINDS)
        for j, dim in enumerate((1, 2, 4))
        if i % 3 != j
    ],
)
def test_likelihood_rises_at_every_step(kind, dim):
    given, em = problem(kind), LinearGaussianEM(dim, smoothing=0.0)
    losses = torch.tensor([em.step(**given) for _ in range(15)])
    assert (losses.diff() < 1e-8).all() and losses[-1] < losses[0] - 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_minus_the_exact_log_likelihood_of_what_is_returned(kind):
    """In the returned coordinates and units, before the step that reports it."""
    given, em = problem(kind), LinearGaussianEM(2)
    em.step(**given)
    log_p = em.log_likelihood(**given)
    rest = {name: value for name, value in given.items() if name != "x"}
    found = kalman_filter(em.transition, em.emission, given["x"], **rest)
    assert torch.equal(log_p, found.log_likelihood)
    assert em.step(**given) == pytest.approx(-float(log_p.sum()), rel=1e-9)


@pytest.mark.stage("system")
def test_exact_likelihood_has_no_gradient_where_em_ends():
    """By automatic differentiation through the Kalman filter, in all parameters at once."""
    _, _, x, u = planted(20, 15, driven=True)
    x, lengths = spoiled(x), torch.randint(3, 16, (20,))
    em = LinearGaussianEM(1, smoothing=0.0)
    given = {"inputs": u, "lengths": lengths}
    em.fit(x, **given, num_steps=600, tolerance=0.0, disable_progbar=True)
    chain, emission = em.transition, em.emission
    log_noise = emission.covariance.diagonal().log()
    parts = [chain.matrix, chain.offset, chain.log_scale, chain.input_matrix]
    parts += [chain.initial_mean, chain.log_initial_scale, *emission[:2], log_noise]
    parts = [part.requires_grad_() for part in parts]
    emission = emission._replace(covariance=torch.diag(log_noise.exp()))
    total = kalman_filter(chain, emission, x, **given).log_likelihood.sum()
    for gradient in torch.autograd.grad(total, parts):
        assert gradient.abs().max() < 1e-4


@pytest.mark.stage("system")
def test_smoothing_is_a_sequence_that_starts_at_zero_with_variance_one():
    """The start of a single sequence would be learned as certain without it."""
    x = planted(1)[2]
    found = []
    for smoothing in (0.0, 1.0):
        em = LinearGaussianEM(2, smoothing=smoothing)
        em.fit(x, num_steps=40, tolerance=0.0, disable_progbar=True)
        found.append(em.transition.initial_scale)
    assert found[0].max() < 0.1 and found[1].min() > 0.3


@pytest.mark.parametrize(
    "dtype, unit, level, tolerance",
    [
        *[(torch.float64, unit, 0.0, 1e-9) for unit in (1e-12, 1e12)],
        *[(torch.float64, 1e6, level, 1e-6) for level in (1e3, -1e7)],
        *[(torch.float32, unit, level, 2e-3) for unit in (1e-9, 1e9) for level in (0.0, 1e2)],
    ],
)
def test_units_and_origins_do_not_matter(dtype, unit, level, tolerance):
    given = problem("missing")
    units = unit * torch.tensor([1.0, 1e-3, 1e3])
    fits = []
    for x in (given["x"].to(dtype), ((given["x"] + level) * units).to(dtype)):
        em = LinearGaussianEM(2)
        loss = em.fit(x, num_steps=10, tolerance=0.0, disable_progbar=True)[-1]
        assert em.emission.matrix.dtype == em.transition.scale.dtype == dtype
        fits.append((em, loss))
    (one, loss), (other, scaled) = fits
    seen = (~given["x"].isnan()).sum((0, 1)) * units.log()
    assert scaled - float(seen.sum()) == pytest.approx(loss, rel=10 * tolerance)
    near = {"rtol": tolerance, "atol": tolerance}
    matrix = other.emission.matrix.double() / units.unsqueeze(-1)
    torch.testing.assert_close(matrix, one.emission.matrix.double(), **near)
    torch.testing.assert_close(other.transition.matrix, one.transition.matrix, **near)


@pytest.mark.stage("system")
def test_latents_are_in_the_documented_coordinates():
    given, em = problem("ragged"), LinearGaussianEM(3)
    em.fit(**given, num_steps=100, tolerance=0.0, disable_progbar=True)
    chain, emission = em.transition, em.emission
    units = torch.stack([v[~v.isnan()].std() for v in given["x"].flatten(0, 1).unbind(-1)])
    C = emission.matrix / units.unsqueeze(-1)
    assert (C.gather(0, C.abs().argmax(0, keepdim=True)) > 0).all()
    assert (chain.scale.diff() >= 0).all()
    lengths = given["lengths"]
    found = kalman_smoother(em.transition, em.emission, **given)
    within = torch.arange(T).unsqueeze(-1) < lengths
    z, P = found.mean[within], found.covariance[within].diagonal(dim1=-2, dim2=-1)
    # The moments are those under the law before the last step, which moved it a little.
    assert z.mean(0).abs().max() < 0.05
    assert (z.var(0, correction=0) + P.mean(0) - 1.0).abs().max() < 0.05


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("driven", [False, True])
def test_finds_the_planted_model(driven):
    """On 200 new sequences, as likely as under the truth to within .01 nats a number.

    200 sequences have 12,000 numbers, and the fit about 30 parameters, which cost 15 nats.
    """
    chain, emission, x, u = planted(200, driven=driven)
    _, _, new, new_u = planted(200, driven=driven, seed=1)
    em = LinearGaussianEM(2)
    em.fit(spoiled(x), inputs=u, num_steps=150, tolerance=1e-6, disable_progbar=True)
    found = em.log_likelihood(new, inputs=new_u).sum()
    best = kalman_filter(chain, emission, new, inputs=new_u).log_likelihood.sum()
    assert (best - found) / new.numel() < 0.01
    ours, true = (torch.linalg.eigvals(c.matrix).abs().max() for c in (em.transition, chain))
    assert abs(float(ours - true)) < 0.05


def test_what_is_masked_is_as_what_is_nan():
    x = planted()[2]
    there = torch.rand(x.shape) < 0.8
    one, other = LinearGaussianEM(2), LinearGaussianEM(2)
    for _ in range(3):
        assert one.step(x.masked_fill(~there, torch.nan)) == other.step(x, mask=there)


def test_a_fit_goes_on_where_it_ended():
    x, one, other = planted()[2], LinearGaussianEM(2), LinearGaussianEM(2)
    losses = one.fit(x, num_steps=6, tolerance=0.0, disable_progbar=True)
    parts = [other.fit(x, num_steps=3, tolerance=0.0, disable_progbar=True) for _ in range(2)]
    assert losses == parts[0] + parts[1]


def test_a_fit_ends_where_nothing_is_gained():
    x, em = planted()[2], LinearGaussianEM(1)
    losses = em.fit(x, num_steps=5000, tolerance=1e-4, disable_progbar=True)
    assert len(losses) < 500
    assert losses[-2] - losses[-1] < 1e-4 * x.numel() <= losses[-3] - losses[-2]


def test_bad_input_is_told():
    em, x = LinearGaussianEM(2), planted()[2]
    with pytest.raises(RuntimeError, match="Nothing is fitted yet; write em.fit"):
        em.transition  # noqa: B018
    with pytest.raises(ValueError, match="smoothing is -1, expected pseudo-sequences"):
        LinearGaussianEM(2, smoothing=-1)
    with pytest.raises(ValueError, match=r"1 of 3 sensors were never .*; write x\[..., \[0, 2\]\]"):
        em.fit(x.index_fill(2, torch.tensor(1), math.nan))
    with pytest.raises(ValueError, match=r"x has shape \(20, 3\)"):
        em.fit(x[:, 0])
    em.step(x)
    with pytest.raises(ValueError, match=r"x has shape \(20, 5, 2\), expected \(T, B, 3\)"):
        em.step(x[..., :2])
    with pytest.raises(ValueError, match="input_size=0 inputs, but inputs were given"):
        em.step(x, inputs=torch.randn(T, U))
