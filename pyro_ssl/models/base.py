"""What the ready-made models have in common: their state, their files and their history."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from torch import Tensor, nn

from ..errors import CheckpointError
from .checkpoint import load_checkpoint, save_checkpoint

__all__ = ["EpochRecord", "Model"]


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch of a fit came to; NaN where a model or a fit has no such number.

    ``loss`` is what the epoch lowered, per token, step or window, while the parameters moved and
    dropout was on. ``change_rate`` is the share of latents that the epoch renewed. ``score`` is
    that of the validation data, by which the best epoch is chosen: lower is better. ``seconds``
    leaves validation out. ``metrics`` has all validation scores by their names: ``"perplexity"``,
    or ``"nll"`` (mean negative log-likelihood) and ``"mse"``.
    """

    epoch: int
    loss: float
    change_rate: float
    score: float
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)


class Model(nn.Module):
    """A model with its own ``fit``; all that is fitted is a parameter or a buffer.

    ``to``, ``train``, ``eval``, ``parameters`` and ``state_dict`` are those of
    :class:`torch.nn.Module`. ``type(model)(**model.config)`` is an unfitted model of the same
    shape, into which ``load_state_dict`` puts what was fitted.

    :param config: the arguments of the subclass, as JSON can hold them.

    A subclass registers what only a fit can know as buffers that are ``None``.

    Example::

        >>> import torch
        >>> from pyro_ssl import GaussianSSL
        >>> ssl = GaussianSSL(dim=2, hidden_size=4)
        >>> history = ssl.fit(torch.randn(9, 1, 2), num_epochs=1, disable_progbar=True)
        >>> copy = GaussianSSL(**ssl.config)
        >>> copy.load_state_dict(ssl.state_dict())
        <All keys matched successfully>
        >>> torch.equal(copy.covariance, ssl.covariance)
        True
    """

    _how_to_fit = "model.fit(data)"

    def __init__(self, **config: Any) -> None:
        super().__init__()
        #: the arguments that the model was made with
        self.config = config
        #: one record for each epoch of the last fit
        self.history: list[EpochRecord] = []

    @property
    def num_parameters(self) -> int:
        """How many numbers are learned by gradient."""
        return sum(parameter.numel() for parameter in self.parameters())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a folder of safetensors and JSON; see :mod:`pyro_ssl.models.checkpoint`.

        :raises RuntimeError: if the model is not fitted.
        """
        self._fitted()
        saved = {"model": self.config, "history": [asdict(record) for record in self.history]}
        save_checkpoint(path, type(self).__name__, self.state_dict(), saved)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote, onto the CPU, in ``eval()`` mode.

        :raises CheckpointError: if it is missing, of another kind, cut short, altered, or does not
            fit the model.
        """
        tensors, saved = load_checkpoint(path, cls.__name__)
        try:
            model = cls(**saved["model"])
            first = next(name for name, _ in model.named_parameters())
            model.to("cpu", tensors[first].dtype).load_state_dict(tensors)
            model._fitted()
            model.history = [EpochRecord(**record) for record in saved["history"]]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            why = " ".join(str(error).split())
            raise CheckpointError(
                f"{path}: what was saved does not fit this version of {cls.__name__} ({why}); fit "
                "and save the model anew."
            ) from error
        return model.eval()

    def _fitted(self) -> tuple[Tensor, ...]:
        """Return the model's own buffers, in the order in which they were registered.

        :raises RuntimeError: if one of them was never set.
        """
        values = tuple(value for value in self._buffers.values() if value is not None)
        if len(values) < len(self._buffers):
            raise RuntimeError(
                f"{type(self).__name__} is not fitted yet; write {self._how_to_fit} first."
            )
        return values

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Make room for buffers that are not set here, or have another shape; then as torch."""
        like = next(self.parameters())
        for name, buffer in self._buffers.items():
            found = state_dict.get(prefix + name)
            if found is not None and (buffer is None or buffer.shape != found.shape):
                self._buffers[name] = like.new_empty(found.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
