"""How much memory does a sweep need at its peak?

    python -m benchmarks.memory

B=2,000 sequences, T=200 steps, P=20 particles, K=100 states, V=5,000 symbols: the user's model,
the emission table, one conditional sweep with ancestor sampling, and the M-step's gradient, in a
process of their own. Also prints the largest tensor that any of it made: one of size ``(T, B, V)``
would take 7.45 GiB.
"""

import argparse
import resource
import time
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.optim import Adam
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_ssl import LSTMTransition, StochasticEM, ssl_transition


class LargestTensor(TorchDispatchMode):
    """Remembers the largest tensor that any operation allocated."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes, self.shape, self.op = 0, torch.Size(), ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                nbytes = tensor.untyped_storage().nbytes()
                if nbytes > self.nbytes:
                    self.nbytes, self.shape, self.op = nbytes, tensor.shape, str(func)
        return out


def main() -> None:
    """Print the peak."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in dict(B=2000, T=200, P=20, K=100, V=5000, H=64).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    o = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device(o.device)
    transition = LSTMTransition(o.K, o.H).to(device)
    words = torch.randint(o.V, (o.T, o.B), device=device)

    def model(words: torch.Tensor) -> None:
        pyro.module("transition", transition)
        beta = torch.full((o.K, o.V), 0.1, device=device)
        phi = pyro.sample("phi", dist.Dirichlet(beta).to_event(1))
        with pyro.plate("documents", o.B):
            for t, z in ssl_transition("z", transition, o.T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    em = StochasticEM(model, Adam({"lr": 1e-2}), o.P, dirichlet="mean")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.perf_counter()
    with LargestTensor() as largest:
        for _ in range(2):
            em.step(words)
    seconds = (time.perf_counter() - start) / 2
    if device.type == "cuda":
        print(f"peak on the device: {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak resident memory {peak:.2f} GiB ({before:.2f} GiB of it before the first step)")
    shape = tuple(largest.shape)
    print(f"largest tensor {largest.nbytes / 2**30:.2f} GiB, {shape} by {largest.op}")
    table = o.T * o.B * o.V * 4 / 2**30
    print(f"(T, B, V) would be {table:.2f} GiB; {seconds:.1f} s per step of stochastic EM")


if __name__ == "__main__":
    main()
