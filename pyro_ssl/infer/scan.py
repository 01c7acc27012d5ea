r"""Paths that are not drawn together: each block is swept given the others, in turn.

For loops one after the other, and for chains of one loop whose states have too many tuples. With
blocks z, w and all else φ one update is

1. z | w, φ, x by a sweep, then φ | z, w, x;
2. w | z, φ, x by a sweep, then φ | z, w, x.

Each step leaves p(z, w, φ | x) invariant (a Gibbs scan), and each is what ``ParticleGibbsKernel``
does for a model in which the other paths are given. Blocks that data couple strongly mix slowly:
chains side by side in one loop are drawn together while they can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch

from ..errors import SeveralBlocksError
from ..loop import SSLLoop
from .particle_gibbs_kernel import Params, ParticleGibbsKernel

__all__ = ["ScanKernel", "prior_paths", "ready_kernel"]


@torch.no_grad()
def prior_paths(blocks: Sequence[SSLLoop], shape: tuple[int, ...] = ()) -> Params:
    """Draw paths from the prior, by site ``shape + (B, T)``; what is known of them is kept."""
    paths = {}
    for block in blocks:
        for chain in block.chains:
            path = block.distribution(chain).sample(shape)
            if chain.known is not None and chain.known_at is not None:
                known, seen = chain.known.movedim(0, -1), chain.known_at.movedim(0, -1)
                path = torch.where(seen, known, path)
            paths[chain.name] = path
    return paths


def ready_kernel(
    make: Callable[[], ParticleGibbsKernel], start: Params | None, *args: Any, **kwargs: Any
) -> ParticleGibbsKernel | ScanKernel:
    """Return a kernel that is set up: a scan where a model's paths are not drawn together.

    :param make: makes the kernel of one block.
    :param start: initial parameters, or ``None``.
    :param args: of the kernel's ``setup``, as ``kwargs`` are.
    """
    kernel = make()
    if start is not None:
        kernel.initial_params = start
    try:
        kernel.setup(*args, **kwargs)
        return kernel
    except SeveralBlocksError as error:
        blocks = error.blocks
    scan = ScanKernel(make, blocks)
    scan.setup(start, *args, **kwargs)
    return scan


class ScanKernel:
    """Particle Gibbs over several blocks of paths, with the methods of one block's kernel.

    :param make: makes the kernel of one block.
    :param blocks: a loop over the chains of each block.
    """

    def __init__(
        self, make: Callable[[], ParticleGibbsKernel], blocks: tuple[SSLLoop, ...]
    ) -> None:
        self._make, self._blocks = make, blocks
        self.kernels = [make() for _ in blocks]
        self.initial_params: Params = {}

    def setup(self, start: Params | None, *args: Any, **kwargs: Any) -> None:
        """Set each block's kernel up, given a start of the others; draw it if none was given."""
        if start is None:
            with pyro.validation_enabled(False):  # a first start need not explain all data
                start = self._draw_start([self._make() for _ in self._blocks], *args, **kwargs)
        for block in self._blocks:
            for chain in block.chains:
                if chain.name not in start:
                    raise ValueError(
                        f'Site "{chain.name}": missing from initial_params, which hold '
                        f"{sorted(start)}; expected a start for every latent site, or for none."
                    )
        for kernel, own, given in self._apart(self.kernels, start):
            kernel.given, kernel.initial_params = given, own
            kernel.setup(*args, **kwargs)
        self.initial_params = start

    def update(self, params: Params) -> Params:
        """Sweep each block given the others, in turn."""
        params = dict(params)
        for i in range(len(self.kernels)):
            kernel, own, given = self._apart(self.kernels, params)[i]
            kernel.given = given
            params |= kernel.update(own)
        return params

    def logging(self) -> dict[str, str]:
        """Return the share of latents that sweeps change, of each block."""
        pairs = zip(self._blocks, self.kernels, strict=True)
        return {f"{b.name} {key}": v for b, k in pairs for key, v in k.logging().items()}

    def diagnostics(self) -> dict[str, Any]:
        """Return :meth:`ParticleGibbsKernel.diagnostics` of each block, by its name."""
        pairs = zip(self._blocks, self.kernels, strict=True)
        return {block.name: kernel.diagnostics() for block, kernel in pairs}

    def format(self) -> str:
        """Return the diagnostics as tables."""
        pairs = zip(self._blocks, self.kernels, strict=True)
        return "\n\n".join(f"{block.name}\n{kernel.format()}" for block, kernel in pairs)

    def end_warmup(self) -> None:
        """End the warm-up of each block."""
        for kernel in self.kernels:
            kernel.end_warmup()

    def _apart(
        self, kernels: list[ParticleGibbsKernel], params: Params
    ) -> list[tuple[ParticleGibbsKernel, Params, Params]]:
        """Each block's kernel, what it updates, and the others' paths, chains first."""
        paths = [[chain.name for chain in block.chains] for block in self._blocks]
        out = []
        for names, kernel in zip(paths, kernels, strict=True):
            others = [name for some in paths if some is not names for name in some]
            own = {name: value for name, value in params.items() if name not in others}
            given = {name: params[name] for name in others}
            if kernel.num_chains == 1:
                given = {name: path.unsqueeze(0) for name, path in given.items()}
            out.append((kernel, own, given))
        return out

    @torch.no_grad()
    def _draw_start(self, kernels: list[ParticleGibbsKernel], *args: Any, **kwargs: Any) -> Params:
        """Paths from the prior, and then each block's by unconditional SMC given the others'."""
        C = kernels[0].num_chains
        params = prior_paths(self._blocks, (C,) if C > 1 else ())
        for i in range(len(kernels)):
            kernel, _, given = self._apart(kernels, params)[i]
            kernel.given = given
            kernel.setup(*args, **kwargs)
            params |= kernel.initial_params
        return params
