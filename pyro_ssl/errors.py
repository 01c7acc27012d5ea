"""What can go wrong, by name.

Every message says which site, what was found, what was expected, and the line to write instead.
"""

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
    "model_error",
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
