r"""Dynamic evaluation: a language model goes on learning from the text that it is scored on.

Krause, Kahembwe, Murray & Renals 2018 ("Dynamic evaluation of neural sequence models", arXiv
1709.07432). The text is read in windows s_1, s_2, …; each is scored first, and learned from after:

.. math::
    θ_i = θ_{i-1} - η \frac{∇L(s_i)}{r + ε} + λ\, n\,(θ_0 - θ_{i-1}), \qquad
    n = \min(r / \bar r, 1/λ),

where r is the root mean square of each parameter's gradient on the training text, r̄ its mean over
all parameters, and θ_0 what was fitted (their equations 7 to 9). Without r it is gradient descent
with a pull back: r + ε and n are 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import whole
from ..errors import NonFiniteError
from ..gradients import gradients
from .language_epochs import after_start, detached

__all__ = ["DynamicEvaluation", "adapting_log_likelihood", "root_mean_square_gradient"]


class _Reads(Protocol):
    """What is asked of the model: ``hidden`` has no dropout."""

    vocab_size: int
    head: nn.Linear

    def hidden(self, words: Tensor, state: Any = None) -> tuple[Tensor, Any]: ...

    def named_parameters(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class DynamicEvaluation:
    """How a model adapts while it is scored; choose it on validation text.

    :param int window: steps that are scored before each update, and that gradients go back.
    :param float learning_rate: η.
    :param float pull: λ, how far each update goes back to the fitted parameters, from 0 to 1.
    :param rms: r by parameter, of :meth:`LanguageModel.gradient_rms`; by default plain gradients.
    :param float epsilon: ε, which keeps parameters of small r from moving far.
    :raises ValueError: if one is out of range.

    Example::

        >>> from pyro_ssl import LanguageModel
        >>> words = (torch.arange(60)[:, None] * torch.tensor([1, 2])) % 5
        >>> model = LanguageModel(5, embedding_size=4, hidden_size=8)
        >>> adapting = DynamicEvaluation(window=5, learning_rate=0.5)
        >>> model.perplexity(words, dynamic=adapting) < model.perplexity(words)
        True
    """

    window: int = 20
    learning_rate: float = 0.002
    pull: float = 0.02
    rms: Mapping[str, Tensor] | None = None
    epsilon: float = 0.001

    def __post_init__(self) -> None:
        whole("DynamicEvaluation", "window", self.window, 1)
        ranges = {"learning_rate": math.inf, "pull": 1.0, "epsilon": math.inf}
        for name, most in ranges.items():
            value = getattr(self, name)
            good = isinstance(value, int | float) and not isinstance(value, bool)
            if not good or not 0.0 <= value <= most or math.isinf(value):
                expected = "a number from 0 to 1" if most == 1.0 else "a finite number of 0 or more"
                default = type(self).__dataclass_fields__[name].default
                raise ValueError(
                    f"DynamicEvaluation: {name} is {value!r}, expected {expected}; write "
                    f"{name}={default}."
                )

    def rates(self, parameters: Mapping[str, Tensor]) -> dict[str, tuple[Any, Any]]:
        """Return of each parameter what multiplies its gradient, and the way back.

        :raises ValueError: if ``rms`` is of another model.
        """
        if self.rms is None:
            return dict.fromkeys(parameters, (self.learning_rate, self.pull))
        shapes = {name: tuple(value.shape) for name, value in parameters.items()}
        found = {name: tuple(value.shape) for name, value in self.rms.items()}
        if found != shapes:
            raise ValueError(
                f"DynamicEvaluation: rms is of parameters {found}, the model has {shapes}; write "
                "rms=model.gradient_rms(words) with this model."
            )
        mean = sum(r.sum() for r in self.rms.values()) / sum(r.numel() for r in self.rms.values())
        # λ min(r / r̄, 1/λ), which has a meaning at λ = 0 as well
        return {
            name: (self.learning_rate / (r + self.epsilon), (self.pull * r / mean).clamp(max=1.0))
            for name, r in self.rms.items()
        }


def _windows(model: _Reads, words: Tensor, active: Tensor, size: int) -> Any:
    """Of each window in turn its place, log p of its words in it with a gradient, ``(N,)``."""
    state: Any = None
    previous = after_start(words, active, model.vocab_size)
    for start in range(0, int(active.any(1).sum()), size):
        rows = slice(start, start + size)
        h, state = model.hidden(previous[rows], state)
        state, seen = detached(state), active[rows]
        yield rows, seen, -F.cross_entropy(model.head(h[seen]), words[rows][seen], reduction="none")


def adapting_log_likelihood(
    model: _Reads, words: Tensor, active: Tensor, dynamic: DynamicEvaluation
) -> Tensor:
    """Return log p(x_t | x_{1:t-1}), float64 ``(T, B)``, of a model that adapts as it reads.

    However it ends, the model's parameters are as they were, to the last bit.

    :raises NonFiniteError: if the parameters ran away.
    """
    if not isinstance(dynamic, DynamicEvaluation):
        raise TypeError(
            f"LanguageModel: dynamic is a {type(dynamic).__name__}, expected a DynamicEvaluation; "
            "write dynamic=DynamicEvaluation(window=20)."
        )
    log_p = torch.zeros(words.shape, dtype=torch.float64, device=words.device)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    rates = dynamic.rates(parameters)
    fitted = {name: value.detach().clone() for name, value in parameters.items()}
    try:
        with gradients():
            for rows, seen, found in _windows(model, words, active, dynamic.window):
                log_p[rows][seen] = found.detach().double()
                slopes = torch.autograd.grad(-found.mean(), [*parameters.values()])
                with torch.no_grad():
                    for (name, value), slope in zip(parameters.items(), slopes, strict=True):
                        rate, back = rates[name]
                        value += back * (fitted[name] - value) - rate * slope
    finally:
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(fitted[name])
    if not bool(log_p.isfinite().all()):
        raise NonFiniteError(
            f"DynamicEvaluation: found log-likelihoods that are not finite at learning_rate="
            f"{dynamic.learning_rate}, expected numbers; the parameters ran away from the fitted "
            f"ones, which are back. Write learning_rate={dynamic.learning_rate / 10:.2g}."
        )
    return log_p


def root_mean_square_gradient(
    model: _Reads, words: Tensor, active: Tensor, window: int
) -> dict[str, Tensor]:
    """Return the root mean square over windows of each parameter's gradient, by name."""
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    count = 0
    with gradients():
        for _, _, found in _windows(model, words, active, window):
            slopes = torch.autograd.grad(-found.mean(), [*parameters.values()])
            for square, slope in zip(total.values(), slopes, strict=True):
                square.addcmul_(slope, slope)
            count += 1
    return {name: (square / count).sqrt() for name, square in total.items()}
