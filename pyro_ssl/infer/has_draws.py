"""What is read off the draws of chains: samples, occupancy, diagnostics, ArviZ's data.

Next file to read: ``particle_gibbs.py``, which makes them.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..reading.context import all_or_nothing
from .chain_run import ChainRun
from .draws import Keep, occupancy_of
from .particle_gibbs_kernel import Params, ParticleGibbsKernel
from .scan import ScanKernel
from .to_arviz import draws_to_arviz

__all__ = ["HasDraws"]


class HasDraws:
    """A sampler that has run."""

    kernel: ParticleGibbsKernel | ScanKernel | None = None
    #: by name, ``(C, S, ...)``, states in the smallest type
    _samples: Params = {}
    _occupancy: dict[str, Tensor] | None = None
    #: number of states of each path, by site; 0 of vectors
    _paths: dict[str, int] = {}
    _keep: Keep = "paths"
    _thinning = 1

    def _take(self, chains: ChainRun, num_samples: int) -> None:
        """Take what a run drew, if it drew anything."""
        draws = chains.draws
        made = max(draws.seen - draws.warmup_steps, 0)
        if made < num_samples:
            warnings.warn(
                f"Stopped after {made} of {num_samples} draws, which are kept.",
                RuntimeWarning,
                stacklevel=5,
            )
        if not len(draws):
            return
        self._samples, self._occupancy = draws.samples(), draws.occupancy()
        self._paths, self._keep, self._thinning = draws.paths, draws.keep, draws.thinning
        self.kernel = chains.kernel

    def get_samples(self, num_samples: int | None = None, group_by_chain: bool = False) -> Params:
        """Return the draws by site: z ``(S, B, T)``, of integers, or ``(S, B, T, D)``, φ as its
        site, S over all chains.

        They are what Pyro's ``Predictive`` takes. Where it is ``parallel``, the body has to meet
        many φ at once: look rows up by ``Vindex(phi)[..., z, :]``, and give φ a dimension of 1 for
        time and for each plate, ``phi[:, None, None]``.

        :param int num_samples: draw so many at random, with replacement, instead of all.
        :param bool group_by_chain: keep ``(C, S, ...)``.
        """
        self._ran()
        if num_samples is not None and group_by_chain:
            raise ValueError("num_samples goes with group_by_chain=False.")
        if group_by_chain:
            return {name: self._wide(name, value) for name, value in self._samples.items()}
        pool = {name: value.flatten(0, 1) for name, value in self._samples.items()}
        if num_samples is not None and pool:
            first = next(iter(pool.values()))
            index = torch.randint(len(first), (num_samples,), device=first.device)
            pool = {name: value[index] for name, value in pool.items()}
        return {name: self._wide(name, value) for name, value in pool.items()}

    def occupancy(self) -> Any:
        """Return p(z_t = k | x) as the share of draws, float64 ``(T, B, K)``, chains together.

        Of several chains of a loop, or loops, a dict by site. Past a sequence's length it means
        nothing.

        :raises ValueError: if neither paths nor their counts were kept, or paths are of vectors.
        """
        self._ran()
        found = self._occupancy
        if self._keep == "paths" and all(self._paths.values()):
            found = occupancy_of(self._samples, self._paths)
        if found is None:
            raise ValueError(
                "ParticleGibbs.occupancy: found no paths over states among the draws, expected "
                'keep="occupancy" or "paths" in the run, of a model whose latents are states.'
            )
        return dict(found) if len(found) > 1 else next(iter(found.values()))

    def diagnostics(self) -> dict[str, Any]:
        """Return ``change_rate`` ``(T,)``, mean, sd, n_eff, r_hat of label-free functionals, and
        how well particles look ahead: :meth:`ParticleGibbsKernel.diagnostics`.

        Of paths that are drawn in turn a dict of these, by the paths' names.
        """
        return self._ran().diagnostics()

    def summary(self) -> None:
        """Print the diagnostics as a table."""
        print(self._ran().format())

    @all_or_nothing
    @poutine.block()
    def to_arviz(self, *, log_likelihood: bool = False) -> Any:
        """Return the draws as ArviZ keeps them, for ``az.summary``, its plots, and files.

        Groups: ``posterior``, z ``(chain, draw, sequence, time)``, plates by name where there are
        several; ``sample_stats``, of each draw the share of latents that ``moved``, the
        ``log_joint`` of z with the values that it was drawn given, and the other label-free
        functionals; ``observed_data``, time first; ``constant_data``, lengths and inputs. A state's
        number means nothing across chains: read R-hat off the functionals.

        :param bool log_likelihood: add the group ``log_likelihood``, log p(x | z, θ) of each draw
            and observed site, of a sequence summed over time; the model runs once for each draw.
        :returns: ``arviz.InferenceData``, or under ArviZ 1.x ``xarray.DataTree``.
        :raises ImportError: if ArviZ is not installed (``pip install 'pyro-ssl[arviz]'``).
        """
        kernel = self._ran()
        if isinstance(kernel, ScanKernel):
            raise ValueError(
                f"ParticleGibbs.to_arviz: the paths of {len(kernel.kernels)} loops were drawn in "
                "turn, expected those of one; write az.from_dict of get_samples(group_by_chain="
                "True)."
            )
        if self._keep != "paths":
            raise ValueError(
                f"ParticleGibbs.to_arviz: found draws of {sorted(self._samples)}, expected those "
                'of all latent sites; write keep="paths" in the run.'
            )
        samples = self.get_samples(group_by_chain=True)
        num_draws = next(iter(samples.values())).shape[1]
        stats = kernel._diagnostics.by_draw(num_draws, self._thinning)
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            given = kernel._program, kernel._sites
            return draws_to_arviz(*given, samples, stats, log_likelihood)

    def _wide(self, name: str, value: Tensor) -> Tensor:
        """States as int64, which torch indexes with."""
        return value.long() if self._keep == "paths" and self._paths.get(name) else value

    def _ran(self) -> ParticleGibbsKernel | ScanKernel:
        if self.kernel is None:
            raise RuntimeError("No samples yet; write pg.run(*args, num_samples=...) first.")
        return self.kernel
