"""GaussianSSL behind flags, counts and outliers: against quadrature, and what its fits find."""

import math
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import GaussianSSL
from pyro_ssl.exact import LinearEmission
from pyro_ssl.models.gaussian_family import DEGREES, FAMILIES
from pyro_ssl.models.gaussian_linear import start_around
from pyro_ssl.models.gaussian_reweighted import SPREAD, ReweightedRegression
from pyro_ssl.models.gaussian_sensors import Counts, Flags, Numbers
from pyro_ssl.reading.asks import BodyAsks
from pyro_ssl.transitions import LinearGaussianTransition
from tests.faults.digest import nothing_changes

OTHERS = ("bernoulli", "poisson", "student_t")
every_emission = pytest.mark.parametrize("emission", OTHERS)
T, B, E = 5, 2, 2
GRID = torch.linspace(-9.0, 9.0, 1201, dtype=torch.float64)
STEP = float(GRID[1] - GRID[0])


def law(emission, eta, scale=0.5):
    """Torch's own distribution of each sensor."""
    return {
        "gaussian": lambda: dist.Normal(eta, scale, validate_args=False),
        "bernoulli": lambda: dist.Bernoulli(logits=eta, validate_args=False),
        "poisson": lambda: dist.Poisson(eta.exp(), validate_args=False),
        "student_t": lambda: dist.StudentT(DEGREES, eta, scale, validate_args=False),
    }[emission]()


def world(emission, seed=0):
    """A linear chain in one dimension behind two sensors, with holes and a shorter series."""
    torch.manual_seed(seed)
    chain = LinearGaussianTransition(
        1,
        matrix=torch.tensor([[0.8]]),
        offset=torch.tensor([0.2]),
        scale=torch.tensor([0.6]),
        initial_mean=torch.tensor([-0.3]),
        initial_scale=torch.tensor([1.1]),
    )
    C, b = torch.tensor([[1.2], [-0.7]]), torch.tensor([0.3, 0.8])
    R = 0.25 * torch.eye(E) if emission == "student_t" else torch.eye(E)
    ssl = GaussianSSL(1, hidden_size=3, linear=True, emission=emission)
    start_around(ssl.transition, SimpleNamespace(transition=chain, emission=None))
    ssl._set_emission(LinearEmission(C, b, R))
    x = ssl.simulate(T, B).x
    x[1, 0, 0] = torch.nan
    x[2] = torch.nan
    mask = torch.ones(T, B, E, dtype=torch.bool)
    mask[3, 1, 1] = False
    return ssl.eval(), x, {"mask": mask, "lengths": torch.tensor([T, T - 1])}


def mean_of(emission, eta):
    return law(emission, eta).mean


def on_grid(emission, ssl, x, seen, num_later=0):
    """p(z_t | x_{1:t}), p(z_t | x), log p(x_t | x_{1:t-1}) on a grid, by the trapezoid rule."""
    chain, (C, b, _) = ssl.transition.around, ssl.emission
    eta = GRID.unsqueeze(-1) * C.squeeze(-1) + b  # (G, E)
    hidden = torch.zeros(num_later, *seen.shape[1:], dtype=torch.bool)
    seen = torch.cat([seen, hidden])
    x = torch.cat([x, torch.zeros(num_later, *x.shape[1:])])
    each = law(emission, eta).log_prob(torch.where(seen, x, 0.0).unsqueeze(2))  # (T, B, G, E)
    likelihood = torch.where(seen.unsqueeze(2), each, 0.0).sum(-1).exp()
    move = dist.Normal(0.8 * GRID + 0.2, 0.6).log_prob(GRID.unsqueeze(-1)).exp()  # to, from
    prior = dist.Normal(chain.initial_mean, chain.initial_scale).log_prob(GRID).exp()
    filtered, log_p, now = [], [], prior.expand(x.shape[1], -1)
    for t in range(len(x)):
        joint = now * likelihood[t]
        total = joint.sum(-1, keepdim=True) * STEP
        filtered.append(joint / total)
        log_p.append(total.log().squeeze(-1))
        now = filtered[-1] @ move.T * STEP
    after, smoothed = torch.ones_like(now), []
    for t in reversed(range(len(x))):
        joint = filtered[t] * after
        smoothed.insert(0, joint / (joint.sum(-1, keepdim=True) * STEP))
        after = (likelihood[t] * after) @ move * STEP
    return torch.stack(filtered), torch.stack(smoothed), torch.stack(log_p), eta


