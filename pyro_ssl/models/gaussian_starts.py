"""Where a Gaussian SSL starts from, and how its emission is estimated after that.

Data that are not Gaussian have a stand-in that is: from it come start values, which the family then
mends.

Next file to read: ``gaussian.py``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..exact import LinearEmission
from .gaussian_autoregression import Autoregression, first_autoregression
from .gaussian_data import Series, take_emission
from .gaussian_lag_regression import AutoregressiveRegression
from .gaussian_linear import DRAWS, linear_start, start_around
from .gaussian_noise import form_of
from .gaussian_outputs import Outputs
from .gaussian_regression import EmissionRegression
from .gaussian_reweighted import ReweightedRegression
from .gaussian_start_values import start_transition, start_values
from .settings import checked

__all__ = ["Starts"]

#: weighted regressions on the first draws of the latents
FIRST_STEPS = 20


class Starts(Outputs):
    """A tracker that finds its start values."""

    dim: int
    _origin: Tensor | None = None  # of x, while data must stay the same: in a fit

    @checked
    @torch.no_grad()
    def start(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        inputs: Tensor | None = None,
        loading: Tensor | None = None,
        offset: Tensor | None = None,
        linear_steps: int = 100,
    ) -> None:
        """Set the start values of :meth:`fit` alone, as for a fit of :attr:`model` by Pyro's SVI.

        The transition's mean is then z_{t-1}, nearly, or that of the linear chain; see :meth:`fit`
        for the parameters.
        """
        data = self._take("fit", x, lengths, mask, inputs, anew=True)
        self._start(data, loading, offset, linear_steps)

    def _start(self, data: Series, loading: Any, offset: Any, linear_steps: int) -> float | None:
        """Set start values; return the linear model's loss, where it is what they are."""
        sizes = data.x.shape[2], self.dim, self.transition.like
        loading, offset = take_emission("GaussianSSL.fit", loading, offset, *sizes)
        self._set_inputs_unit(data)
        self.iterates = self.gap_factors = None
        seen = data.seen
        stand_in = data._replace(x=self.family.stand_in(data.x, seen))
        lag = first_autoregression(data) if self.config.get("autoregressive") else None
        if self.transition.around is None:
            behind = stand_in if lag is None else lag.residuals(stand_in)
            found = start_values(behind.x, seen, self.dim, loading, offset)
            emission = self.family.start(found.emission, data.x, seen)
            if offset is not None:
                emission = emission._replace(offset=offset)
            self._set_emission(emission, lag)
            start_transition(self.transition, found)
            return None
        if loading is not None or offset is not None:
            raise ValueError(
                "GaussianSSL.fit: loading or offset was given to a linear model, expected neither: "
                "exact EM finds them; write GaussianSSL(..., linear=False) to choose them."
            )
        given = stand_in._replace(inputs=self._standard_inputs(data.inputs))
        linear, loss, z, lag = linear_start(given, self.dim, linear_steps, lag)
        emission = self.family.start(start_around(self.transition, linear), data.x, data.seen)
        if not self.family.gaussian:
            given_paths = data.x, data.seen, DRAWS, emission
            regression = ReweightedRegression(self.family, *given_paths, (True, True), 0.0)
            emission = regression.update(z.transpose(0, 1), emission, FIRST_STEPS)
            loss = math.nan  # that of the stand-in is of other data
        self._set_emission(emission, lag)
        self._set_region(z, data.within)
        return loss

    def _regression(
        self,
        data: Series,
        num_paths: int,
        given: tuple[bool | None, bool, bool],
        averaging: float,
    ) -> EmissionRegression | ReweightedRegression:
        """Return the M-step of the emission.

        :param given: ``learn_loading``, and whether C was given, and b.
        """
        learn, has_loading, has_offset = given
        if self.family.gaussian:
            how = data.x, data.seen, num_paths, self.emission, bool(learn), averaging
            form = form_of(self.config["noise"], self.config.get("noise_rank"))
            lag = self.autoregression
            if lag is not None:
                return AutoregressiveRegression(lag, *how, form)
            return EmissionRegression(*how, form)
        if learn is None:
            learn = not (self.family.located or has_loading)
        learns = learn, learn or not (self.family.located or has_offset)
        return ReweightedRegression(
            *(self.family, data.x, data.seen, num_paths, self.emission, learns, averaging)
        )

    def _update_emission(
        self, regression: EmissionRegression | ReweightedRegression, paths: Tensor
    ) -> None:
        """Run the M-step, given paths ``(B M, T, D)``."""
        emission, lag = regression.update(paths, self.emission), None
        if isinstance(regression, AutoregressiveRegression):
            lag = regression.autoregression
        self._set_emission(emission, lag)

    def _origin_of_x(self) -> Tensor:
        """What is taken off x, ``(E,)``."""
        if self._origin is not None:
            return self._origin
        offset = self.emission.offset
        return offset.clone() if self.family.located else torch.zeros_like(offset)

    def _set_emission(self, emission: LinearEmission, lag: Autoregression | None = None) -> None:
        # Clones: C and b may be the caller's, and load_state_dict writes into buffers.
        self.loading, self.offset, self.covariance = (value.clone() for value in emission)
        if lag is not None:
            self.lag_matrix, self.lag_origin = (value.clone() for value in lag)
