"""When does ancestor sampling stall? Gaussian paths whose steps are far smaller than the noise.

    python -m benchmarks.degenerate [--sweeps 40]

T=200, 32 sequences, noise of standard deviation 1, steps of standard deviation q. ``walk``:
z_t = .95 z_{t-1} + q ε. ``velocity``: place and velocity, with nearly all noise on the velocity, so
that a path is smooth and the reference's next steps fit no other particle's past. Sweeps are
twisted by nothing, or by the chain's own backward messages. Chains start from exact draws (Kalman).
Printed: the share of sweeps that renew z_t, the least over steps and the mean; and the mean squared
jump, in units of that between independent draws.
"""

import argparse
import math

import torch
from torch import Tensor

from pyro_ssl.exact import LinearEmission, kalman_smoother, sample_kalman_paths
from pyro_ssl.smc import QuadraticEmission, conditional_smc, fit_surrogate
from pyro_ssl.transitions import LinearGaussianTransition, PathDistribution

T, B = 200, 32


def planted(kind: str, q: float) -> tuple[LinearGaussianTransition, LinearEmission]:
    """Return the transition and the emission."""
    if kind == "walk":
        matrix, scale, loading = torch.tensor([[0.95]]), [q], torch.ones(1, 1)
    else:
        matrix, scale = torch.tensor([[1.0, 1.0], [0.0, 0.99]]), [0.01 * q, q]
        loading = torch.tensor([[1.0, 0.0]])
    D = len(matrix)
    transition = LinearGaussianTransition(
        D,
        matrix=matrix,
        offset=torch.zeros(D),
        scale=torch.tensor(scale),
        initial_mean=torch.zeros(D),
        initial_scale=torch.ones(D),
    )
    return transition, LinearEmission(loading, torch.zeros(1), torch.eye(1))


def as_quadratic(x: Tensor, loading: Tensor) -> QuadraticEmission:
    """log N(x; C z, 1) as a function of z."""
    D = loading.shape[1]
    constant = -0.5 * (x.square().sum(-1) + math.log(2.0 * math.pi))
    precision = (loading.T @ loading).expand(*x.shape[:2], D, D).contiguous()
    return QuadraticEmission(torch.zeros(*x.shape[:2], D), constant, x @ loading, precision)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    print(
        "| path | q | P | ancestor sampling | twist | renewed, least | mean | squared jump, mean |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for kind, q, P, every, twisted in [
        (kind, q, P, every, twisted)
        for kind, q in (("walk", 0.1), ("walk", 0.01), ("velocity", 0.1), ("velocity", 0.01))
        for P, twisted in ((2, True), (10, False), (10, True), (100, False))
        for every in (0, 10)
    ]:
        torch.manual_seed(0)
        transition, emission = planted(kind, q)
        z = PathDistribution(transition, T).sample((B,)).transpose(0, 1)
        x = z @ emission.matrix.T + torch.randn(T, B, 1)
        quadratic = as_quadratic(x, emission.matrix)
        path = sample_kalman_paths(transition, emission, x)
        spread = kalman_smoother(transition, emission, x).covariance.diagonal(dim1=-2, dim2=-1)
        twist = fit_surrogate(transition, T).twist(quadratic) if twisted else None
        settings, renewed, jump = {"ancestor_sampling": every, "twist": twist}, torch.zeros(T), 0.0
        for _ in range(options.sweeps):
            new = conditional_smc(transition, quadratic, P, path, **settings).path
            renewed += (new != path).any(-1).double().mean(1) / options.sweeps
            jump += float(((new - path).square() / (2.0 * spread)).mean()) / options.sweeps
            path = new
        how = f"every {every} steps" if every else "never"
        rates = f"{float(renewed.min()):.3f} | {float(renewed.mean()):.3f}"
        by = "its own" if twisted else "none"
        print(f"| {kind} | {q} | {P} | {how} | {by} | {rates} | {jump:.3f} |", flush=True)


if __name__ == "__main__":
    main()
