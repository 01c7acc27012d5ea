"""Particle Gibbs: draws from the exact joint posterior of paths and all other latent sites.

The update itself, and why it is right, stands in ``particle_gibbs_kernel.py``; here is how it is
run, and what is read off its draws.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.infer.mcmc import NUTS
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from ..arguments import at_least, hides_progbar
from ..reading.checks import check_reference, require_no_latents
from ..reading.context import all_or_nothing
from ..reading.emission import read_emission
from ..reading.program import Program
from .about import described
from .chain_run import ChainRun
from .draw_files import read_draws
from .draws import Keep, check_keep
from .estep import SMCSettings, draw_paths
from .has_draws import HasDraws
from .inner import check_inner_kernel
from .particle_gibbs_kernel import Params, ParticleGibbsKernel
from .run_files import RunFiles
from .saved_draws import SavedDraws
from .sharded import check_alone, together
from .twisting import Twisting

__all__ = ["ParticleGibbs"]


class ParticleGibbs(HasDraws):
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
        keep: Keep = "paths",
        thinning: int = 1,
        checkpoint: str | os.PathLike[str] | None = None,
        every: int = 100,
        resume: bool = False,
        draws_folder: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        r"""Run the chains; further arguments go to the model.

        :param int num_samples: draws per chain.
        :param int warmup_steps: draws made before and thrown away; during them the twist is chosen,
            and ``inner_kernel`` adapts; both then stay.
        :param int num_chains: C chains, one batch.
        :param dict initial_params: start values by site, with a leading C where C > 1. By default
            other sites come from their prior and z from unconditional SMC.
        :param bool disable_progbar: by default no bar is shown where ``CI`` is set.
        :param hook_fn: called as ``hook_fn(params, i)`` after each draw.
        :param keep: what is kept of draws: ``"paths"``: all sites; ``"occupancy"``: all but paths,
            of which how often each state was visited is counted (:meth:`occupancy`); or a function
            of one chain's draw, a dict by site, whose dict of tensors is kept in its place.
        :param int thinning: keep the last of every so many draws, ``num_samples // thinning``.
        :param checkpoint: a folder to save the run in, every so many draws (``every``), at the end
            and at Ctrl-C. Its last two saves are kept, so that one is whole whatever happens. Each
            has all draws so far: where these are large, reduce them by ``keep``, or give them a
            folder of their own.
        :param bool resume: go on from the checkpoint, if there is one: draws are to the last bit
            those of a run that was never stopped. A finished run goes on to a larger
            ``num_samples``.
        :param draws_folder: keep what is kept there and not in memory, a draw after the other: see
            :meth:`read_draws`, also while the run goes on. ``get_samples`` reads all of it.
        :raises CheckpointError: if the checkpoint is damaged, or of other data, another model or
            other settings; or draws of another run are in ``draws_folder``.
        :raises NotEnoughMemory: if a sweep, or all draws, cannot fit in memory.

        Ctrl-C ends the run, with a warning; the draws that were made are kept.
        """
        if not (at_least(1, num_samples, num_chains) and at_least(0, warmup_steps)):
            raise ValueError(
                f"num_samples={num_samples}, warmup_steps={warmup_steps}, num_chains={num_chains}: "
                "expected at least 1, 0 and 1, integers."
            )
        check_keep(keep, thinning, num_samples, every)
        how: dict[str, Any] = {
            "num_particles": self.settings.num_particles,
            "resampling": self.settings.resampling,
            "ancestor_sampling": self.settings.ancestor_sampling,
            "num_chains": num_chains,
            "twist": self._twisting.how,
            "path_kernel": self.settings.path_kernel,
            "inner_kernel": self.inner_kernel,
        }
        kept: dict[str, Any] = {"keep": keep, "thinning": thinning}
        files = None if checkpoint is None else RunFiles(checkpoint, "ParticleGibbs")
        if draws_folder is not None:
            check_alone("ParticleGibbs.run(draws_folder=)")
        chains = ChainRun(
            partial(ParticleGibbsKernel, self.model, **how),
            initial_params,
            warmup_steps,
            files,
            *args,
            resume=resume,
            settings=described(how | kept | {"warmup_steps": warmup_steps}),
            **kept,
            draws_folder=draws_folder,
            model_kwargs=kwargs,
        )
        disable = hides_progbar(disable_progbar)
        with closing(chains):
            chains.go_on(warmup_steps + num_samples, every, hook_fn, disable)
            try:
                self._take(chains, num_samples)
            except KeyboardInterrupt:  # whoever stops a run wants its draws
                self._take(chains, num_samples)

    @staticmethod
    def read_draws(folder: str | os.PathLike[str]) -> Params:
        """Return the draws that a run keeps in a folder, also while it goes on elsewhere.

        :returns: by site, ``(C, S, ...)``, S so far, states in the smallest type: mapped, so that
            what is looked at is read.
        :raises CheckpointError: if there are none, or their description is damaged.

        Example::

            >>> import tempfile, pyro, pyro.distributions as dist
            >>> from pyro_ssl import MarkovTransition, ParticleGibbs, ssl_transition
            >>> def model(x):
            ...     with pyro.plate("series", x.shape[1]):
            ...         for t, z in ssl_transition("z", MarkovTransition(3), len(x)):
            ...             pyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=x[t])
            >>> pg, folder = ParticleGibbs(model, 5), tempfile.mkdtemp()
            >>> how = {"num_samples": 9, "draws_folder": folder, "disable_progbar": True}
            >>> pg.run(torch.randn(7, 4), **how)
            >>> ParticleGibbs.read_draws(folder)["z"].shape
            torch.Size([1, 9, 4, 7])
        """
        return read_draws(folder)

    @staticmethod
    def load_draws(path: str | os.PathLike[str]) -> SavedDraws:
        """Read the draws that a run has saved so far, without its model and its data.

        The run may be in progress, and over any number of ranks, whose sequences come back as one.

        :param path: the folder that :meth:`run` was given as ``checkpoint``.
        :returns: what has ``get_samples``, ``occupancy``, ``diagnostics`` and ``summary``, and
            ``num_draws``, of each chain.
        :raises CheckpointError: if there is no checkpoint that is whole.

        Example::

            >>> import tempfile
            >>> import pyro, pyro.distributions as dist
            >>> from pyro_ssl import MarkovTransition, ParticleGibbs, ssl_transition
            >>> transition, folder = MarkovTransition(2), tempfile.mkdtemp()
            >>> def model(x):
            ...     with pyro.plate("series", 4):
            ...         for t, z in ssl_transition("z", transition, 7):
            ...             pyro.sample("x", dist.Normal(z, 1.0), obs=x[t])
            >>> pg = ParticleGibbs(model)
            >>> pg.run(torch.randn(7, 4), num_samples=5, checkpoint=folder, disable_progbar=True)
            >>> ParticleGibbs.load_draws(folder).get_samples()["z"].shape
            torch.Size([5, 4, 7])
        """
        return SavedDraws(path)

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
