"""What the arguments of the models may be: one table by name, and the decorator that asks it."""

from __future__ import annotations

import functools
import inspect
import math
import operator
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

__all__ = ["checked"]

F = TypeVar("F", bound=Callable[..., Any])

#: arguments that are whole numbers, with the least of each
_WHOLE = {
    **dict.fromkeys(["dim", "embedding_size", "hidden_size", "num_steps", "num_targets"], 1),
    **dict.fromkeys(["num_topics", "num_variables", "units", "vocab_size"], 1),
    **dict.fromkeys(
        ["batch_size", "linear_steps", "markov_starts", "num_gradient_steps", "num_particles"], 1
    ),
    **dict.fromkeys(["every", "num_paths", "num_sweeps", "num_valid_particles", "patience"], 1),
    **dict.fromkeys(["horizon", "num_chains", "num_samples", "num_layers", "num_series"], 1),
    **dict.fromkeys(["num_words", "window"], 1),
    **dict.fromkeys(["ancestor_sampling", "markov_steps", "num_epochs", "start"], 0),
    **dict.fromkeys(["input_size", "memory", "transition_steps", "warmup_steps"], 0),
}

_OPTIONAL = {"callback", "patience"}  # None means never, whatever the default

#: arguments that are True or False; anything else would count as True
_FLAGS = {
    *("autoregressive", "by_target", "disable_progbar", "draw_topics", "draw_transition"),
    *("learn_loading", "linear", "residual", "resume"),
}

#: arguments that are numbers: test and words for it
_REAL: dict[str, tuple[Callable[[float], bool], str]] = {
    **dict.fromkeys(
        ["anchor_weight", "bound", "decay", "min_scale", "sparsity"],
        (lambda value: 0.0 < value < math.inf, "a positive number"),
    ),
    **dict.fromkeys(
        ["least", "relevance"], (lambda value: 0.0 <= value <= 1.0, "a number from 0 to 1")
    ),
    "step_power": (lambda value: 0.5 < value <= 1.0, "a number above 0.5, 1 at most"),
    "clip": (lambda value: value > 0.0, "a positive number, or math.inf"),
    **dict.fromkeys(
        ["learning_rate", "squared_error", "weight_decay"],
        (lambda value: 0.0 <= value < math.inf, "a number of 0 or more"),
    ),
    **dict.fromkeys(
        ["averaging", "dropout"],
        (lambda value: 0.0 <= value < 1.0, "a number from 0 to below 1"),
    ),
}


def checked(method: F) -> F:
    """Let a method of a model refuse settings that are out of range before anything else.

    ``None`` passes where it is the default, or means never. Whole numbers of any type come in as
    ``int``, real ones as ``float``.

    Example::

        >>> class Thing:
        ...     @checked
        ...     def fit(self, x, *, batch_size=20):
        ...         return batch_size
        >>> Thing().fit(1.0, batch_size=0)
        Traceback (most recent call last):
            ...
        ValueError: Thing.fit: batch_size is 0, expected a whole number of 1 or more; write \
batch_size=20.
    """
    signature = inspect.signature(method)
    known = _WHOLE.keys() | _REAL.keys() | _FLAGS | {"callback"}
    defaults = {n: p.default for n, p in signature.parameters.items() if n in known}

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        where = type(args[0]).__name__
        where += "" if method.__name__ == "__init__" else f".{method.__name__}"
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            names = ", ".join(name for name in signature.parameters if name != "self")
            raise TypeError(f"{where}: {error}; expected some of {names}.") from None
        for name in defaults.keys() & given.arguments.keys():
            value, default = given.arguments[name], defaults[name]
            if value is not None or default is not None and name not in _OPTIONAL:
                given.arguments[name] = _checked(where, name, value, default)
        return method(*given.args, **given.kwargs)

    return call  # type: ignore[return-value]


def _checked(where: str, name: str, value: Any, default: Any) -> Any:
    expected, found = "a function of one record, or None", value
    try:
        if name == "callback":
            good = callable(value)
        elif name in _FLAGS:
            expected, good = "True or False", isinstance(value, bool | np.bool_)
            found = bool(value) if good else value
        elif name in _WHOLE:
            expected = f"a whole number of {_WHOLE[name]} or more"
            found = operator.index(value)
            good = found >= _WHOLE[name] and not isinstance(value, bool)
        else:
            test, expected = _REAL[name]
            found = float(value)
            good = test(found) and not isinstance(value, str | bool)
    except (TypeError, ValueError, RuntimeError):
        good = False
    if good:
        return found
    write = default if default not in (None, inspect.Parameter.empty) else _WHOLE.get(name, 1.0)
    write = "print" if name == "callback" else True if name in _FLAGS else write
    if hasattr(value, "__len__") and not isinstance(value, str):
        write, value = "len(...)" if name == "vocab_size" else write, f"a {type(value).__name__}"
    raise ValueError(f"{where}: {name} is {value}, expected {expected}; write {name}={write}.")
