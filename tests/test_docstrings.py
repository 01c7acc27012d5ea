"""Every public name has a docstring, and every example in a docstring runs."""

import doctest
import importlib
import inspect
import sys
from pathlib import Path

import pytest
import torch

import pyro_ssl

pytestmark = pytest.mark.stage("system")

PACKAGE = Path(next(iter(pyro_ssl.__path__)))
MODULES = {
    ".".join(("pyro_ssl", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
WITH_EXAMPLES = [name for name, path in MODULES.items() if ">>>" in path.read_text()]


FEW = frozenset({"argparse", "datetime", "decimal", "inspect", "logging", "socket", "tkinter"})


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name, monkeypatch):
    # all of the standard library is read in the tests of that corpus
    monkeypatch.setattr(sys, "stdlib_module_names", FEW)
    torch.set_default_dtype(torch.float32)  # readers have it; the other tests float64
    failed, _ = doctest.testmod(
        importlib.import_module(name),
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
    )
    assert failed == 0


def test_public_names_have_docstrings():
    bare = []
    for module in map(importlib.import_module, MODULES):
        public = [getattr(module, public_name) for public_name in getattr(module, "__all__", ())]
        for thing in (module, *public):
            if inspect.isclass(thing):
                members = (member for key, member in vars(thing).items() if not key.startswith("_"))
                bare += [m for m in members if _is_code(m) and not inspect.getdoc(m)]
            if (_is_code(thing) or inspect.ismodule(thing)) and not (thing.__doc__ or "").strip():
                bare.append(thing)
    assert not bare


def _is_code(thing):
    return inspect.isclass(thing) or inspect.isroutine(thing) or isinstance(thing, property)
