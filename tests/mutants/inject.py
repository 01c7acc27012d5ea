"""Putting something wrong into the package while it runs, and taking it out again.

A seam is an attribute of a class or a module, or an entry of a dict, that the package looks up
whenever it needs it: what stands there is replaced. In the middle of a function there is none; then
the function's source is edited and compiled anew, and its code takes the place of the old one, so
that all who imported the function meet the new code.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple


class Mutant(NamedTuple):
    """``check`` of ``suite`` must notice it; ``changes`` are contexts with the wrong code."""

    name: str
    suite: str
    check: str | None
    changes: tuple[Callable[[], Any], ...]

    @contextmanager
    def injected(self):
        """While in this context, the package is wrong."""
        with ExitStack() as stack:
            for change in self.changes:
                stack.enter_context(change())
            yield


def replace(owner, name, wrong):
    """Call ``wrong(original, *args)`` wherever ``owner.name``, or ``owner[name]``, is called."""

    @contextmanager
    def change():
        own = owner if isinstance(owner, dict) else vars(owner)
        inherited = name not in own
        before = getattr(owner, name) if inherited else own[name]
        original = before.fget if isinstance(before, property) else before

        def replacement(*args, **kwargs):
            return wrong(original, *args, **kwargs)

        _put(owner, name, property(replacement) if isinstance(before, property) else replacement)
        try:
            yield
        finally:
            if inherited:
                delattr(owner, name)
            else:
                _put(owner, name, before)

    return change


def _put(owner, name, value):
    if isinstance(owner, dict):
        owner[name] = value
    else:
        setattr(owner, name, value)


def edit(function, old, new):
    """Write ``new`` for ``old``, which stands exactly once in the function's source."""

    @contextmanager
    def change():
        inner = inspect.unwrap(function)
        before, inner.__code__ = inner.__code__, edited_code(inner, old, new)
        try:
            yield
        finally:
            inner.__code__ = before

    return change


def edited_code(function, old, new):
    """The code of a function after an edit.

    :raises ValueError: if ``old`` does not stand exactly once in the source.
    """
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(old) != 1:
        raise ValueError(
            f"{function.__module__}.{function.__qualname__} holds {old!r} {source.count(old)} "
            "times, expected once; bring tests/mutants/mutants.py up to date."
        )
    names = dict(function.__globals__)
    exec(compile(source.replace(old, new), f"<{function.__qualname__}>", "exec"), names)
    return inspect.unwrap(names[function.__name__]).__code__
