"""A transition at other values of its parameters, so that these may be latent sites of a model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

__all__ = ["at_drawn_weights", "at_parameters"]

M = TypeVar("M", bound=nn.Module)


def at_parameters(module: M, values: Mapping[str, Tensor]) -> M:
    """Return a module that shares all with another but for some parameters.

    :param values: by the names of ``named_parameters``; tensors of the same shapes, which may have
        gradients. The module itself stays as it is.
    :raises ValueError: on a name that it has not, or a shape that does not fit.
    """
    known = dict(module.named_parameters())
    for name, value in values.items():
        if name not in known or known[name].shape != value.shape:
            found = tuple(known[name].shape) if name in known else None
            raise ValueError(
                f"{type(module).__name__}.given: {name} of shape {tuple(value.shape)}, expected "
                f"{found or sorted(known)}; write transition.given({{name: value}}) with a name "
                "and a shape of transition.named_parameters()."
            )
    twin = _twin(module)
    own = {"": twin}
    for name, value in values.items():
        *path, leaf = name.split(".")
        at = ""
        for part in path:
            above, at = own[at], f"{at}.{part}"
            if at not in own:
                own[at] = above._modules[part] = _twin(getattr(above, part))
        del own[at]._parameters[leaf]
        setattr(own[at], leaf, value)
    return twin


def at_drawn_weights(module: M) -> M:
    """Return a module at a draw of the weights of its transitions, each by ``draw_weights()``.

    It is the module itself where none of them has a distribution over weights.
    """
    values = {
        f"{name}.{of}" if name else of: value
        for name, part in module.named_modules()
        for of, value in getattr(part, "draw_weights", dict)().items()
    }
    return at_parameters(module, values) if values else module


def _twin(module: M) -> M:
    """A copy of one module, with the parts and parameters of the other, in containers of its own.

    Recurrent modules of torch keep a list of their weights too.
    """
    twin = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, dict | list):
            twin.__dict__[name] = copy.copy(value)
    return twin
