"""What the ready-made models have in common: their state, their files and their history."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..checkpoint import load_checkpoint, save_checkpoint
from ..infer.plain import pack, unpack
from ..infer.run_files import RunFiles
from ..storage import reading
from ..transitions.base import like_of

__all__ = ["EpochRecord", "Model"]

#: before the names of tensors that are saved beside parameters and buffers
_BESIDE = "beside."
#: before those of arguments that are tensors
_GIVEN = "given."


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

    :param config: the arguments of the subclass, as JSON can hold them, or tensors.

    Every ``fit`` takes ``checkpoint``, a folder in which it is saved before its first epoch and
    after ``every`` so many. With ``resume=True`` it goes on from there, if anything is there, and
    comes to the same model, to the last bit, as if it had not been stopped; a finished one goes on
    to a larger ``num_epochs``. Data and settings have to be the same.

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
    #: the checkpoints of a fit, while it runs; see ``saved_fit.py``
    _saving: Any = None

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
        """Write a folder of safetensors and JSON; see :mod:`pyro_ssl.checkpoint`.

        :raises RuntimeError: if the model is not fitted.
        """
        self._fitted()
        given = {n: value for n, value in self.config.items() if isinstance(value, Tensor)}
        config = {n: value for n, value in self.config.items() if n not in given}
        saved = {"model": config, "history": [asdict(record) for record in self.history]}
        tensors, beside = self.state_dict(), self._beside()
        tensors |= {_GIVEN + name: value for name, value in given.items()}
        if beside is not None:
            own: dict[str, Tensor] = {}
            saved["beside"] = pack(beside, own)
            tensors |= {_BESIDE + name: value for name, value in own.items()}
        save_checkpoint(path, type(self).__name__, tensors, saved)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote, onto the CPU, in ``eval()`` mode.

        Or what a ``fit`` has saved so far in its ``checkpoint``, which may be in progress: the best
        epoch, or the last one where none was scored. Random generators stay as they are.

        :raises CheckpointError: if it is missing, of another kind, cut short, altered, or does not
            fit the model.
        """
        tensors, saved = _saved_by_fit(path, cls.__name__) or load_checkpoint(path, cls.__name__)
        own, given = _taken(tensors, _BESIDE), _taken(tensors, _GIVEN)
        expected = f"what fits this version of {cls.__name__}; fit and save the model anew."
        with reading(path, expected), torch.random.fork_rng(devices=[]):
            config = saved["model"] | given
            with torch.device("meta"):  # sizes are compared before they take memory
                sizes = cls(**config)
            _check_sizes(sizes, tensors)
            model = cls(**config)
            dtype = next(value.dtype for value in tensors.values() if value.is_floating_point())
            model.to("cpu", dtype).load_state_dict(tensors)
            model._fitted()
            model._check_values()
            model.history = [_record(record) for record in saved["history"]]
            if saved.get("beside") is not None:
                model._put_beside(unpack(saved["beside"], own))
        return model.eval()

    def _beside(self) -> Any:
        """Return what is saved beside parameters and buffers, for a subclass to have some."""
        return None

    def _put_beside(self, state: Any) -> None:
        """Put back what :meth:`_beside` returned, onto the CPU."""
        raise ValueError("something beside a model that has nothing beside it")

    def _check_dtype(self, where: str) -> None:
        """Check that the model can learn and score as its weights are.

        :raises ValueError: in half precision, in which small probabilities are 0.
        """
        dtype = like_of(self).dtype
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"{where}: the model is {dtype}, expected torch.float32 or torch.float64; write "
                "model.float()."
            )

    def _check_values(self) -> None:
        """Check that what is loaded can have been fitted, for a subclass to extend.

        :raises ValueError: if it cannot.
        """
        bad = [name for name, value in self.state_dict().items() if not value.isfinite().all()]
        if bad:
            raise ValueError(f"numbers that are not finite in {bad[:3]}")

    def _sizes_of_buffers(self, tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
        """Shapes of the buffers that only a fit can know, given what is loaded."""
        return {}

    def _fitted(self) -> tuple[Tensor, ...]:
        """Return the model's own buffers, in the order in which they were registered.

        :raises RuntimeError: if one of them was never set.
        """
        own = [v for n, v in self._buffers.items() if n not in self._non_persistent_buffers_set]
        values = tuple(value for value in own if value is not None)
        if len(values) < len(own):
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


def _saved_by_fit(path: Any, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What a fit's checkpoint has of its model, if the path is one."""
    if not (isinstance(path, str | os.PathLike) and str(path)):
        return None
    fits = RunFiles(path, f"{kind}.fit", alone=True)
    if os.path.exists(fits.folder / "manifest.json") or not fits.there:
        return None
    _, state = fits.load()
    with reading(path):
        saved = {"model": state["config"], "history": state["history"]}
        return state["best"] or state["model"], saved


def _taken(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take those whose names begin so out of the others."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _check_sizes(model: Model, tensors: dict[str, Tensor]) -> None:
    """Compare names, shapes and dtypes with those of a model that takes no memory."""
    sizes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    sizes |= {name: tuple(shape) for name, shape in model._sizes_of_buffers(tensors).items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    # What is missing or unknown first: other sizes may follow from it.
    for name in sorted(sizes.keys() | found.keys(), key=lambda n: (n in sizes and n in found, n)):
        if sizes.get(name) != found.get(name):
            raise ValueError(
                f"{name} of shape {found.get(name)}, where {sizes.get(name)} should be"
            )
    dtypes = {value.dtype for value in tensors.values()}
    if len(dtypes) > 1 or not all(dtype.is_floating_point for dtype in dtypes):
        raise ValueError(f"tensors of {sorted(map(str, dtypes))}, where one float dtype should be")


def _record(saved: dict[str, Any]) -> EpochRecord:
    """A record of the history, if it is one."""
    record = EpochRecord(**saved)
    numbers = [record.loss, record.change_rate, record.score, record.seconds]
    numbers += list(record.metrics.values())
    if type(record.epoch) is not int or not all(type(n) in (int, float) for n in numbers):
        raise ValueError(f"a history with the record {saved}")
    return record
