"""What does an epoch of an IMV layer cost, over one of an LSTM with as many units?

    python -m benchmarks.imv_cost [--rounds 7] [--batch 128] [--device cuda]

N variables of d units each, against ``torch.nn.LSTM`` with N·d units, over the same windows of 10
steps in the same batches: forward, backward from the mean square of h, and a step of AdamW. Sizes
are those of PM2.5 (N = 11) and of SML2010 (N = 15). All are run in turn, on one thread; the median
of the rounds' ratios is the result.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks._common import timed
from pyro_ssl.cells import IMVFullLSTM, IMVTensorLSTM

WINDOWS, T = 1024, 10
SIZES = ((11, 16), (11, 32), (15, 16), (15, 32))


def epoch(layer: nn.Module, x: Tensor, batch: int) -> Callable[[], object]:
    """Return an epoch over x, batch first."""
    optim = torch.optim.AdamW(layer.parameters(), lr=1e-4)

    def run() -> None:
        for part in x.split(batch):
            optim.zero_grad()
            layer(part)[0].square().mean().backward()
            optim.step()

    return run


def main() -> None:
    """Print the seconds and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    torch.manual_seed(0)

    print(f"{WINDOWS} windows of {T} steps in batches of {options.batch}, {device}")
    for N, d in SIZES:
        x = torch.randn(WINDOWS, T, N, device=device)
        layers = {
            "nn.LSTM": nn.LSTM(N, N * d, batch_first=True),
            "tensor": IMVTensorLSTM(N, d),
            "full": IMVFullLSTM(N, d),
        }
        jobs = {n: epoch(layer.to(device), x, options.batch) for n, layer in layers.items()}
        for job in jobs.values():
            timed(job, device)
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(options.rounds):
            for name, job in jobs.items():
                seconds[name].append(timed(job, device))
        print(f"N = {N}, d = {d}: nn.LSTM {statistics.median(seconds['nn.LSTM']):.3f} s")
        for name in ("tensor", "full"):
            pairs = zip(seconds[name], seconds["nn.LSTM"], strict=True)
            ratios = sorted(a / b for a, b in pairs)
            print(
                f"  {name:<7} {statistics.median(seconds[name]):.3f} s, "
                f"{statistics.median(ratios):.2f} x  ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )


if __name__ == "__main__":
    main()
