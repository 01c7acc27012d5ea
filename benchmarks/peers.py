"""The same sweep elsewhere: written by hand in JAX, and the filters of Pyro and of ``particles``.

    make bench-peers                       # in an environment of its own, with JAX and particles
    python -m benchmarks.peers [--rounds 9] [--batches 1 20 200]

P=10 particles, T=100 steps, K=50 states, H=64 units, one thread, in units of ``torch.nn.LSTM``'s
forward over the same B·P particles; all in turn, medians of the rounds' ratios. JAX's is one jitted
scan in which conditional SMC with systematic resampling and without ancestor sampling is written
out for this one model: the most that a user would write. ``pyro.infer.SMCFilter`` is a bootstrap
filter of one sequence, without a reference: less than a sweep does. So is that of ``particles``
(Chopin), which is guided by the locally optimal proposal, written out for this model in NumPy.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SMCFilter
from torch import Tensor

from pyro_ssl import LSTMTransition
from pyro_ssl.bench import machine, ratios_of
from pyro_ssl.smc import TableEmission, conditional_smc

os.environ["XLA_FLAGS"] = (
    "--xla_cpu_multi_thread_eigen=false --xla_force_host_platform_device_count=1 "
    "intra_op_parallelism_threads=1"
)
P, T, K, H = 10, 100, 50, 64


def by_jax(transition: LSTMTransition, table: Tensor, path: Tensor) -> Callable[[], object]:
    """One jitted sweep: table ``(T, B, K)``, path ``(T, B)``."""
    import jax
    import jax.numpy as jnp

    cell, head = transition.cell, transition.head
    encoding, _, bias = transition._input_map()
    tensors = (encoding.T + bias, cell._parameter("weight_hh").T, head.weight.T, head.bias)
    weights = [jnp.asarray(w.detach().contiguous().numpy().copy()) for w in tensors]
    log_emission, reference = jnp.asarray(table.numpy()), jnp.asarray(path.numpy())
    B = table.shape[1]
    slots, first_rows = jnp.arange(P) / P, (jnp.arange(B) * P)[:, None]

    def sweep(key: Any, weights: Any, log_emission: Any, reference: Any) -> Any:
        lookup, recurrent, readout, offset = weights
        keys = jax.random.split(key, 3)
        greatest = log_emission.max(-1, keepdims=True)
        emission = jnp.exp(log_emission - greatest)
        u_ancestor = jax.random.uniform(keys[0], (T, B, 1))
        u_z = jax.random.uniform(keys[1], (T, B * P, 1))

        def step(carry: Any, given: Any) -> Any:
            z, h, c = carry
            e, u_a, u, ref = given
            i, f, g, o = jnp.split(lookup[z] + h @ recurrent, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            joint = jax.nn.softmax(h @ readout + offset).reshape(B, P, K) * e[:, None]
            gamma = joint.cumsum(-1)
            alpha = gamma[..., -1]
            cdf = alpha.cumsum(-1)
            point = (u_a * alpha[:, :1] / cdf[:, -1:] + slots) % 1.0 * cdf[:, -1:]
            a = jnp.minimum((cdf[:, None] <= point[..., None]).sum(-1), P - 1).at[:, 0].set(0)
            rows = (first_rows + a).reshape(-1)
            chosen = gamma.reshape(B * P, K)[rows]
            z = jnp.minimum((chosen <= u * chosen[:, -1:]).sum(-1), K - 1).reshape(B, P)
            z = z.at[:, 0].set(ref)
            return (z.reshape(-1), h[rows], c[rows]), (z, a, jnp.log(cdf[:, -1] / P))

        def back(slot: Any, given: Any) -> Any:
            z, a = (x[jnp.arange(B), slot] for x in given)
            return a, z

        start = jnp.full(B * P, K), jnp.zeros((B * P, H)), jnp.zeros((B * P, H))
        _, (z, a, log_z) = jax.lax.scan(step, start, (emission, u_ancestor, u_z, reference))
        slot = jax.random.randint(keys[2], (B,), 1, P)
        return jax.lax.scan(back, slot, (z, a), reverse=True)[1], log_z + greatest[..., 0]

    compiled, key = jax.jit(sweep), jax.random.key(0)
    return lambda: jax.block_until_ready(compiled(key, weights, log_emission, reference))


class FilterModel:
    """The SSL of one sequence as ``SMCFilter`` takes it, vectorised over its particles."""

    def __init__(self, transition: LSTMTransition, table: Tensor) -> None:
        self.step_of, self.table = transition.stepper(), table[:, 0]
        self.initial = transition.initial_state((P,))

    def init(self, state: Any) -> None:
        """Before the first step."""
        state["h"], state["c"] = self.initial.h, self.initial.c
        state["z"] = torch.full((P,), K)

    def step(self, state: Any, t: int) -> None:
        """Draw z_t, and weigh by x_t."""
        cell = type(self.initial)(state["h"], state["c"])
        logits, cell = self.step_of(state["z"], cell, t)
        state["h"], state["c"] = cell
        state["z"] = pyro.sample(f"z_{t}", dist.Categorical(logits=logits))
        pyro.factor(f"x_{t}", self.table[t][state["z"]])


def by_pyro(transition: LSTMTransition, table: Tensor) -> Callable[[], object]:
    """A bootstrap filter over one sequence."""
    model = FilterModel(transition, table)

    class Guide(FilterModel):
        """The transition itself: it may not write to the state."""

        def init(self, state: Any) -> None:
            pass

        def step(self, state: Any, t: int) -> None:
            cell = type(self.initial)(state["h"], state["c"])
            pyro.sample(f"z_{t}", dist.Categorical(logits=self.step_of(state["z"], cell, t)[0]))

    @torch.no_grad()
    def run() -> None:
        smc = SMCFilter(model, Guide(transition, table), P, max_plate_nesting=0)
        smc.init()
        for t in range(T):
            smc.step(t)

    return run


def by_particles(transition: LSTMTransition, table: Tensor) -> Callable[[], object]:
    """A guided filter over one sequence; a particle is z, log α, h and c side by side."""
    import numpy as np
    import particles

    cell, head = transition.cell, transition.head
    encoding, _, bias = transition._input_map()
    tensors = (encoding.T + bias, cell._parameter("weight_hh").T, head.weight.T, head.bias)
    lookup, recurrent, readout, offset = (w.detach().numpy().copy() for w in tensors)
    emission = table[:, 0].exp().numpy()

    def sigmoid(x: Any) -> Any:
        return 1.0 / (1.0 + np.exp(-x))

    class Model(particles.FeynmanKac):
        """The SSL: each step draws z_t from its conditional given x_t, and weighs by α_t."""

        def step(self, t: int, z: Any, h: Any, c: Any) -> Any:
            i, f, g, o = np.split(lookup[z] + h @ recurrent, 4, -1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            logits = h @ readout + offset
            prior = np.exp(logits - logits.max(-1, keepdims=True))
            joint = (prior / prior.sum(-1, keepdims=True) * emission[t]).cumsum(-1)
            alpha = joint[:, -1:]
            z = (joint <= np.random.rand(len(h), 1) * alpha).sum(-1, keepdims=True)
            return np.concatenate([np.minimum(z, K - 1), np.log(alpha), h, c], -1)

        def M0(self, N: int) -> Any:
            zeros = np.zeros((N, H), dtype=np.float32)
            return self.step(0, np.full(N, K), zeros, zeros)

        def M(self, t: int, xp: Any) -> Any:
            h, c = xp[:, 2 : 2 + H], xp[:, 2 + H :]
            return self.step(t, xp[:, 0].astype(int), h, c)

        def logG(self, t: int, xp: Any, x: Any) -> Any:
            return x[:, 1]

    return lambda: particles.SMC(Model(T), N=P, resampling="systematic", ESSrmin=1.0).run()


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 20, 200])
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device("cpu")
    print(machine(device))
    transition = LSTMTransition(K, H)
    for B in options.batches:
        table = 2.0 * torch.randn(T, B, K)
        emission, lstm = TableEmission(table), torch.nn.LSTM(H, H)
        path, inputs = conditional_smc(transition, emission, P).path, torch.randn(T, B * P, H)
        floor = torch.no_grad()(lambda lstm=lstm, inputs=inputs: lstm(inputs))
        jobs = {
            "pyro_ssl": lambda e=emission, path=path: conditional_smc(transition, e, P, path),
            "JAX by hand": by_jax(transition, table, path),
        }
        if B == 1:
            jobs["pyro.infer.SMCFilter"] = by_pyro(transition, table)
            jobs["particles"] = by_particles(transition, table)
        found = ratios_of(floor, jobs, options.rounds, device)
        ratios = ", ".join(f"{name} {found.median(name):.2f}" for name in jobs)
        print(f"B = {B:>4}: {ratios}", flush=True)


if __name__ == "__main__":
    main()
