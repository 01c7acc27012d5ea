"""The recurrent cells of the models of words, by name, and the options of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..cells import MultiplicativeLSTM
from ..cells.lstm import start_forget_gate
from ..transitions import LSTMTransition, MultiplicativeLSTMTransition

__all__ = ["check_options", "make_layer", "make_transition"]

#: what each cell can be told
_OPTIONS = {
    "lstm": ("forget_bias",),
    "mlstm": ("squash", "weight_norm", "variational_dropout", "forget_bias"),
}

#: a value of each, for messages
_EXAMPLES = {
    "squash": '"output"',
    "weight_norm": "True",
    "variational_dropout": "0.2",
    "forget_bias": "1.0",
}


def check_options(where: str, cell: str, options: Mapping[str, Any]) -> None:
    """Check the name of a cell, and its options.

    :param str where: who asks, for the messages.
    :raises ValueError: if there is no such cell, or an option is out of range or of the other cell.
    :raises TypeError: if there is no such option.

    Example::

        >>> check_options("LanguageModel", "lstm", {"weight_norm": True})
        Traceback (most recent call last):
            ...
        ValueError: LanguageModel: cell="lstm" has no weight_norm, expected some of forget_bias; \
write cell="mlstm", weight_norm=True.
    """
    if cell not in _OPTIONS:
        names = ", ".join(f'"{name}"' for name in _OPTIONS)
        raise ValueError(f'{where}: cell is "{cell}", expected one of {names}.')
    for name, value in options.items():
        if name not in _EXAMPLES:
            raise TypeError(
                f"{where}: got an unexpected keyword argument {name!r}; expected some of "
                f"{', '.join(_EXAMPLES)}, or of the model's own."
            )
        if name not in _OPTIONS[cell]:
            raise ValueError(
                f'{where}: cell="{cell}" has no {name}, expected some of '
                f'{", ".join(_OPTIONS[cell])}; write cell="mlstm", {name}={_EXAMPLES[name]}.'
            )
        if fault := _fault(name, value):
            raise ValueError(
                f"{where}: {name} is {value!r}, expected {fault}; write {name}={_EXAMPLES[name]}."
            )


def _fault(name: str, value: Any) -> str:
    """What is expected of an option, if it is not that."""
    if name == "squash":
        return "" if value in ("cell", "output") else '"cell" or "output"'
    if name == "weight_norm":
        return "" if isinstance(value, bool) else "True or False"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "forget_bias":
        return "" if number and math.isfinite(value) else "a finite number"
    return "" if number and 0.0 <= value < 1.0 else "a number from 0 to below 1"


def make_layer(cell: str, input_size: int, hidden_size: int, options: Mapping[str, Any]) -> Any:
    """Return the cell as a layer, called as :class:`torch.nn.LSTM` is; options are checked."""
    if cell == "mlstm":
        return MultiplicativeLSTM(input_size, hidden_size, **options)
    layer = nn.LSTM(input_size, hidden_size)
    if "forget_bias" in options:
        start_forget_gate(layer, options["forget_bias"])
    return layer


def make_transition(
    cell: str, num_states: int, hidden_size: int, dropout: float, options: Mapping[str, Any]
) -> LSTMTransition | MultiplicativeLSTMTransition:
    """Return the transition over K states with this cell; options are checked."""
    if cell == "mlstm":
        return MultiplicativeLSTMTransition(num_states, hidden_size, dropout=dropout, **options)
    return LSTMTransition(num_states, hidden_size, dropout=dropout, **options)
