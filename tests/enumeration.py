"""All joint paths of a model with several chains, weighed by Pyro's own trace of the model."""

import itertools
from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor


class AllPaths(NamedTuple):
    """The N joint paths of a sequence: by site ``(N, T)``, and log p(paths, x), ``(N,)``."""

    paths: dict[str, Tensor]
    log_joint: Tensor

    @property
    def posterior(self):
        return self.log_joint.softmax(0)

    @property
    def log_evidence(self):
        return self.log_joint.logsumexp(0)

    def draw(self, n):
        """Joint paths from the posterior, by site ``(n, T)``."""
        index = torch.multinomial(self.posterior, n, replacement=True)
        return {name: z[index] for name, z in self.paths.items()}

    def counts(self, paths):
        """How often each joint path stands among some, ``(N,)``."""
        places, here = 0, 0
        for name, own in self.paths.items():
            size = int(own.max()) + 1
            for t in range(own.shape[1]):
                places, here = places * size + own[:, t], here * size + paths[name][:, t]
        order = places.argsort()
        index = order[torch.searchsorted(places[order], here)]
        assert torch.equal(places[index], here)
        return torch.bincount(index, minlength=len(places)).double()


def all_paths(model, sizes, *args, steps=None):
    """Enumerate the joint paths of a model of one sequence.

    :param model: of data with any number of sequences in one plate, ``(T, N)``.
    :param sizes: K of each site, by name.
    :param args: its arguments, of one sequence: tensors ``(T,)``, dicts of them, or ``None``;
        integers ``()`` are lengths.
    :param steps: T of each site, by name; by default that of the first argument.
    """
    steps = steps or dict.fromkeys(sizes, len(args[0]))
    cells = [range(sizes[name]) for name in sizes for _ in range(steps[name])]
    grid = torch.tensor(list(itertools.product(*cells)))
    parts = grid.split([steps[name] for name in sizes], 1)
    paths = dict(zip(sizes, parts, strict=True))
    given = [repeated(arg, len(grid)) for arg in args]
    with torch.no_grad(), poutine.block():
        trace = poutine.trace(pyro.condition(model, paths)).get_trace(*given)
        trace.compute_log_prob()
    sites = [s for s in trace.nodes.values() if s["type"] == "sample" and "log_prob" in s]
    log_p = [s["log_prob"] for s in sites if s["log_prob"].dim() and s["log_prob"].shape[-1] > 1]
    total = sum(p if p.dim() == 1 else p.sum(0) for p in log_p)
    return AllPaths(paths, total)


def repeated(value, n):
    """One sequence's data as those of n: ``(T,)`` to ``(T, n)``, lengths ``()`` to ``(n,)``."""
    if value is None:
        return None
    if isinstance(value, dict):
        return {name: repeated(part, n) for name, part in value.items()}
    if not value.dim():
        return value.expand(n)
    return value.unsqueeze(1).expand(-1, n, *value.shape[1:])
