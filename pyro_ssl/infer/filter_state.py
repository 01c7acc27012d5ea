"""Where a particle filter stands: all that the next observation needs, to be kept or saved.

Next file to read: ``online.py``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checkpoint import load_checkpoint, save_checkpoint
from ..reading.program import ModelRun
from ..smc import Standing
from ..storage import reading
from ..transitions import map_state
from .plain import pack, unpack

__all__ = ["FilterState", "Track", "leaves_of"]


class Track(NamedTuple):
    """The particles of one filter; of a mixture each posterior sample has its own.

    ``z`` ``(B, P) + event_shape`` are the last latents; ``cell`` the tensors of the transition's
    state, in order, rows ``(B P, ...)``; ``weights`` ``(B, P)``, ``None`` where all are equal;
    ``log_evidence`` float64 ``(B,)``. ``expanded``: the emission is read as one that is not
    quadratic in z.
    """

    seed: int
    z: Tensor
    cell: tuple[Tensor, ...]
    weights: Tensor | None
    log_evidence: Tensor
    expanded: bool

    def standing(self, transition: Any) -> Standing:
        """Return where the particles stand, the state as the transition has it."""
        rows = self.z.shape[0] * self.z.shape[1]
        begin, leaves = transition.initial_state((rows,)), iter(self.cell)
        kinds = [[(s.shape, s.dtype) for s in some] for some in (leaves_of(begin), self.cell)]
        if kinds[0] != kinds[1] or self.z.shape[2:] != transition.event_shape:
            found, expected = ([tuple(shape) for shape, _ in kind] for kind in kinds)
            raise ValueError(
                f"The transition, a {type(transition).__name__}, has states of shapes {found}, "
                f"expected {expected}, as the state that the filter is to go on from; give the "
                "model that it was started with, or start anew: pf.start(x)."
            )
        return Standing(self.z, map_state(lambda _: next(leaves), begin), self.weights)


def leaves_of(state: Any) -> tuple[Tensor, ...]:
    """Return the tensors of a transition's state, in order."""
    found: list[Tensor] = []

    def keep(part: Tensor) -> Tensor:
        found.append(part)
        return part

    map_state(keep, state)
    return tuple(found)


@dataclass(frozen=True)
class FilterState:
    """Where a :class:`~pyro_ssl.ParticleFilter` stands after some steps; it never changes.

    ``num_steps`` is how many steps it has seen. ``log_evidence``, float64 ``batch_shape``, is
    log p̂(x_{1:t}) of each sequence, and ``log_likelihood``, ``(S,) + batch_shape``, has
    log p̂(x_t | x_{1:t-1}) of the S steps that came last. ``ended``, bool ``(B,)``, marks sequences
    whose ``lengths`` have ended them.

    Example::

        >>> import tempfile
        >>> import pyro, pyro.distributions as dist
        >>> from pyro_ssl import LSTMTransition, ParticleFilter, ssl_transition
        >>> transition, phi = LSTMTransition(3, 8), torch.ones(3, 6) / 6
        >>> def model(words):
        ...     with pyro.plate("documents", words.shape[1]):
        ...         for t, z in ssl_transition("z", transition, len(words)):
        ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
        >>> words, folder = torch.randint(6, (7, 4)), tempfile.mkdtemp()
        >>> pf = ParticleFilter(model, 20)
        >>> pf.start(words[:4]).save(folder)
        >>> state = pf.update(FilterState.load(folder), words[4:])     # in another process, say
        >>> state.num_steps, state.log_evidence.shape
        (7, torch.Size([4]))
    """

    num_steps: int
    batch_shape: torch.Size
    sequences: Tensor
    ended: Tensor
    tracks: tuple[Track, ...]
    log_evidence: Tensor
    log_likelihood: Tensor
    about: dict[str, Any]

    @property
    def num_particles(self) -> int:
        """P."""
        return self.tracks[0].z.shape[1]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a folder of safetensors and JSON, in place in one step; see ``checkpoint.py``.

        :raises OSError: if it cannot be written; what was saved there before is as it was.
        """
        tensors: dict[str, Tensor] = {}
        tree = {**vars(self), "tracks": tuple(tuple(track) for track in self.tracks)}
        save_checkpoint(path, "FilterState", tensors, {"state": pack(tree, tensors)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FilterState:
        """Read what :meth:`save` wrote, to the last bit, onto the devices that it was on.

        :raises CheckpointError: if it is missing, of another kind, cut short, or altered.
        """
        tensors, config = load_checkpoint(path, "FilterState")
        with reading(path):
            tree = unpack(config["state"], tensors)
            return cls(**{**tree, "tracks": tuple(Track(*track) for track in tree["tracks"])})

    def check(self, run: ModelRun, about: dict[str, Any], sequences: Tensor) -> None:
        """Check that new steps are of the model and the sequences that it is of.

        :raises ValueError: if they are of others.
        """
        name, shape = run.loop.name, run.loop.batch_shape
        if shape != self.batch_shape or not torch.equal(sequences, self.sequences):
            raise ValueError(
                f'Site "{name}": new steps of sequences {tuple(shape)}, expected '
                f"{tuple(self.batch_shape)}, those that the filter was started with, in their "
                "order; mask what was not observed: poutine.mask(mask=seen[t]) in the loop."
            )
        if about != self.about:
            differ = [key for key in about if about[key] != self.about.get(key)]
            found = ", ".join(f"{key} {about[key]}" for key in differ)
            expected = ", ".join(f"{key} {self.about.get(key)}" for key in differ)
            raise ValueError(
                f'Site "{name}": the filter has {found}, expected {expected}, as the state that it '
                "is to go on from; make the filter as it was made then, or start anew: pf.start(x)."
            )
        lengths = run.grid.lengths
        if lengths is not None and bool((self.ended & (lengths > 0)).any()):
            b = int((self.ended & (lengths > 0)).nonzero()[0])
            raise ValueError(
                f'Site "{name}": sequence {b} has new steps, expected none: lengths ended it '
                f"before step {self.num_steps}. Where observations are missing for a while write "
                "poutine.mask(mask=seen[t]) in the loop, and no lengths."
            )
        if lengths is None and bool(self.ended.any()):
            raise ValueError(
                f'Site "{name}": new steps without lengths, expected lengths of 0 for sequences '
                f"{self.ended.nonzero().flatten().tolist()[:5]}, which have ended; write "
                "lengths=(total - state.num_steps).clamp(min=0)."
            )
