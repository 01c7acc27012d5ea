"""Particle Gibbs: draws from the exact joint posterior of paths and all other latent sites.

The update itself, and why it is right, stands in ``particle_gibbs_kernel.py``; here is how it is
run, and what is read off its draws.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.infer.mcmc import NUTS
from pyro.poutine.util import is_validation_enabled
from torch import Tensor
from tqdm.auto import trange

from ..errors import at_least
from ..reading.checks import check_reference, require_no_latents
from ..reading.context import all_or_nothing
from ..reading.emission import read_emission
from ..reading.program import Program
from .estep import SMCSettings, draw_paths
from .inner import check_inner_kernel
from .particle_gibbs_kernel import Params, ParticleGibbsKernel
from .scan import ScanKernel, ready_kernel
from .sharded import together
from .to_arviz import draws_to_arviz
from .twisting import Twisting

__all__ = ["ParticleGibbs"]


class ParticleGibbs:
    r"""Sample the posterior of an SSL: paths, and whatever else is latent.

    The counterpart of Pyro's ``MCMC`` for models with an ``ssl_transition``.

    :param model: a Pyro model with one ``ssl_transition``. Dirichlet sites that enter as
        categorical probabilities are drawn in closed form, other continuous ones by
        ``inner_kernel``, finite ones by trying each value; ``pyro.param`` and module parameters
        stay as they are. Several chains of one loop are drawn together; with more than 512 tuples
        of states, and of several loops, each path is drawn given the others, in turn
        (``infer/scan.py``).
    :param int num_particles: P.
    :param str resampling: ``"systematic"`` or ``"multinomial"`` (the paper's); both exact.
    :param ancestor_sampling: redraw the reference's ancestor every so many steps; 0: never, which
        is faster and mixes poorly on long sequences; by default every 10, or T / 12 where that is
        more (T / 70 over vectors). Where a twist makes the particles' weights nearly equal, none is
        redrawn.
    :param twist: what lets particles look ahead (``smc/twist.py``), exact whatever it is:
        ``"markov"``, fitted to the transition and used where it spreads the weights less than none
        does; a Markov chain's matrix ``(K, K)``, a fitted :class:`~pyro_ssl.MarkovEM`, or a
        ``Surrogate``; ``None``: none.
    :param str path_kernel: ``"conditional"``; or ``"independent"``, which follows each sweep by a
        fresh path, accepted by Metropolis-Hastings: twice the cost, for few particles or a very
        good twist.
    :param inner_kernel: Pyro's ``NUTS`` (default) or ``HMC``, what makes one from
        ``potential_fn=`` (``functools.partial(HMC, step_size=0.1, num_steps=5)``), or a dict of
        such by site: how continuous sites are drawn that have no closed form. It adapts during the
        warm-up, of which some hundred steps are wise, and then stays.

    *Reference*: Zheng et al. 2017 (arXiv 1711.11179); Andrieu, Doucet & Holenstein, JRSS B 2010;
    Lindsten, Jordan & Schön, JMLR 2014; Chopin & Singh, Bernoulli 2015.

    Example::

        >>> import pyro, pyro.distributions as dist
        >>> from pyro_ssl import LSTMTransition, ParticleGibbs, ssl_transition
        >>> transition = LSTMTransition(num_states=3, hidden_size=8)
        >>> def model(words):                                               # (T, B)
        ...     phi = pyro.sample("phi", dist.Dirichlet(torch.ones(3, 6)).to_event(1))
        ...     with pyro.plate("documents", words.shape[1]):
        ...         for t, z in ssl_transition("z", transition, len(words)):
        ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
        >>> pg = ParticleGibbs(model, num_particles=5)
        >>> pg.run(torch.randint(6, (7, 4)), num_samples=10, num_chains=2, disable_progbar=True)
        >>> pg.get_samples()["z"].shape, pg.get_samples(group_by_chain=True)["phi"].shape
        (torch.Size([20, 4, 7]), torch.Size([2, 10, 3, 6]))
    """

    def __init__(
        self,
        model: Callable[..., Any],
        num_particles: int = 10,
        *,
        resampling: str = "systematic",
        ancestor_sampling: int | None = None,
        twist: Any = "markov",
        path_kernel: str = "conditional",
        inner_kernel: Any = NUTS,
    ) -> None:
        check_inner_kernel(inner_kernel)
        self.model, self.inner_kernel = model, inner_kernel
        self.settings = SMCSettings(num_particles, resampling, ancestor_sampling, path_kernel)
        self._twisting = Twisting(twist)
        self.kernel: ParticleGibbsKernel | ScanKernel | None = None
        self._samples: Params = {}
        self._verified = False

    @together("ParticleGibbs.run")
    @poutine.block()
    def run(
        self,
        *args: Any,
        num_samples: int,
        warmup_steps: int = 0,
        num_chains: int = 1,
        initial_params: Params | None = None,
        disable_progbar: bool | None = None,
        hook_fn: Callable[[Params, int], None] | None = None,
        **kwargs: Any,
    ) -> None:
        r"""Run the chains; further arguments go to the model.

        :param int num_samples: draws kept per chain.
        :param int warmup_steps: draws made before and thrown away; during them the twist is chosen,
            and ``inner_kernel`` adapts; both then stay.
        :param int num_chains: C chains, one batch.
        :param dict initial_params: start values by site, with a leading C where C > 1. By default
            other sites come from their prior and z from unconditional SMC.
        :param bool disable_progbar: by default no bar is shown where ``CI`` is set.
        :param hook_fn: called as ``hook_fn(params, i)`` after each draw.

        Ctrl-C ends the run, with a warning; the draws that were made are kept.
        """
        if not (at_least(1, num_samples, num_chains) and at_least(0, warmup_steps)):
            raise ValueError(
                f"num_samples={num_samples}, warmup_steps={warmup_steps}, num_chains={num_chains}: "
                "expected at least 1, 0 and 1, integers."
            )
        make = partial(
            ParticleGibbsKernel,
            self.model,
            self.settings.num_particles,
            resampling=self.settings.resampling,
            ancestor_sampling=self.settings.ancestor_sampling,
            num_chains=num_chains,
            twist=self._twisting.how,
            path_kernel=self.settings.path_kernel,
            inner_kernel=self.inner_kernel,
        )
        kernel = ready_kernel(make, initial_params, warmup_steps, *args, **kwargs)
        params = kernel.initial_params
        draws: list[Params] = []
        disable = bool(os.environ.get("CI")) if disable_progbar is None else disable_progbar
        with (
            trange(warmup_steps + num_samples, desc="particle Gibbs", disable=disable) as bar,
            contextlib.suppress(KeyboardInterrupt),
        ):
            for i in bar:
                params = kernel.update(params)
                if i >= warmup_steps:
                    draws.append(params)
                if i == warmup_steps - 1:
                    kernel.end_warmup()
                if hook_fn is not None:
                    hook_fn(params, i)
                bar.set_postfix(kernel.logging(), refresh=False)
        if len(draws) < num_samples:
            warnings.warn(
                f"Stopped after {len(draws)} of {num_samples} draws, which are kept.",
                RuntimeWarning,
                stacklevel=3,
            )
        if not draws:
            return
        stacked = {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}
        if num_chains == 1:
            self._samples = {name: value.unsqueeze(0) for name, value in stacked.items()}
        else:
            self._samples = {name: value.transpose(0, 1) for name, value in stacked.items()}
        self.kernel = kernel

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
        if num_samples is None:
            if group_by_chain:
                return dict(self._samples)
            return {name: value.flatten(0, 1) for name, value in self._samples.items()}
        if group_by_chain:
            raise ValueError("num_samples goes with group_by_chain=False.")
        pool = {name: value.flatten(0, 1) for name, value in self._samples.items()}
        first = next(iter(pool.values()))
        index = torch.randint(len(first), (num_samples,), device=first.device)
        return {name: value[index] for name, value in pool.items()}

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
        num_draws = next(iter(self._samples.values())).shape[1]
        stats = kernel._diagnostics.by_draw(num_draws)
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            given = kernel._program, kernel._sites
            return draws_to_arviz(*given, self._samples, stats, log_likelihood)

    @all_or_nothing
    @poutine.block()
    def sweep(
        self, reference: Tensor | Mapping[str, Tensor] | None, *args: Any, **kwargs: Any
    ) -> Any:
        r"""One conditional sweep z | everything else, for samplers that users compose.

        The twist is chosen at the first call, and stays, so that the kernel does too.

        :param reference: the current path, int64 ``(B, T)``, or ``(B, T, D)``; of several chains a
            dict by site; ``None`` draws a first one by unconditional SMC.
        :returns: the next path, ``(B, T)``, or such a dict; p(z | x) is invariant under the sweep.
        :raises LatentSiteError: if the model has other latent sites; condition on their values.
        """
        with torch.no_grad():
            run = Program(self.model, args, kwargs).run()
            require_no_latents(run, "sweep() draws the path given everything else")
            emission = read_emission(run, verify=is_validation_enabled() and not self._verified)
            self._verified = True
            if reference is not None:
                reference = check_reference(run, reference)
            twisting = self._twisting
            if not twisting.was_chosen_for(run):
                twisting = twisting.chosen(run, emission, self.settings.num_particles)
            path = draw_paths(run, emission, reference, twisting.settings(self.settings))[1]
            self._twisting = twisting
            return run.result(path)

    def _ran(self) -> ParticleGibbsKernel | ScanKernel:
        if self.kernel is None:
            raise RuntimeError("No samples yet; write pg.run(*args, num_samples=...) first.")
        return self.kernel
