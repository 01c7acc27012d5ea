r"""Paths and what sensors would have said, drawn together, where x_t reads x_{t-1}.

Given z_{1:T} the sensors are a linear Gaussian chain (``gaussian_completion.py``), with
y_t = x_t - m,

.. math:: y_t = C z_t + b - m + G y_{t-1} + e_t, \qquad e_t \sim \mathrm{N}(0, R),

of which some entries are missing. Each turn is three steps that leave p(z, y | what was seen) as it
is:

1. z and y of a window of steps anew, given all others, from what they would be if the transition
   were linear about the path z that there is, with means μ_t(z) + F (z'_{t-1} - z_{t-1}) and
   covariance Q, and taken or not by Metropolis & Hastings; then those of the next window. With q_z
   that law of paths, and Z_z its density of all that is given, the ratio is

   .. math:: \frac{p(z') / q_z(z') \; Z_z}{p(z) / q_{z'}(z) \; Z_{z'}}:

   1 where the transition is a linear chain. Without it, steps would be small where sensors have
   little noise, for each of z and y tells what the other is.
2. what is missing of y given z, exactly;
3. z given y, by conditional SMC.

Next file to read: ``gaussian_tracking.py``, which asks for the draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal

from ..exact.measurements import LinearEmission, measurements
from ..gradients import evaluating
from ..infer.estep import SMCSettings, draw_paths
from ..infer.twisting import Twisting
from ..reading import Program
from ..smc import LinearSurrogate, QuadraticEmission, fit_surrogate, linear_along
from .gaussian_autoregression import Autoregression
from .gaussian_completion import Completion
from .gaussian_data import Series

__all__ = ["Both", "Turns"]

#: steps that are proposed at once, and so many windows of a turn at most: each takes all moments
WINDOW, MOST = 20, 10
#: steps whose missing entries are drawn given the path at once
BLOCK = 100


class Both(NamedTuple):
    """Paths ``(C, T, B, D)``, and y of all sensors ``(C, T, B, E)``, of C chains."""

    z: Tensor
    y: Tensor


class Linearised(NamedTuple):
    """A path's log p(z_{2:T} | z_1) ``(C, B)``, and μ_t(z) - F z_{t-1} ``(C, T, B, D)``."""

    log_p: Tensor
    drift: Tensor


