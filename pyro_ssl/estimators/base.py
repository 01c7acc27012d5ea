"""scikit-learn's protocol of parameters, and what its estimators share here."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch

from ..models import TopicalSSL

__all__ = ["Estimator", "NotFittedError", "seeded"]


class NotFittedError(ValueError, AttributeError):
    """An estimator is used before ``fit``; of the same kinds as scikit-learn's own."""


class Estimator:
    """An object whose constructor's arguments are its parameters, kept as they are given.

    So ``sklearn.base.clone``, pipelines and searches can make others like it. What a fit learns
    has a name that ends in ``_``.

    Example::

        >>> from pyro_ssl.estimators import CategoricalSSL
        >>> CategoricalSSL(3).set_params(n_components=4).get_params()["n_components"]
        4
    """

    #: what was fitted
    model_: TopicalSSL

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments of the constructor by name.

        :param bool deep: has no meaning here: no parameter is an estimator.
        """
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Self:
        """Set some of them.

        :raises ValueError: if there is no such parameter; nothing is set then.
        """
        unknown = sorted(params.keys() - set(self._names()))
        if unknown:
            raise ValueError(
                f"{type(self).__name__}.set_params: found {unknown[0]}, expected some of "
                f"{', '.join(self._names())}."
            )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not defaults[name].default and not _same(value, defaults[name].default)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_is_fitted__(self) -> bool:
        """What ``sklearn.utils.validation.check_is_fitted`` asks."""
        return "model_" in vars(self)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of those in its pipelines: the tags of any estimator."""
        return importlib.import_module("sklearn.base").BaseEstimator().__sklearn_tags__()

    def _check_fitted(self) -> TopicalSSL:
        if "model_" not in vars(self):
            raise NotFittedError(
                f"{type(self).__name__} is not fitted yet; write {type(self).__name__}(...).fit(X) "
                "first."
            )
        return self.model_


def _same(value: Any, default: Any) -> bool:
    """Whether a parameter has its default value: a number, a text or ``None``, never an array."""
    return not hasattr(value, "shape") and bool(value == default)


@contextmanager
def seeded(who: str, random_state: Any) -> Iterator[None]:
    """Take all random numbers from a seed; leave torch's generators as they were.

    :param random_state: the seed, or ``None`` for torch's own generator.
    :raises ValueError: if it is something else.
    """
    if random_state is None:
        yield
        return
    if not isinstance(random_state, int | np.integer) or isinstance(random_state, bool):
        raise ValueError(
            f"{who}: random_state is {random_state!r}, expected a whole number, or None for "
            "torch's generator; write random_state=0."
        )
    with torch.random.fork_rng():
        torch.manual_seed(int(random_state))
        yield
