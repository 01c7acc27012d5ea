"""Four noisy curves: which inference tracks them, and which model forecasts them?

    python -m benchmarks.curves [--results FILE] [--seeds 5]

The line, sine, circle and swiss roll of Zheng et al. 2017 (arXiv 1711.11179, section 5.1): one
sequence, 100 points to learn from, 40 to be tested on, noise of standard deviation .3. All SSLs
have D=2, H=32, and are scored by the same particle filter. Mean ± sd over seeds, per method, of

* RMSE of the filtered curve, E[C z_t + b | x_{1:t}], per coordinate, over all 140 points (the LSTM
  regressor has no filter: its is the error of its prediction from x_{1:t-1});
* log-likelihood of the 40 test points in nats, each predicted one step ahead from all before it, as
  the sum over steps and both coordinates (the noise alone would have -17);
* R's diagonal, .09 in the data's distribution (the noise that was drawn had .089 on average);
* the forecast of all 40 test points from the first 100: RMSE of its mean, CRPS, how many points the
  90 % intervals cover, and at how many steps the forecast says that it extrapolates (an SSL fitted
  by the library's own inference knows where its latents were).

How often each step's latent is renewed by a sweep of particle Gibbs with P=10, T=200. And on a
planted linear-Gaussian model, 100 sequences to learn from and 100 to be tested on, how many of the
20 points after the first 40 the 90 % intervals cover; by Kalman's own filter beside it.
"""

from __future__ import annotations

import torch

from pyro_ssl import ParticleGibbs
from pyro_ssl.datasets import CURVES, noisy_curve, noisy_rotation
from pyro_ssl.exact import kalman_filter
from pyro_ssl.models import GaussianSSL

from ._common import mean_sd
from ._curves_methods import METHODS, NOISE, TEST, TRAIN, fit_particle_gibbs, run
from ._results import Results, parser_of, shown

SETTINGS = {"train": TRAIN, "test": TEST, "noise": NOISE}
COLUMNS = {
    "rmse": ("filtering RMSE", 3),
    "rmse_test": ("of the test part", 3),
    "log_likelihood": ("log-likelihood, 40 points", 1),
    "noise": ("R", 4),
    "forecast_rmse": ("forecast RMSE", 2),
    "forecast_crps": ("CRPS", 2),
    "coverage": ("in 90 % intervals", 2),
    "beyond": ("says that it extrapolates", 2),
    "seconds": ("seconds", 1),
}


def movement(kind: str, seed: int, num_sweeps: int = 100, num_chains: int = 8) -> list[float]:
    """Share of sweeps that renew z_t, for each of 200 steps, after fitting all of them."""
    torch.manual_seed(seed)
    x = noisy_curve(kind, num_steps=200, noise=NOISE, seed=seed).x
    ssl = fit_particle_gibbs(x)
    sampler = ParticleGibbs(ssl.model, num_particles=10)
    sampler.run(
        x,
        num_samples=num_sweeps,
        warmup_steps=10,
        num_chains=num_chains,
        disable_progbar=True,
    )
    z = sampler.get_samples(group_by_chain=True)["z"]  # (C, S, B, T, D)
    return (z[:, 1:] != z[:, :-1]).any(-1).double().mean((0, 1, 2)).tolist()


def coverage(seed: int) -> dict[str, float]:
    """Fit to many sequences of a planted model, with positions and without dropout."""
    torch.manual_seed(seed)
    train, test = (noisy_rotation(60, 100, seed=1000 * part + seed) for part in range(2))
    ssl = GaussianSSL(dim=2, hidden_size=32, reads="positions", dropout=0.0)
    ssl.fit(train.x, num_epochs=40, num_paths=2, disable_progbar=True)
    low, high = ssl.forecast(test.x[:40], 20).interval()
    x = test.x[40:]
    hidden = torch.cat([test.x[:40], torch.zeros_like(x)])
    mask = torch.arange(60).unsqueeze(-1).expand(60, 100) < 40
    exact = kalman_filter(test.transition, test.emission, hidden, mask=mask)
    covariance = exact.covariance[40:] + test.emission.covariance
    away = (x - exact.mean[40:]).abs() / covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    likelihood = kalman_filter(test.transition, test.emission, test.x).log_likelihood
    return {
        "coverage": float(((low < x) & (x < high)).double().mean()),
        "coverage_true": float((away < 1.645).double().mean()),
        "log_likelihood": float(ssl.log_likelihood(test.x).mean()),
        "log_likelihood_true": float(likelihood.mean()),
    }


def report(results: Results) -> None:
    """Print a table per curve, and how the paths move."""
    for kind in CURVES:
        print(f"\n{kind}\n| | {' | '.join(title for title, _ in COLUMNS.values())} |")
        print("|---" * (1 + len(COLUMNS)) + "|")
        for name, method in METHODS.items():
            runs = [v for k, v in results.runs.items() if k.startswith(f"{kind}/{name}/")]
            if not runs:
                continue
            cells = []
            for column, (_, digits) in COLUMNS.items():
                values = [run[column] for run in runs if column in run]
                if column == "noise":
                    values = [sum(value) / len(value) for value in values]
                cells.append(mean_sd(values, digits) if values else "")
            print(f"| {method.title} | {' | '.join(cells)} |")
    print("\nshare of sweeps that renew z_t, P=10, T=200: least over steps, mean over steps")
    for key, rates in results.runs.items():
        if key.startswith("movement/"):
            print(f"{key:<28} {min(rates):.3f}  {sum(rates) / len(rates):.3f}")
    runs = [run for key, run in results.runs.items() if key.startswith("coverage/")]
    if runs:
        print("\nplanted: in 90 % intervals, and log-likelihood of a point; of the true model")
        for name in runs[0]:
            print(f"{name:<28} {mean_sd([run[name] for run in runs], 3)}")


def main() -> None:
    """Run what is not done yet; print the tables."""
    parser = parser_of("curves", __doc__, seeds=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--moves", type=int, default=1, help="seeds to measure movement on")
    o = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(o.results, SETTINGS)
    jobs = [(k, m, s) for s in range(o.seeds) for k in CURVES for m in o.methods]
    for kind, method, seed in shown(jobs):
        key = f"{kind}/{method}/{seed}"
        if key not in results:
            results.add(key, run(method, kind, seed))
    for kind, seed in [(k, s) for k in CURVES for s in range(o.moves)]:
        if f"movement/{kind}/{seed}" not in results:
            results.add(f"movement/{kind}/{seed}", movement(kind, seed))
    for seed in range(o.seeds):
        if f"coverage/{seed}" not in results:
            results.add(f"coverage/{seed}", coverage(seed))
    report(results)


if __name__ == "__main__":
    main()
