"""JSB Chorales: Bach's chorales in four voices, as keys that sound at each quarter note.

*Reference*: Boulanger-Lewandowski, Bengio, Vincent, "Modeling Temporal Dependencies in
High-Dimensional Sequences: Application to Polyphonic Music Generation and Transcription", ICML
2012.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..steps import steps_within
from .files import as_path, find_file, open_text

__all__ = ["JSBChorales", "PianoRolls", "jsb_chorales"]

_LOWEST, _HIGHEST = 21, 108  # MIDI numbers of the first and the last key of a piano, A0 and C8
_PARTS = ("train", "valid", "test")


class PianoRolls(NamedTuple):
    """Pieces of music side by side, padded: which keys sound at each step.

    :param Tensor x: ``(T, B, 88)`` floats, 1 where a key sounds and 0 elsewhere, padding too; keys
        go from A0 (MIDI 21) to C8 (MIDI 108).
    :param Tensor lengths: ``(B,)`` int64, from 1 to T.
    """

    x: Tensor
    lengths: Tensor

    @property
    def mask(self) -> Tensor:
        """``(T, B)`` bool, True in the steps that a piece has."""
        return steps_within(self.lengths, len(self.x))

    @property
    def num_steps(self) -> int:
        """Steps of all pieces together."""
        return int(self.lengths.sum())

    def to(self, device: str | torch.device) -> "PianoRolls":
        """Move to a device."""
        return PianoRolls(self.x.to(device), self.lengths.to(device))


class JSBChorales(NamedTuple):
    """The chorales in their three published parts.

    :param PianoRolls train: To learn from.
    :param PianoRolls valid: To choose settings by.
    :param PianoRolls test: To report.
    """

    train: PianoRolls
    valid: PianoRolls
    test: PianoRolls


def jsb_chorales(path: str | os.PathLike[str]) -> JSBChorales:
    """Read the JSB Chorales (Boulanger-Lewandowski et al. 2012) from disk.

    229 chorales to learn from, 76 to choose by and 77 to report, of 13,807, 4,602 and 4,725 steps
    of a quarter note; in a few steps nothing sounds. Published likelihoods are nats per step: the
    sum of -log p of all test chorales, over the sum of their lengths.

    The file is the JSON form of the data, ``{"train": [...], "valid": [...], "test": [...]}``: a
    list of chorales in each, a list of steps in a chorale, and of MIDI numbers in a step. There are
    such files in steps of an eighth and a sixteenth note too, of which no likelihood is published;
    they are read if they are named themselves.

    :param path: ``jsb-chorales-quarter.json``, plain or ``.gz`` or ``.xz``, or its folder.
    :raises FileNotFoundError: if there is no such file.
    :raises ValueError: if the file is another one or damaged.

    **Example**::

        >>> import json, pathlib, tempfile
        >>> from pyro_ssl.datasets import jsb_chorales
        >>> chorale = [[60, 64, 67], [], [62]]
        >>> parts = {"train": [chorale, chorale[:1]], "valid": [chorale], "test": [chorale]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "jsb-chorales-quarter.json")
        ...     _ = file.write_text(json.dumps(parts))
        ...     train = jsb_chorales(folder).train
        >>> train.x.shape, train.lengths, train.x[:, 0].sum(-1)
        (torch.Size([3, 2, 88]), tensor([3, 1]), tensor([3., 0., 1.]))
    """
    caller = "jsb_chorales"
    file = find_file(
        as_path(path, caller),
        ["jsb-chorales-quarter.json", "jsb/jsb-chorales-quarter.json"],
        caller,
        "Expected jsb-chorales-quarter.json, plain or .gz or .xz, or its folder. Write "
        "jsb_chorales('path/to/jsb-chorales-quarter.json').",
    )
    with open_text(file, (".json",), caller, 2**24) as lines:
        text = "".join(lines)
    try:
        parts = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"{caller}: found no JSON in {file} ({error}), expected one object of train, valid and "
            "test. Is the file damaged?"
        ) from error
    if not isinstance(parts, dict) or any(not isinstance(parts.get(p), list) for p in _PARTS):
        found = sorted(parts) if isinstance(parts, dict) else type(parts).__name__
        raise ValueError(
            f"{caller}: found {found!r:.60} in {file}, expected an object of the lists train, "
            "valid and test, as in jsb-chorales-quarter.json."
        )
    return JSBChorales(*(_rolls(parts[part], part, file) for part in _PARTS))


def _rolls(chorales: list[Any], part: str, file: Path) -> PianoRolls:
    """One part: the places of all notes, and then a tensor of them."""
    if not chorales:
        raise ValueError(f"jsb_chorales: found no chorale in {part!r} of {file}, expected some.")
    places: list[tuple[int, int, int]] = []
    for column, chorale in enumerate(chorales):
        where = f"chorale {column} of {part!r} of {file}"
        if not isinstance(chorale, list) or not chorale:
            raise ValueError(
                f"jsb_chorales: found {chorale!r:.40} as {where}, expected a list of steps, one "
                "at least. Is the file damaged?"
            )
        for step, notes in enumerate(chorale):
            if not isinstance(notes, list) or not all(map(_is_key, notes)):
                raise ValueError(
                    f"jsb_chorales: found {notes!r:.40} as step {step} of {where}, expected a list "
                    f"of MIDI numbers from {_LOWEST} to {_HIGHEST}. Is the file damaged?"
                )
            places += [(step, column, note - _LOWEST) for note in notes]
    lengths = torch.tensor([*map(len, chorales)], dtype=torch.long, device="cpu")
    shape = (int(lengths.max()), len(chorales), _HIGHEST - _LOWEST + 1)
    x = torch.zeros(shape, dtype=torch.get_default_dtype(), device="cpu")
    x[tuple(torch.tensor(places, dtype=torch.long, device="cpu").view(-1, 3).T)] = 1.0
    return PianoRolls(x, lengths)


def _is_key(note: Any) -> bool:
    return type(note) is int and _LOWEST <= note <= _HIGHEST