def moments(emission, density, eta):
    """Mean and variance of E[x | z], each ``(T, B, E)``."""
    mean = mean_of(emission, eta)
    first = density @ mean * STEP
    return first, density @ mean.square() * STEP - first.square()


# ------------------------------------------------------------------------------ against quadrature


@pytest.mark.stage("system")
@every_emission
def test_filter_and_evidence_are_those_of_quadrature(emission):
    """|z| < 6 with errors taken twice as large as for 4,000 independent draws.

    Evidence of a step: 0.06 in nats, six times its standard deviation over seeds.
    """
    ssl, x, given = world(emission)
    within = torch.arange(T).unsqueeze(-1) < given["lengths"]
    seen = x.isfinite() & given["mask"] & within.unsqueeze(-1)
    filtered, _, log_p, eta = on_grid(emission, ssl, x, seen)
    P = 4000
    found = ssl.filter(x, num_particles=P, **given)
    mean, variance = moments(emission, filtered, eta)
    assert ((found.mean - mean).abs() < 12 * (variance / P).sqrt())[within].all()
    spread = found.scale.square() / variance
    assert (spread.log().abs() < 24 * math.sqrt(2 / P))[within].all()  # rates have heavy tails
    evidence = ssl.log_likelihood(x, num_particles=P, **given)
    assert (evidence - log_p)[within].abs().max() < 0.06 and evidence[2].abs().max() < 1e-12


@pytest.mark.stage("statistical")
@every_emission
@pytest.mark.usefixtures("float32")
def test_smoothers_are_those_of_quadrature(emission):
    """4 chains of 90 sweeps; |z| < 6 with errors of 36 independent draws."""
    ssl, x, given = world(emission)
    within = torch.arange(T).unsqueeze(-1) < given["lengths"]
    seen = x.isfinite() & given["mask"] & within.unsqueeze(-1)
    _, smoothed, _, eta = on_grid(emission, ssl, x, seen)
    found = ssl.smooth(x, num_samples=90, **given)
    mean, variance = moments(emission, smoothed, eta)
    assert ((found.mean - mean).abs() < 6 * (variance / 36).sqrt())[within].all()


@every_emission
def test_forecasts_are_those_of_quadrature(emission):
    """Mean of E[x | z] and of x, share of draws up to its mean, and log score; |z| < 6."""
    ssl, x, given = world(emission)
    S, P = 3, 4000
    x, mask = x[:, :1], given["mask"][:, :1]
    filtered, _, _, eta = on_grid(emission, ssl, x, x.isfinite() & mask, S)
    later = filtered[T:]
    mean, variance = moments(emission, later, eta)
    found = ssl.forecast(x, S, mask=mask, num_particles=P)
    assert ((found.mean - mean).abs() < 12 * (variance / P).sqrt()).all()
    whole = later @ law(emission, eta).variance * STEP + variance
    assert ((found.samples.mean(0) - mean).abs() < 12 * (whole / P).sqrt()).all()
    truth = law(emission, eta[700]).sample().expand(S, 1, E)
    longer, hidden = torch.cat([x, truth]), torch.cat([mask, torch.ones_like(truth).bool()])
    scores = ssl.score(longer, S, mask=hidden, start=T, num_particles=P)
    each = law(emission, eta).log_prob(truth.unsqueeze(2)).exp()  # (S, 1, G, E)
    exact = ((later.unsqueeze(-1) * each).sum(2) * STEP).log().squeeze(1)
    assert (scores.log_score - exact).abs().max() < 0.06
    assert ssl.forecast(x, S, [0], num_particles=9).samples.shape == (9, S, 1, E)


