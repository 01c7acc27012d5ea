r"""The Gaussian SSL, ready-made (Zheng et al. 2017, arXiv 1711.11179, Example 1, eqs. 9 and 10).

.. math::
    z_t \mid z_{1:t-1} \sim \mathrm{N}(μ(s_t), \mathrm{diag}\, σ^2(s_t)), \qquad
    x_t \mid z_t \sim \mathrm{N}(C z_t + b, R)

Fitted by stochastic EM: paths by conditional SMC, whose proposal is exact here; the LSTM by
gradient; R, and C and b if asked, in closed form. C and b are fixed by default: the LSTM's head
could take up any change of them. With ``linear=True`` the fit starts from exact EM of a
linear-Gaussian model, which finds C, and the LSTM learns what that leaves. With ``emission=`` x_t
are flags, counts or numbers with outliers, about the same C z_t + b (``gaussian_family.py``); with
``autoregressive=True`` x_t reads x_{t-1} as well (``gaussian_autoregression.py``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from pyro.optim import AdamW
from torch import Tensor

from ..infer import StochasticEM
from ..primitive import ssl_transition
from ..transitions import GaussianLSTMTransition, GaussianMultiplicativeLSTMTransition
from .base import EpochRecord
from .epochs import fit_epochs, whole_or_not
from .gaussian_autoregression import check_autoregressive
from .gaussian_data import Series, take_valid
from .gaussian_family import check_family, family_of
from .gaussian_iterates import kept_with
from .gaussian_linear import chain_to_fill
from .gaussian_model import Given, em_epoch
from .gaussian_noise import check_rank
from .gaussian_starts import Starts
from .saved_fit import saved
from .settings import checked

__all__ = ["GaussianSSL"]

INFERENCE = ("particle_gibbs", "smc")
_TRANSITIONS = {"lstm": GaussianLSTMTransition, "mlstm": GaussianMultiplicativeLSTMTransition}


class GaussianSSL(Starts):
    r"""A path in R^D with long memory behind E sensors: of numbers, flags or counts.

    :param int dim: D, dimension of the latents.
    :param int hidden_size: H, units of the LSTM.
    :param str cell: ``"lstm"`` or ``"mlstm"``.
    :param str reads: ``"increments"``: the LSTM reads the last step of the path, to find the next;
        or ``"positions"``, as in the paper: what it learns is then bound to where the path was.
    :param bool residual: the transition's mean is a step from z_{t-1}; increments ask for it.
    :param float dropout: dropout of the LSTM's output while it learns. Where the data are one short
        sequence, an LSTM without it soon takes the noise for the path.
    :param bool linear: let the transition be a linear chain, A z_{t-1} + b + G u_t, that the LSTM
        corrects, in place of ``residual``. The fit starts from exact EM of the chain and C, and is
        that model until the LSTM has found something: for many sensors of one process. C, and with
        it the latents, is identified as in :class:`~pyro_ssl.exact.LinearGaussianEM`.
    :param int input_size: U, exogenous inputs of the transition, known at every step.
    :param str noise: R is ``"full"``, the default, or ``"diagonal"``: for many sensors, or many
        holes; or ``"low-rank"``, between them: what sensors share has ``noise_rank`` dimensions, 1
        by default. Of Gaussian emissions alone: other sensors are independent given z_t.
    :param str emission: what x_t is, with η = C z_t + b: ``"gaussian"``, numbers about η;
        ``"student_t"``, numbers about η some of which may be far off, by noise of 4 degrees of
        freedom and a scale for each sensor; ``"bernoulli"``, flags, 0 or 1, with log-odds η; or
        ``"poisson"``, counts, with rates exp η.
    :param bool autoregressive: let Gaussian x_t read x_{t-1} too, past the latents: η = C z_t + b +
        G (x_{t-1} - m), m the sensors' means, without those that were not observed a step ago. For
        sensors that say more of their own next step than few latents can. :meth:`smooth`,
        :meth:`impute` and :meth:`forecast` draw what was missing; :meth:`fit`, :meth:`filter` and
        :meth:`log_likelihood` take a sensor without a last value to have been at m. G is
        :attr:`autoregression`; data in parts, one call for each, lose the step before each.
    :param sensors: names of the sensors; by default the columns of the table that is fitted.

    Data are time first, ``x`` ``(T, B, E)``, with ``lengths`` ``(B,)``, ``mask`` ``(T, B)``, true
    where x_t was observed, or ``(T, B, E)``, sensor by sensor, and ``inputs`` ``(T, B, U)``, or
    ``(T, U)`` for all series: tensors, arrays or lists of any number type. NaN is a sensor that was
    not observed. Origin and unit of x and of inputs do not matter. A DataFrame is one series, and a
    list of them several, with a column for each sensor; results then go on with its index, in their
    ``to_frame()``. :attr:`model` is the Pyro model, for any other inference.

    Example::

        >>> from pyro_ssl.datasets import noisy_curve
        >>> x = noisy_curve("circle", num_steps=30).x
        >>> ssl = GaussianSSL(dim=2, hidden_size=8)
        >>> history = ssl.fit(x, num_epochs=2, num_paths=2, disable_progbar=True)
        >>> ssl.filter(x).mean.shape, ssl.forecast(x, horizon=5).mean.shape
        (torch.Size([30, 1, 2]), torch.Size([5, 1, 2]))
        >>> counts = torch.poisson(x.exp())
        >>> ssl = GaussianSSL(dim=1, hidden_size=8, emission="poisson")
        >>> history = ssl.fit(counts, num_epochs=2, num_paths=2, disable_progbar=True)
        >>> ssl.forecast(counts, horizon=5).samples.frac().any()
        tensor(False)
    """

    _how_to_fit = "ssl.fit(x)"

    @checked
    def __init__(
        self,
        dim: int,
        *,
        hidden_size: int = 32,
        cell: str = "lstm",
        reads: str = "increments",
        residual: bool = True,
        dropout: float = 0.5,
        linear: bool = False,
        input_size: int = 0,
        noise: str | None = None,
        noise_rank: int | None = None,
        emission: str = "gaussian",
        autoregressive: bool = False,
        sensors: Sequence[str] | None = None,
    ) -> None:
        _, noise = family_of(emission, noise)
        noise_rank = check_rank(noise, noise_rank)
        check_autoregressive(autoregressive, emission)
        if cell not in _TRANSITIONS:
            raise ValueError(f'cell is "{cell}", expected one of {sorted(_TRANSITIONS)}.')
        options: dict[str, Any] = {"reads": reads, "residual": residual, "dropout": dropout}
        more: dict[str, Any] = {"linear": linear, "input_size": input_size, "noise": noise}
        more |= {} if noise_rank is None else {"noise_rank": noise_rank}
        more |= {} if emission == "gaussian" else {"emission": emission}
        more |= {"autoregressive": True} if autoregressive else {}
        more |= {} if sensors is None else {"sensors": list(map(str, sensors))}
        super().__init__(dim=dim, hidden_size=hidden_size, cell=cell, **options, **more)
        options |= {"around": chain_to_fill(dim, input_size)} if linear else {}
        self.transition = _TRANSITIONS[cell](dim, hidden_size, input_size=input_size, **options)
        self.dim = self.transition.dim

    def model(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
        num_paths: int = 1,
        inputs: Tensor | None = None,
        index: Tensor | None = None,
    ) -> None:
        """Run the generative process of the class's docstring, as a Pyro model.

        Its site ``"x"`` holds x - b, and during a fit x less the b of its start: far from 0,
        differences of x would drown in rounding. Flags and counts it holds as they are.

        :param int num_paths: copies of each sequence side by side, which share its data.
        :param Tensor index: of all copies ``(B num_paths,)`` those to run it on; by default all.
        """
        loading, b, covariance = self.emission
        pyro.module("transition", self.transition)
        origin = self._origin_of_x()
        B = x.shape[1]
        which = torch.arange(B * num_paths, device=x.device) if index is None else index
        data = Series(x, lengths, mask, self._standard_inputs(inputs)).select(which % B, len(x))
        lag = self.autoregression
        shift = None if lag is None else lag.shifts(data)
        given = {"lengths": data.lengths, "inputs": data.inputs}
        how = covariance, self.config["noise"], shift
        seen, x = self.family.observe(Given(data.x - origin, data.mask, *how))
        with pyro.plate("sequences", B * num_paths, subsample=index):
            for t, z in ssl_transition("z", self.transition, len(x), **given):
                pyro.sample("x", seen(z @ loading.T + (b - origin), t), obs=x[t])

    @checked
    @whole_or_not
    @saved
    def fit(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        inputs: Tensor | None = None,
        valid: tuple[Any, ...] | None = None,
        loading: Tensor | None = None,
        offset: Tensor | None = None,
        learn_loading: bool | None = None,
        num_epochs: int = 60,
        batch_size: int | None = None,
        linear_steps: int = 100,
        num_particles: int = 10,
        num_paths: int = 8,
        inference: str = "particle_gibbs",
        num_gradient_steps: int = 3,
        learning_rate: float = 0.01,
        weight_decay: float = 0.01,
        ancestor_sampling: int | None = None,
        twist: Any = "markov",
        averaging: float = 0.8,
        num_valid_particles: int = 100,
        patience: int | None = None,
        callback: Callable[[EpochRecord], None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        every: int = 1,
        resume: bool = False,
        disable_progbar: bool | None = None,
    ) -> list[EpochRecord]:
        """Fit by stochastic EM, from start values that the data give.

        R starts from second differences of x, noise alone where the path is smooth; the transition
        starts with steps well below the noise, so that the first paths are smooth. With ``linear``
        the first epoch is exact EM of the linear-Gaussian model alone. Flags, counts and numbers
        with outliers start from a Gaussian stand-in: the loss of such a first epoch is NaN. With
        ``autoregressive`` G starts from half of a ridge regression of x_t on x_{t-1}, all else from
        what that leaves, and with ``linear`` EM finds both; G is estimated in every epoch.

        :param Tensor x: ``(T, B, E)``.
        :param valid: ``(x, lengths)`` or ``(x, lengths, inputs)`` to choose by, with NaN where
            nothing was observed; the epoch of the lowest mean negative log-likelihood of a step is
            the one that is kept.
        :param Tensor loading: C, ``(E, D)``, and ``offset`` b, ``(E,)``. By default each latent is
            a coordinate of x, standardised (E = D), or a principal component of x (E > D).
        :param bool learn_loading: estimate C and b too, by regression of x on the paths: of C what
            does not only move the latents to other coordinates. By default not, but of flags and
            counts what was not given, by steps of penalised regression.
        :param int batch_size: sequences in a step of EM; by default all, at the price of memory.
        :param int linear_steps: of exact EM at most, where the model is ``linear``.
        :param int num_particles: P.
        :param int num_paths: paths drawn of each sequence, of which the M-step is the average.
        :param str inference: ``"particle_gibbs"``; or ``"smc"``, unconditional, which at one
            particle is the factored inference: it ignores later observations.
        :param twist: lets particles look ahead; see :class:`~pyro_ssl.ParticleGibbs`.
        :param float averaging: weight of the past in the moments that C, b and R come from.
        :param int num_valid_particles: P of the validation score.
        :param checkpoint: a folder to save the fit in, after every so many epochs (``every``);
            with ``resume`` it goes on from there: see :class:`~pyro_ssl.models.Model`.
        :param patience: this, ``callback``, ``disable_progbar``, and how a fit ends, Ctrl-C
            included: see :func:`~pyro_ssl.models.fit_epochs`.
        :returns: :attr:`history`, one record per epoch.
        :raises ValueError: if nothing was observed, C or b does not fit, or on another inference.
        """
        if inference not in INFERENCE:
            raise ValueError(f'inference is "{inference}", expected one of {INFERENCE}.')
        data = self._take("fit", x, lengths, mask, inputs, anew=True)
        self._name_sensors(data.labels)
        sizes = self.transition.like, data.x.shape[2], self.transition.input_size
        valid_data = take_valid("GaussianSSL.fit", valid, *sizes, self.sensors)
        if valid_data is not None:
            check_family("GaussianSSL.fit(valid=)", valid_data, self.family)
        linear_loss = self._start(data, loading, offset, linear_steps)
        given = learn_loading, loading is not None, offset is not None
        regression = self._regression(data, num_paths, given, averaging)
        em = StochasticEM(
            self.model,
            AdamW({"lr": learning_rate, "weight_decay": weight_decay}),
            num_particles,
            conditional=inference == "particle_gibbs",
            num_gradient_steps=num_gradient_steps,
            ancestor_sampling=ancestor_sampling,
            twist=twist,
        )

        def step() -> tuple[float, float]:
            if linear_loss is not None and not self.history:
                return linear_loss, math.nan
            loss, moved = em_epoch(em, data, num_paths, batch_size)
            self._update_emission(regression, em.paths)
            self._set_region(em.paths.transpose(0, 1), data.within)
            self.iterates = kept_with(self.iterates, self.transition, len(self.history) + 1)
            return loss / regression.num_observed, moved

        def score(*valid: Any) -> dict[str, float]:
            found = Series(*valid)
            P = num_valid_particles
            log_p = self.log_likelihood(
                found.x, found.lengths, inputs=found.inputs, num_particles=P
            )
            return {"nll": -float(log_p.sum() / found.num_seen)}

        how_it_ends: dict[str, Any] = {"patience": patience, "callback": callback}
        how_it_ends |= {"valid": valid_data, "score": score, "monitor": "nll"}
        how_it_ends["disable_progbar"] = disable_progbar
        how_it_ends |= {"parts": {"em": em, "regression": regression}}
        self._origin = self._origin_of_x()
        try:
            return fit_epochs(self, num_epochs, step, **how_it_ends)
        finally:
            self._origin = None
