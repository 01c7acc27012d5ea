"""What decides the next step of a run: taken out of the objects that hold it, and put back.

``KEPT`` lists, for each class of the library that changes from step to step, the attributes that
do; all others are settings, or found anew. Random generators, Pyro's optimisers, its parameter
store and its kernels have functions of their own.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyro
import torch
from pyro.optim import PyroOptim
from torch import Tensor

from ..distributed import current
from ..errors import CheckpointError
from .diagnostics import Diagnostics
from .globals import GlobalSites
from .markov_em import MarkovEM
from .mean_field import MeanFieldGuide
from .path_memory import PathMemory
from .plain import OfRank, OfRanks
from .point import PointSites
from .shards import memory_state, own_twisting, put_memory, twisting_state
from .twisting import Twisting

__all__ = [
    "KEPT",
    "generators",
    "optimiser_state",
    "parameters",
    "put_generators",
    "put_optimiser",
    "put_parameters",
    "put_state",
    "state_of",
]

#: attributes that change from step to step, by class
KEPT: dict[type, tuple[str, ...]] = {
    Twisting: (
        *("surrogate", "trial", "trial_without", "_along", "_along_for", "_sums", "_fitted"),
        *("_chosen_for", "_told"),
    ),
    Diagnostics: ("_changed", "_active", "num_sweeps", "series", "moved", "_draws"),
    PathMemory: ("_paths", "_known", "_full_shape", "_num_steps", "_sites"),
    GlobalSites: ("values", "counts", "_not_conjugate"),
    PointSites: ("names",),
    MeanFieldGuide: ("_checked", "_pairs", "_path_name"),
    MarkovEM: ("_chain",),
}

_GIVEN = "as given"
_CLEARED = (
    "Pyro's store does not hold the parameters of the model any more, expected those of the last "
    "step; save before pyro.clear_param_store()."
)


def state_of(owner: Any) -> dict[str, Any]:
    """Return the attributes of an object of the library that change from step to step.

    What a rank has of its own is marked: see ``shards.py``.
    """
    if isinstance(owner, PathMemory):
        return memory_state(owner)
    state = {name: getattr(owner, name) for name in KEPT[type(owner)]}
    if isinstance(owner, Twisting):  # of any class, where it was given
        state["surrogate"] = _GIVEN if owner.surrogate is owner.how else owner.surrogate
        return twisting_state(state)
    return state


def put_state(owner: Any, state: Mapping[str, Any]) -> None:
    """Give an object the attributes that :func:`state_of` returned.

    :raises ValueError: if they are of another class.
    """
    if isinstance(owner, PathMemory):
        put_memory(owner, state)
        return
    if state.keys() != set(KEPT[type(owner)]):
        raise ValueError(f"{sorted(state)} for a {type(owner).__name__}")
    if isinstance(owner, Twisting):
        state = own_twisting(state)
    for name, value in state.items():
        setattr(owner, name, owner.how if name == "surrogate" and value == _GIVEN else value)


# ------------------------------------------------------------------------------ generators


def generators() -> dict[str, Any]:
    """Return the state of the generators of torch, CUDA, numpy and Python."""
    (shared, *cuda), own = current().streams
    name, keys, *rest = np.random.get_state()
    words_of_numpy = torch.as_tensor(np.asarray(keys).astype(np.int64), device="cpu")
    version, words, gauss = random.getstate()
    state = {
        "torch": own,
        "numpy": (str(name), words_of_numpy, *map(_plain, rest)),
        "python": (version, torch.tensor(words, device="cpu"), gauss),
    }
    return {"torch": shared, "cuda": cuda, "own": OfRank(state)}


def put_generators(state: Mapping[str, Any]) -> None:
    """Go on with the random numbers from a state that :func:`generators` returned.

    Where there are more or fewer ranks now, their own streams of torch's begin anew.
    """
    each: OfRanks = state["own"]
    own = each.mine if each.are_these else each[0] | {"torch": None}
    current().streams = [state["torch"], *state["cuda"]], own["torch"]
    name, keys, *rest = own["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, words, gauss = own["python"]
    random.setstate((version, tuple(words.tolist()), gauss))


def _plain(number: Any) -> int | float:
    return number if type(number) in (int, float) else number.item()


# ------------------------------------------------------------------------------ optimisers


def optimiser_state(optim: Any) -> dict[str, Any]:
    """Return the state of a Pyro optimiser, or of one of torch.

    :raises TypeError: if it has none that can be told.
    :raises RuntimeError: if one of its parameters is not in Pyro's store any more.
    """
    if isinstance(optim, torch.optim.Optimizer):
        return optim.state_dict()
    if not isinstance(optim, PyroOptim):
        raise TypeError(
            f"found {type(optim).__name__} as optimiser, whose state cannot be told, expected one "
            'of Pyro: write pyro.optim.Adam({"lr": 0.01}).'
        )
    state = {**optim._state_waiting_to_be_consumed, **optim.get_state()}
    if None in state:
        raise RuntimeError(_CLEARED)
    return {name: state[name] for name in sorted(state)}  # parameters are met in any order


def put_optimiser(optim: Any, state: dict[str, Any]) -> None:
    """Give an optimiser the state that :func:`optimiser_state` returned."""
    if isinstance(optim, torch.optim.Optimizer):
        optim.load_state_dict(state)
        return
    # One that it has already would go on from its own state.
    optim.optim_objs.clear()
    optim.grad_clip.clear()
    optim._state_waiting_to_be_consumed.clear()
    store = dict(pyro.get_param_store().named_parameters())
    for name, one in state.items():
        if name not in store:
            optim.set_state({name: one})
            continue
        # At once: a scheduler may step before the parameters do.
        parameter = store[name]
        made = optim.optim_objs[parameter] = optim._get_optim(parameter)
        optim.grad_clip[parameter] = optim._get_grad_clip(parameter)
        if hasattr(made, "optimizer"):
            made.load_state_dict(one["scheduler"])
            made.optimizer.load_state_dict(one["optimizer"])
            made.optimizer._opt_called = True  # or torch warns of a scheduler that steps first
        else:
            made.load_state_dict(one)


# ------------------------------------------------------------------------------ parameters


def parameters(names: Iterable[str]) -> dict[str, Tensor]:
    """Return parameters of Pyro's store, unconstrained.

    :raises RuntimeError: if one is not there any more.
    """
    store, names = dict(pyro.get_param_store().named_parameters()), [*names]
    if not store.keys() >= {*names}:
        raise RuntimeError(_CLEARED)
    return {name: store[name].detach() for name in names}


@torch.no_grad()
def put_parameters(place: Any, values: Mapping[str, Tensor]) -> None:
    """Write values into parameters that a model has registered, modules' own among them.

    :param place: for the message.
    :raises CheckpointError: if the model has no such parameter, before any is changed.
    """
    store = dict(pyro.get_param_store().named_parameters())
    for name, value in values.items():
        found = tuple(store[name].shape) if name in store else None
        if found != tuple(value.shape):
            raise CheckpointError(
                f'{place}: parameter "{name}" is of shape {found} in the model, expected '
                f"{tuple(value.shape)}; go on with the model that was saved."
            )
    for name, value in values.items():
        store[name].copy_(value)
