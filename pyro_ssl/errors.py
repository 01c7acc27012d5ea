"""What can go wrong, by name.

Every message says which site, what was found, what was expected, and the line to write instead.
"""

import operator
from collections.abc import Sequence
from typing import Any

__all__ = [
    "CheckpointError",
    "EmissionNotLocalError",
    "LatentSiteError",
    "ModelError",
    "NonFiniteError",
    "NotEnoughMemory",
    "RankError",
    "SMCFailed",
    "SSLError",
    "SeveralBlocksError",
    "at_least",
    "check_level",
    "model_error",
    "positive_size",
]


class SSLError(Exception):
    """Base class of the errors that only this library raises."""


class LatentSiteError(SSLError, ValueError):
    """A latent site stands where the sampler cannot draw it."""


class SeveralBlocksError(LatentSiteError):
    """A model has paths that are not drawn together, and who runs it draws one block of paths.

    ``blocks``: what is drawn together, each a loop over the chains of a block.
    """

    def __init__(self, message: str, blocks: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.blocks = tuple(blocks)


class ModelError(SSLError, ValueError):
    """torch or Pyro refused a line of the model; the error's cause is theirs.

    It is an error of that kind too, so that who catches an ``IndexError`` still does.
    """


class EmissionNotLocalError(SSLError, ValueError):
    """The emission of x_t is not a function of z_t (and of data and parameters) alone."""


class NonFiniteError(SSLError, ValueError):
    """A log-density is NaN or +inf; nothing was updated."""


class NotEnoughMemory(SSLError, MemoryError):
    """A run would need more memory than there is; it was not begun."""


class SMCFailed(SSLError, RuntimeError):
    """All particles of a sequence have weight zero at some step; nothing was updated."""


class RankError(SSLError, RuntimeError):
    """Another rank of a distributed run failed, is gone, or does something else."""


class CheckpointError(SSLError, ValueError):
    """A saved file is missing, cut short, altered, or of another kind."""


def model_error(message: str, kind: type[Exception]) -> ModelError:
    """Return a :class:`ModelError` that is also an error of another kind."""
    if issubclass(ModelError, kind):
        return ModelError(message)
    mixed = {
        "__str__": Exception.__str__,
        "__reduce__": lambda self: (model_error, (message, kind)),
    }
    return type("ModelError", (ModelError, kind), mixed)(message)


def at_least(least: int, *values: Any) -> bool:
    """Return whether settings are integers, none of them below a bound."""
    try:
        return all(operator.index(value) >= least for value in values)
    except TypeError:
        return False


def check_level(where: str, level: float, write: str = "interval(0.9)") -> None:
    """Check that an interval can be of a level.

    :param str where: who asks, for the message.
    :param str write: what to write instead.
    :raises ValueError: if it is no probability strictly between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(
            f"{where}: found level={level}, expected a probability strictly between 0 and 1; "
            f"write {write} for 90 %."
        )


def positive_size(name: str, size: int) -> int:
    """Return a size as an integer.

    :raises ValueError: naming it, if it is no whole number, or less than 1.
    """
    try:
        number = 0 if isinstance(size, bool) else operator.index(size)
    except (TypeError, ValueError, RuntimeError):
        number = 0
    if number < 1:
        raise ValueError(f"{name} must be at least 1, found {size}; expected a whole number.")
    return number
