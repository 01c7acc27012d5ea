"""The methods that ``curves.py`` compares: all fit (T, 1, 2) points, and are scored in one way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal, init_to_value
from pyro.optim import Adam
from torch import Tensor

from pyro_ssl import ssl_transition
from pyro_ssl.datasets import noisy_curve
from pyro_ssl.exact import LinearEmission, kalman_filter
from pyro_ssl.models import GaussianSSL, crps
from pyro_ssl.transitions import GaussianLSTMTransition, LinearGaussianTransition

TRAIN, TEST, NOISE, H = 100, 40, 0.3, 32

__all__ = ["METHODS", "NOISE", "TEST", "TRAIN", "Method", "fit_particle_gibbs", "run"]


class Predictions(NamedTuple):
    """Of one sequence of T points: ``place`` (T, 2) estimates the curve at t.

    ``log_likelihood`` (T,) log p(x_t | x_{1:t-1}); ``noise`` (2,) the diagonal of R; ``forecast``
    (40, 2) the mean of the points to come, given the first 100, ``draws`` (N, 40, 2) of them, and
    ``beyond`` (40,) where the forecast says that it extrapolates, if it does.
    """

    place: Tensor
    log_likelihood: Tensor
    noise: Tensor
    forecast: Tensor
    draws: Tensor
    beyond: Tensor | None = None


class Method(NamedTuple):
    """A way to learn from the first 100 points, to be scored on all 140."""

    title: str
    run: Callable[[Tensor], Predictions]


def run(method: str, kind: str, seed: int) -> dict[str, float | list[float]]:
    """Fit one method to one curve, and score it."""
    curve = noisy_curve(kind, num_steps=TRAIN + TEST, noise=NOISE, seed=seed)
    torch.manual_seed(seed)
    started = time.perf_counter()
    found = METHODS[method].run(curve.x)
    seconds = time.perf_counter() - started
    z, x = curve.z.squeeze(1), curve.x.squeeze(1)
    square = (found.place - z).square()
    low, high = found.draws.quantile(0.05, 0), found.draws.quantile(0.95, 0)
    covered = ((low < x[TRAIN:]) & (x[TRAIN:] < high)).double().mean(-1)
    beyond = torch.zeros(TEST) if found.beyond is None else found.beyond.double()
    return {
        "rmse": float(square.mean().sqrt()),
        "rmse_train": float(square[:TRAIN].mean().sqrt()),
        "rmse_test": float(square[TRAIN:].mean().sqrt()),
        "log_likelihood": float(found.log_likelihood[TRAIN:].sum()),
        "noise": found.noise.tolist(),
        "noise_drawn": (x - z)[:TRAIN].square().mean(0).tolist(),
        "forecast_rmse": float((found.forecast - z[TRAIN:]).square().mean().sqrt()),
        "forecast_crps": float(crps(found.draws, x[TRAIN:]).mean()),
        "coverage": float(covered.mean()),
        "beyond": float(beyond.mean()),
        "seconds": seconds,
    }


# ------------------------------------------------------------------------------------- the SSLs


def fit_particle_gibbs(x: Tensor) -> GaussianSSL:
    """Fit as a user would, with the defaults."""
    ssl = GaussianSSL(dim=2, hidden_size=H)
    ssl.fit(x, disable_progbar=True)
    return ssl


def fit_factored(x: Tensor) -> GaussianSSL:
    """The same with one particle: z_t given z_{1:t-1} and x_t, without later observations."""
    ssl = GaussianSSL(dim=2, hidden_size=H)
    ssl.fit(x, inference="smc", num_particles=1, disable_progbar=True)
    return ssl


def fit_svi(x: Tensor, num_steps: int = 1500) -> GaussianSSL:
    """The same model by Pyro's SVI with an AutoNormal guide over the path; R is a parameter.

    The guide starts at a moving average of the points.
    """
    ssl = GaussianSSL(dim=2, hidden_size=H)
    ssl.start(x)
    C, b, R = ssl.emission
    padded = torch.cat([x[:1].expand(4, -1, -1), x, x[-1:].expand(4, -1, -1)])
    smooth = padded.unfold(0, 9, 1).mean(-1)
    z = torch.linalg.solve(C, (smooth - b).unsqueeze(-1)).squeeze(-1)

    def model(x: Tensor) -> None:
        pyro.module("transition", ssl.transition)
        noise = pyro.param("noise", R.diagonal(), constraint=dist.constraints.positive)
        with pyro.plate("sequences", x.shape[1]):
            for t, z in ssl_transition("z", ssl.transition, len(x)):
                seen = dist.Normal(z @ C.T + b, noise.sqrt()).to_event(1)
                pyro.sample("x", seen, obs=x[t])

    with pyro.get_param_store().scope():
        guide = AutoNormal(
            pyro.poutine.block(model, expose=["z"]),
            init_loc_fn=init_to_value(values={"z": z.transpose(0, 1)}),
            init_scale=0.1,
        )
        svi = SVI(model, guide, Adam({"lr": 0.01}), Trace_ELBO())
        ssl.transition.train()
        for _ in range(num_steps):
            svi.step(x)
        ssl.transition.eval()
        ssl.covariance = torch.diag(pyro.param("noise").detach())
    return ssl


def of_ssl(fit: Callable[[Tensor], GaussianSSL]) -> Callable[[Tensor], Predictions]:
    """The predictions of a fitted SSL, by a particle filter."""

    def predict(x: Tensor) -> Predictions:
        ssl = fit(x[:TRAIN])
        forecast = ssl.forecast(x[:TRAIN], TEST)
        return Predictions(
            ssl.filter(x).mean.squeeze(1),
            ssl.log_likelihood(x).squeeze(1),
            ssl.emission[2].diagonal(),
            forecast.mean.squeeze(1),
            forecast.samples.squeeze(2),
            None if forecast.outside is None else forecast.extrapolates.squeeze(1),
        )

    return predict


# ------------------------------------------------------------------------------------- rivals


def kalman(dim: int) -> Callable[[Tensor], Predictions]:
    """A linear-Gaussian model, its exact likelihood maximised; with D=4, place and velocity.

    L-BFGS maximises the likelihood that EM would.
    """

    def predict(x: Tensor) -> Predictions:
        transition = LinearGaussianTransition(dim)
        C = torch.eye(2, dim)
        d = x[:TRAIN].mean((0, 1)).requires_grad_()
        log_noise = torch.full((2,), math.log(0.1)).requires_grad_()
        with torch.no_grad():
            transition.log_scale.fill_(math.log(0.1))
            if dim == 4:
                transition.matrix.add_(torch.eye(4).roll(2, 1).triu())  # z + v
                transition.log_scale[2:] = math.log(0.01)
            transition.initial_mean[:2] = (x[0, 0] - d)[:2]

        def filtered(x: Tensor):
            return kalman_filter(transition, LinearEmission(C, d, torch.diag(log_noise.exp())), x)

        free = [*transition.parameters(), d, log_noise]
        optimiser = torch.optim.LBFGS(free, max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            value = -filtered(x[:TRAIN]).log_likelihood.sum() / TRAIN
            value.backward()
            return value

        optimiser.step(loss)
        with torch.no_grad():
            found = filtered(x)
            mean, covariance, steps = found.mean[TRAIN - 1, 0], found.covariance[TRAIN - 1, 0], []
            A, Q = transition.matrix, torch.diag(transition.scale.square())
            for _ in range(TEST):
                mean, covariance = A @ mean + transition.offset, A @ covariance @ A.T + Q
                spread = (C @ covariance @ C.T).diagonal() + log_noise.exp()
                steps.append(torch.stack([C @ mean + d, spread.sqrt()]))
            ahead, spread = torch.stack(steps, 1)
            return Predictions(
                found.mean.squeeze(1) @ C.T + d,
                found.log_likelihood.squeeze(1),
                log_noise.exp(),
                ahead,
                ahead + spread * torch.randn(1000, *ahead.shape),
            )

    return predict


def lstm_regressor(x: Tensor, num_steps: int = 300, num_draws: int = 1000) -> Predictions:
    """An LSTM that reads the points themselves and predicts the next: p(x_t | x_{1:t-1}).

    It has no latent path: its estimate of the curve at t is its expectation of x_t.
    """
    mean, spread = x[:TRAIN].mean((0, 1)), x[:TRAIN].std((0, 1))
    points = ((x - mean) / spread).transpose(0, 1)
    network = GaussianLSTMTransition(2, H, dropout=0.5, min_scale=0.05)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.01)
    for _ in range(num_steps):
        optimiser.zero_grad()
        (-network.log_prob(points[:, :TRAIN]).mean()).backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        next_point = network.path_moments(points)
        path = points[:, :TRAIN].expand(num_draws, -1, -1)
        step, state = network.stepper(), network.initial_state((num_draws,))
        draws, z_prev = [], None
        for t in range(TRAIN + TEST):
            moments, state = step(z_prev, state, t)
            z_prev = path[:, t] if t < TRAIN else torch.normal(*moments)
            draws.append(z_prev)
        ahead = torch.stack(draws[TRAIN:]) * spread + mean  # (40, draws, 2)
        return Predictions(
            next_point.mean[0] * spread + mean,
            network.log_prob(points)[0] - spread.log().sum(),
            (next_point.scale[0] * spread).square().mean(0),
            ahead.mean(1),
            ahead.transpose(0, 1),
        )


METHODS = {
    "particle_gibbs": Method("SSL, particle Gibbs, P=10", of_ssl(fit_particle_gibbs)),
    "factored": Method("SSL, factored (P=1)", of_ssl(fit_factored)),
    "svi": Method("SSL, Pyro's SVI, AutoNormal", of_ssl(fit_svi)),
    "lstm": Method("LSTM regressor", lstm_regressor),
    "kalman": Method("Kalman filter, D=2", kalman(2)),
    "kalman_velocity": Method("Kalman filter, D=4", kalman(4)),
}