@pytest.mark.stage("system")
@every_emission
def test_holes_are_filled_with_what_the_data_may_be(emission):
    ssl, x, given = world(emission)
    found = ssl.impute(x, num_samples=6, warmup_steps=1, num_chains=2, **given)
    seen = x.isfinite() & given["mask"]
    seen[T - 1, 1] = False
    assert torch.equal(found.x[seen], x[seen]) and found.x[T - 1, 1].isnan().all()
    assert FAMILIES[emission].good(found.samples[:, 2]).all()
    assert FAMILIES[emission].good(ssl.simulate(4, 3).x).all()


@every_emission
def test_draws_have_their_distribution(emission):
    """Of 20,000 draws, mean and second moment: within 5 standard errors."""
    family, eta, n = FAMILIES[emission], torch.tensor([-1.0, 0.4, 1.5]), 20_000
    R = 0.25 * torch.eye(3)
    family_mean = family.mean(eta)
    x = family.sample(family_mean.expand(n, 3), torch.zeros(3), R)
    exact = law(emission, eta)
    torch.testing.assert_close(family_mean, exact.mean)
    torch.testing.assert_close(family.log_prob(x, eta, R), exact.log_prob(x))
    assert ((x.mean(0) - exact.mean).abs() < 5 * (exact.variance / n).sqrt()).all()
    kept = x.clamp(-3.0, 3.0)  # of t, whose fourth moment is infinite
    again = exact.sample((n,)).clamp(-3.0, 3.0)
    apart = (kept.square().mean(0) - again.square().mean(0)).abs()
    assert (apart < 5 * (2 * again.square().var(0) / n).sqrt() + 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counts_of_rates_beyond_all_integers_are_the_rates(dtype):
    """As a forecast that extrapolates may have them; torch's own draws are negative there."""
    eta = torch.tensor([0.0, 45.0, 70.0], dtype=dtype)
    for x in (
        FAMILIES["poisson"].sample(eta.exp(), torch.zeros_like(eta), torch.eye(3)),
        Counts(eta, torch.ones(3, dtype=torch.bool)).sample(),
    ):
        assert (x >= 0).all() and torch.equal(x[1:], eta[1:].exp()) and x.dtype == dtype


def numbers(eta, there):
    return Numbers(eta, there, torch.full((E,), 0.5))


@pytest.mark.parametrize(
    "kind, emission", [(Flags, "bernoulli"), (Counts, "poisson"), (numbers, "gaussian")]
)
def test_sensors_are_independent_and_holes_say_nothing(kind, emission):
    """At points that all steps share, as when an emission is looked at, and at each its own."""
    x, there = law(emission, torch.zeros(4, 3, E)).sample(), torch.rand(4, 3, E) < 0.7
    for eta in (torch.randn(6, 1, 1, E), torch.randn(6, 4, 3, E), torch.randn(4, 3, E)):
        each = law(emission, eta).log_prob(x)
        torch.testing.assert_close(
            kind(eta, there).log_prob(x), torch.where(there, each, 0.0).sum(-1)
        )
    drawn = kind(torch.randn(3, E), there[0]).expand((5, 3)).sample((2,))
    assert drawn.shape == (2, 5, 3, E)


@pytest.mark.parametrize("shape", [(6, 1, 1, E), (6, 4, 3, E), (4, 3, E)])
def test_a_shift_of_numbers_is_a_place_of_their_own(shape):
    eta, shift, x = torch.randn(shape), torch.randn(4, 3, E), torch.randn(4, 3, E)
    there, scale = torch.rand(4, 3, E) < 0.7, torch.rand(E) + 0.5
    found = Numbers(eta, there, scale, shift)
    expected = Numbers((eta + shift).expand(found.log_prob(x).shape + (E,)), there, scale)
    torch.testing.assert_close(found.log_prob(x), expected.log_prob(x))


def test_numbers_of_little_noise_are_not_drowned():
    """Squares of a thousand standard deviations, in float32, from which the near ones are told."""
    x, away = 1.0 + 1e-3 * torch.randn(4, 3, E), 1e-3 * torch.randn(6, 1, 1, E)
    scale, there = torch.full((E,), 1e-3), torch.ones(4, 3, E).bool()
    exact = law("gaussian", 1.0 + away, scale).log_prob(x).sum(-1)
    found = Numbers((1.0 + away).float(), there, scale.float()).log_prob(x.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-3)


@every_emission
def test_sweeps_run_the_emission_again_without_the_body(emission, monkeypatch):
    """What the body computed at one step is replayed at the others: several times as fast."""
    found, take = [], BodyAsks._take

    def looked_at(self, *args):
        take(self, *args)
        found.append(self.refused)

    monkeypatch.setattr(BodyAsks, "_take", looked_at)
    rotation(emission).log_likelihood(planted(emission, 12, 2), num_particles=5)
    assert found == [None]


# --------------------------------------------------------------------------------- the M-step


def penalised(emission, weights, x, seen, z, start):
    """log p(x | z) with the prior, where latents are standardised, a mean over paths ``(M, N)``."""
    C, b, log_scale = weights
    at, unit = z.flatten(0, 1).mean(0), z.flatten(0, 1).std(0, correction=0)
    each = law(emission, z @ C.T + b, log_scale.exp()).log_prob(x)
    total = torch.where(seen, each, 0.0).sum((1, 2)).mean()
    moved = (b + C @ at) - (start.offset + start.matrix @ at)
    sd = x.new_ones(E)
    if emission == "student_t":  # priors go with the unit of x
        points = torch.where(seen, x, torch.nan)
        mean = points.nanmean(0)
        sd = ((points - mean).square().nansum(0) / (seen.sum(0) - 1)).sqrt()
    away = (C - start.matrix) * unit / sd.unsqueeze(-1)
    prior = (away / SPREAD[0]).square().sum() + (moved / sd / SPREAD[1]).square().sum()
    return total - 0.5 * prior


@every_emission
@pytest.mark.parametrize("learns", [(True, True), (False, True), (False, False)])
def test_the_estimate_is_where_the_penalised_likelihood_is_flat(emission, learns):
    """By autograd, of what is estimated; all else stays as it was, to the last bit."""
    M, N, D = 3, 60, 2
    z = 2.0 * torch.randn(M, N, D) + 1.0
    C, b = 0.3 * torch.randn(E, D), torch.tensor([0.2, 0.5])
    x = law(emission, z[0] @ C.T + b).sample()
    seen = torch.rand(N, E) < 0.8
    R = 0.3 * torch.eye(E) if emission == "student_t" else torch.eye(E)
    start = LinearEmission(C + 0.2, b - 0.3, R)
    given = FAMILIES[emission], torch.where(seen, x, torch.nan).unsqueeze(1), seen.unsqueeze(1), M
    regression = ReweightedRegression(*given, start, learns, 0.0)
    assert regression.num_observed == M * int(seen.any(-1).sum())
    found = regression.update(z, start, num_steps=300 if emission == "student_t" else 50)
    keep = seen.any(-1)
    weights = [found.matrix, found.offset, found.covariance.diagonal().log() / 2]
    weights = [value.clone().requires_grad_() for value in weights]
    x, seen, z = x[keep], seen[keep], z[:, keep]
    penalised(emission, weights, x, seen, z, start).backward()
    for value, learned, old in zip(weights, learns, (start.matrix, start.offset), strict=False):
        if learned:
            assert value.grad.abs().max() < 1e-4 * N
        else:
            assert torch.equal(value, old)
    if emission == "student_t":
        assert weights[2].grad.abs().max() < 1e-4 * N
    else:
        assert torch.equal(found.covariance, R)


@pytest.mark.stage("system")
def test_flags_that_are_always_on_have_finite_odds():
    x = torch.bernoulli(torch.full((60, 2, 3), 0.5))
    x[..., 1] = 1.0
    ssl = GaussianSSL(1, hidden_size=2, emission="bernoulli")
    ssl.fit(x, num_epochs=3, num_paths=1, disable_progbar=True)
    assert 3.0 < ssl.offset[1] < 12.0 and ssl.loading.abs().max() < 5.0


def test_outliers_do_not_move_the_start():
    x = torch.randn(100, 1, 2).cumsum(0)
    far = x.clone()
    far[7, 0, 1] = 1e6
    models = [GaussianSSL(2, hidden_size=2, emission="student_t") for _ in range(2)]
    for ssl, data in zip(models, (x, far), strict=True):
        ssl.start(data)
    one, other = (ssl.emission for ssl in models)
    torch.testing.assert_close(one.offset, other.offset, rtol=0.1, atol=0.5)
    ratio = other.covariance.diagonal() / one.covariance.diagonal()
    assert (ratio.log().abs() < math.log(2.0)).all()


# ---------------------------------------------------------------------------------------- fits


def rotation(emission, num_sensors=8):
    """A rotation in the plane behind eight sensors."""
    chain = LinearGaussianTransition(
        2,
        matrix=torch.tensor([[0.9, -0.3], [0.3, 0.9]]),
        offset=torch.zeros(2),
        scale=torch.full((2,), 0.3),
        initial_mean=torch.zeros(2),
        initial_scale=torch.ones(2),
    )
    C = torch.randn(num_sensors, 2, generator=torch.Generator().manual_seed(3))
    R = 0.25 if emission == "student_t" else 1.0
    ssl = GaussianSSL(2, hidden_size=2, linear=True, emission=emission)
    start_around(ssl.transition, SimpleNamespace(transition=chain, emission=None))
    b = torch.full((num_sensors,), 0.3)
    ssl._set_emission(LinearEmission(C, b, R * torch.eye(num_sensors)))
    return ssl.eval()


def planted(emission, num_steps=50, num_series=8, seed=1):
    """Data of it."""
    torch.manual_seed(seed)
    return rotation(emission).simulate(num_steps, num_series).x


def nll(ssl, x):
    torch.manual_seed(0)
    return -float(ssl.log_likelihood(x, num_particles=200).mean())


FIT = {"num_paths": 2, "batch_size": 4, "num_valid_particles": 30, "disable_progbar": True}


@pytest.mark.stage("statistical")
@every_emission
@pytest.mark.usefixtures("float32")
def test_fits_are_better_than_their_start_on_held_out_data(emission):
    """By 0.05 nats of a step; flags, which tell least, gained 0.15 in six epochs of a trial."""
    x, held_out = planted(emission), planted(emission, seed=2)
    pyro.set_rng_seed(0)
    ssl = GaussianSSL(2, hidden_size=8, emission=emission)
    ssl.start(x)
    before = nll(ssl, held_out)
    ssl.fit(x, valid=(held_out,), num_epochs=6, **FIT)
    assert nll(ssl, held_out) < before - 0.05


@pytest.mark.stage("statistical")
@every_emission
@pytest.mark.usefixtures("float32")
def test_a_linear_fit_finds_what_was_planted(emission):
    """C up to coordinates of the latents, the noise, and nearly the nll of the truth."""
    x, held_out = planted(emission), planted(emission, seed=2)
    pyro.set_rng_seed(0)
    ssl, truth = GaussianSSL(2, hidden_size=4, linear=True, emission=emission), rotation(emission)
    ssl.fit(x, valid=(held_out,), num_epochs=4, linear_steps=30, **FIT)
    assert nll(ssl, held_out) < nll(truth, held_out) + 0.2
    bases = [torch.linalg.qr(model.loading).Q for model in (ssl, truth)]
    assert torch.linalg.svdvals(bases[0].T @ bases[1]).min() > 0.85
    if emission == "student_t":
        assert (ssl.covariance.diagonal().sqrt() / 0.5).log().abs().max() < math.log(1.4)


@every_emission
def test_save_load_and_tables(emission, tmp_path):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(planted(emission, 15, 1)[:, 0, :3].numpy(), columns=list("abc"))
    ssl = GaussianSSL(1, hidden_size=3, emission=emission, linear=True)
    ssl.fit(table, num_epochs=2, num_paths=1, linear_steps=2, disable_progbar=True)
    assert math.isnan(ssl.history[0].loss) and math.isfinite(ssl.history[1].loss)
    ssl.save(tmp_path / "model")
    copy = GaussianSSL.load(tmp_path / "model")
    assert copy.config["emission"] == emission and copy.config["noise"] == "diagonal"
    found = []
    for model in (ssl, copy):
        torch.manual_seed(0)
        found.append(model.forecast(table, 2, num_particles=10))
    assert torch.equal(found[0].samples, found[1].samples)
    assert list(found[1].to_frame()["b"].columns) == ["mean", "low", "high"]
    assert FAMILIES[emission].good(found[0].samples).all()


@pytest.mark.stage("system")
def test_a_loading_that_is_given_stays():
    x = planted("poisson", 15, 2)[..., :2]
    ssl, C = GaussianSSL(2, hidden_size=2, emission="poisson"), torch.eye(2)
    how = {"num_epochs": 2, "num_paths": 1, "disable_progbar": True}
    ssl.fit(x, loading=C, offset=torch.ones(2), **how)
    assert torch.equal(ssl.loading, C) and torch.equal(ssl.offset, torch.ones(2))
    ssl.fit(x, loading=C, **how)
    assert torch.equal(ssl.loading, C) and not torch.equal(ssl.offset, torch.ones(2))
    ssl.fit(x, loading=C, learn_loading=True, **how)
    assert not torch.equal(ssl.loading, C)


# ---------------------------------------------------------------------------------------- errors

COUNTS = torch.tensor([[[0.0, 3.0]], [[2.0, 1.0]], [[1.0, 4.0]]])


@pytest.mark.parametrize(
    "emission, x, told",
    [
        ("poisson", COUNTS - 1.0, r"x holds -1 at step 0 of series 0, sensor 0.*expected counts"),
        ("poisson", COUNTS + 0.5, r'x holds 0.5 at .*write .*emission="gaussian"'),
        ("bernoulli", COUNTS, r'x holds 3 at step 0 .*sensor 1.*write .*emission="poisson"'),
        ("bernoulli", COUNTS / 4.0, r'0 or 1, as emission="bernoulli".*emission="gaussian"'),
    ],
)
def test_data_of_another_kind_are_refused(emission, x, told):
    ssl = GaussianSSL(1, hidden_size=2, emission=emission)
    with nothing_changes(modules=[ssl]), pytest.raises(ValueError, match=told):
        ssl.fit(x, num_epochs=1, disable_progbar=True)
    good = (COUNTS > 1).double()
    with nothing_changes(modules=[ssl]), pytest.raises(ValueError, match=r"valid=\): x holds"):
        ssl.fit(good, valid=(x,), num_epochs=1, disable_progbar=True)
    ssl.start(good)
    for call in (ssl.filter, ssl.smooth, ssl.log_likelihood, ssl.impute):
        with pytest.raises(ValueError, match=told):
            call(x)
    assert ssl.filter(good.masked_fill(good == 1, torch.nan)).mean.isfinite().all()


def test_wrong_use_is_told():
    with pytest.raises(ValueError, match=r'noise is "full" beside emission="poisson".*write'):
        GaussianSSL(1, emission="poisson", noise="full")
    with pytest.raises(ValueError, match='emission is "gamma", expected one of'):
        GaussianSSL(1, emission="gamma")
    with pytest.raises(ValueError, match=r'sensor 1 \("b"\)'):
        pd = pytest.importorskip("pandas")
        table = pd.DataFrame(COUNTS[:, 0].numpy(), columns=["a", "b"])
        GaussianSSL(1, emission="bernoulli").fit(table)
    with pytest.raises(ValueError, match="loading or offset was given to a linear model"):
        ssl = GaussianSSL(1, emission="poisson", linear=True)
        ssl.fit(COUNTS, loading=torch.ones(2, 1))