class Turns:
    """Chains of draws, side by side; each begins with a draw of a linear stand-in.

    :param model: the Pyro model of the data.
    :param LinearEmission emission: C, b and R.
    :param Autoregression lag: G and m.
    :param Series data: of which something is missing.
    """

    def __init__(
        self,
        model: Callable[..., None],
        emission: LinearEmission,
        lag: Autoregression,
        data: Series,
        num_chains: int,
        num_particles: int,
    ) -> None:
        T, B = data.x.shape[:2]
        copies = torch.arange(B, device=data.x.device).repeat(num_chains)
        self.run = Program(model, data.select(copies, T).arguments, {}).run()
        self.emission, self.lag, self.num_chains = emission, lag, num_chains
        self.data, self.y, self.away = data, data.x - lag.origin, emission.offset - lag.origin
        self.first = self._first()
        whole = self._emission(self.first.y)
        twisting = Twisting("markov").chosen(self.run, whole, num_particles)
        self._settings = twisting.settings(SMCSettings(num_particles))

    def drawn(self, num_samples: int, warmup_steps: int) -> tuple[Tensor, Tensor]:
        """Return draws of z and of x, ``(S, T, B, .)``, S = num_chains num_samples."""
        kept, now = [], self.first
        for turn in range(warmup_steps + num_samples):
            now = self.turn(now)
            if turn >= warmup_steps:
                kept.append(now)
        z, y = (torch.stack(each, 1).flatten(0, 1) for each in zip(*kept, strict=True))
        return z, y + self.lag.origin

    def turn(self, now: Both) -> Both:
        """Take the three steps."""
        here, windows = self._linearised(now.z), parts_of(len(self.y), WINDOW)
        for i in torch.randperm(len(windows), device="cpu")[:MOST].sort()[0].tolist():
            now, here, _ = self.jump(now, here, windows[i])
        y = self._refilled(now)
        path = draw_paths(self.run, self._emission(y), side_by_side(now.z), self._settings)[1]
        return Both(path.unflatten(1, (self.num_chains, -1)).movedim(1, 0), y)

    def jump(
        self, now: Both, here: Linearised, window: tuple[int, int]
    ) -> tuple[Both, Linearised, Tensor]:
        """Take a window of the first; return which series it moved too, bool ``(C, B)``."""
        law = self.law.given_others(window)
        new = law.draw(here.drift, now)
        there = self._linearised(new.z)
        ratio = there.log_p - law.log_prob(new.z, here.drift) + law.evidence(here.drift, now)
        ratio -= here.log_p - law.log_prob(now.z, there.drift) + law.evidence(there.drift, now)
        taken = torch.rand_like(ratio).log() < ratio
        wide = taken[:, None, :, None]
        both = Both(*(torch.where(wide, *each) for each in zip(new, now, strict=True)))
        log_p = torch.where(taken, there.log_p, here.log_p)
        return both, Linearised(log_p, torch.where(wide, there.drift, here.drift)), taken

    def _refilled(self, now: Both) -> Tensor:
        """Draw what was not seen of y given z."""
        place, y = now.z @ self.emission.matrix.T + self.away, now.y.clone()
        for begin, end in parts_of(len(self.y), BLOCK):
            steps, others = others_of(self.data.within, begin, end)
            seen = self.data.seen[steps] | others
            part = Completion(self.lag.matrix, self.emission.covariance, seen)
            y[:, steps] = part.draw(place[:, steps], y[:, steps])
        return y

    def _first(self) -> Both:
        """Draw what a linear chain says; find the one that :meth:`jump` goes by."""
        transition, run, chains = self.run.transition, self.run, self.num_chains
        T, B, D = *self.y.shape[:2], self.emission.matrix.shape[1]
        nothing = Both(self.y.new_zeros(chains, T, B, D), self.y.expand(chains, *self.y.shape))
        mean, scale = self._moments(nothing.z)
        if (chain := transition.around) is None:
            fitted = fit_surrogate(transition, T, inputs=run.inputs)
            assert isinstance(fitted, LinearSurrogate)
            F, Q = fitted.matrix, fitted.covariance
            drift = (fitted.offset + fitted.center - F @ fitted.center).expand_as(mean)
        else:
            F, Q = chain.matrix.double(), chain.scale.double().square().diag()
            u = None if run.inputs is None else run.inputs[:, :B]
            drift = chain.drift(u).double().expand_as(mean)
        drift = torch.cat([mean[:, :1], drift[:, 1:]], 1)
        rest = scale[0, 0, 0].square().diag(), self.emission, self.lag, self.data
        law = LinearLaw(F, Q, *rest)
        found = law.given_others((0, T)).draw(drift, nothing)
        if chain is None:  # nearer to where the paths are than prior ones were
            paths = side_by_side(found.z), run.grid.lengths, run.inputs
            F = linear_along(transition, *paths).matrix
        steps = self._moments(found.z)[1][:, 1:][:, self.data.within[1:]]
        if steps.numel():
            Q = steps.square().mean((0, 1)).diag()
        self.law = LinearLaw(F, Q, *rest)
        return found

    def _moments(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """μ_t and σ_t along paths, float64 ``(C, T, B, D)``."""
        inputs = None if self.run.inputs is None else self.run.inputs.transpose(0, 1)
        with evaluating(self.run.transition):
            found = self.run.transition.path_moments(side_by_side(z).transpose(0, 1), inputs)
        mean, scale = (v.double().unflatten(0, (len(z), -1)).transpose(1, 2) for v in found)
        return mean, scale

    def _linearised(self, z: Tensor) -> Linearised:
        mean, scale = self._moments(z)
        each = Normal(mean, scale, validate_args=False).log_prob(z.double()).sum(-1)
        log_p = torch.where(self.data.within, each, 0.0)[:, 1:].sum(1)
        return Linearised(log_p, self.law.drift(mean, z))

    def _emission(self, y: Tensor) -> QuadraticEmission:
        """log p(x_t | z_t, x_{t-1}) of all sensors, about the z_t where it is highest."""
        C, _, R = (value.double() for value in self.emission)
        rest = side_by_side(y - self.lag.pulls(y) - self.away).double()
        about_0 = LinearEmission(C, torch.zeros_like(R[0]), R)
        H, value, constant = measurements(about_0, rest, torch.ones_like(rest, dtype=torch.bool))
        H = H[0, 0]  # that of all steps
        center = value @ torch.linalg.pinv(H).T
        constant = constant - 0.5 * (value - center @ H.T).square().sum(-1)
        center, constant, precision = (v.to(y) for v in (center, constant, H.T @ H))
        precision = precision.expand(*center.shape, -1)
        return QuadraticEmission(center, constant, torch.zeros_like(center), precision)


class LinearLaw:
    """p(z, y) where z_t is N(d_t + F z_{t-1}, Q), in float64.

    :param Tensor first: the covariance of z_1.
    """

    def __init__(
        self,
        F: Tensor,
        Q: Tensor,
        first: Tensor,
        emission: LinearEmission,
        lag: Autoregression,
        data: Series,
    ) -> None:
        C, b, R = (value.double() for value in emission)
        self.F, self.loading, self.away = F, C, b - lag.origin
        self.seen, self.within = data.seen, data.within
        self.whitening = torch.linalg.inv(torch.linalg.cholesky(Q))
        G = lag.matrix.double()
        self.matrix = torch.cat(
            [torch.cat([F, torch.zeros_like(C.T)], 1), torch.cat([C @ F, G], 1)]
        )
        self.noise, self.first = (
            torch.cat([torch.cat([V, V @ C.T], 1), torch.cat([C @ V, C @ V @ C.T + R], 1)])
            for V in (Q, first)
        )

    def drift(self, mean: Tensor, z: Tensor) -> Tensor:
        """d_t by which a path ``(C, T, B, D)`` has these means."""
        return torch.cat([mean[:, :1], mean[:, 1:] - z[:, :-1].double() @ self.F.T], 1)

    def given_others(self, window: tuple[int, int]) -> WindowLaw:
        """Return the law of some steps given all others."""
        return WindowLaw(self, *window)


class WindowLaw:
    """p(z, y) of steps ``begin`` to ``end`` given the others: draws, densities and evidence.

    Of the others the one before and the one after say all; what they say of each other, or of what
    was seen, is the same for all drifts that differ within the window and after it.
    """

    def __init__(self, law: LinearLaw, begin: int, end: int) -> None:
        self.law = law
        self.steps, others = others_of(law.within, begin, end)
        seen = law.seen[self.steps] | others
        whole = torch.cat([others.expand(*seen.shape[:2], len(law.F)), seen], -1)
        self.both = Completion(law.matrix, law.noise, whole, None if begin else law.first)

    def draw(self, drift: Tensor, now: Both) -> Both:
        """Draw z, and y where it was not seen, anew in the window."""
        found = self.both.draw(self._place(drift), self._entries(now)).to(now.y)
        z, y = now.z.clone(), now.y.clone()
        z[:, self.steps], y[:, self.steps] = found.split([z.shape[-1], y.shape[-1]], -1)
        return Both(z, y)

    def log_prob(self, z: Tensor, drift: Tensor) -> Tensor:
        """log p(z_t | z_{t-1}) of the window and of the step after it, but the first of all.

        Up to a constant, as is the evidence: ``(C, B)``.
        """
        z, drift = z[:, self.steps].double(), drift[:, self.steps]
        noise = z[:, 1:] - drift[:, 1:] - z[:, :-1] @ self.law.F.T
        each = -0.5 * (noise @ self.law.whitening.T).square().sum(-1)
        return torch.where(self.law.within[self.steps][1:], each, 0.0).sum(1)

    def evidence(self, drift: Tensor, now: Both) -> Tensor:
        """log p(all that is given), but for what does not depend on the drift: ``(C, B)``."""
        return self.both.score(self._place(drift), self._entries(now))

    def _place(self, drift: Tensor) -> Tensor:
        drift = drift[:, self.steps]
        return torch.cat([drift, drift @ self.law.loading.T + self.law.away], -1)

    def _entries(self, now: Both) -> Tensor:
        return torch.cat([now.z, now.y], -1)[:, self.steps].double()


def parts_of(num_steps: int, size: int) -> list[tuple[int, int]]:
    """Cut T steps into parts of a size, from a random place on."""
    cuts = range(int(torch.randint(size, (), device="cpu")) + 1, num_steps, size)
    return list(itertools.pairwise([0, *cuts, num_steps]))


def others_of(within: Tensor, begin: int, end: int) -> tuple[slice, Tensor]:
    """Return the steps of a part with one before it and one after it, and which are these.

    :param Tensor within: which steps there are, ``(T, B)``: those past an end tell nothing.
    :returns: the slice, and bool ``(steps, B, 1)``.
    """
    steps = slice(max(begin - 1, 0), end + 1)
    index = torch.arange(len(within), device=within.device)[steps]
    others = ((index < begin) | (index >= end)).unsqueeze(-1) & within[steps]
    return steps, others.unsqueeze(-1)


def side_by_side(value: Tensor) -> Tensor:
    """``(C, T, B, N)`` as ``(T, C B, N)``."""
    return value.transpose(0, 1).flatten(1, 2)
