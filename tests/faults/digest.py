"""What must be the same before and after an error: files, generators, parameters."""

import hashlib
import random
import stat
from contextlib import contextmanager

import numpy as np
import pyro
import torch
from pyro.poutine.runtime import _DIM_ALLOCATOR, _PYRO_STACK
from pyro.poutine.util import is_validation_enabled


def digest_of_folder(folder):
    """Hash each file below a folder by its path in it; what is no file, or huge, by its kind."""
    return {str(path.relative_to(folder)): _digest(path) for path in sorted(folder.rglob("*"))}


def _digest(path):
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > 2**26:
        return f"{status.st_mode:o}, {status.st_size} bytes"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest_of_tensors(tensors):
    """Hash tensors by their names, with dtype and shape; None stays None."""
    return {
        name: tensor if tensor is None else (tensor.dtype, tuple(tensor.shape), _hash_of(tensor))
        for name, tensor in dict(tensors).items()
    }


def digest_of_generators():
    """Hash the global generators of torch, numpy and Python."""
    name, keys, *rest = np.random.get_state()
    parts = [torch.get_rng_state().numpy().tobytes(), keys.tobytes(), repr((name, rest)).encode()]
    parts += [state.cpu().numpy().tobytes() for state in _cuda_states()]
    return hashlib.sha256(b"".join([*parts, repr(random.getstate()).encode()])).hexdigest()


def digest_of_object(value, seen=None):
    """Hash what an object of this library, or an optimiser, keeps from call to call."""
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), _hash_of(value)
    if isinstance(value, torch.optim.Optimizer):
        value = value.state_dict()
    if isinstance(value, dict):
        keys = [key if isinstance(key, str | int) else id(key) for key in value]
        return list(zip(keys, (digest_of_object(v, seen) for v in value.values()), strict=True))
    if isinstance(value, list | tuple):
        return [digest_of_object(v, seen) for v in value]
    if value is None or isinstance(value, int | float | str):
        return repr(value)
    kind = type(value)
    if not kind.__module__.startswith(("pyro_ssl", "pyro.optim")) or kind.__name__ == "Before":
        return kind.__name__
    if id(value) in seen:
        return "as above"
    seen.add(id(value))
    return kind.__name__, digest_of_object(vars(value), seen)


def digest_of_module(module):
    """Hash parameters and buffers, their gradients and flags, and the mode of each part."""
    parameters = dict(module.named_parameters())
    return (
        digest_of_tensors(module.state_dict()),
        digest_of_tensors({name: p.grad for name, p in parameters.items()}),
        [p.requires_grad for p in parameters.values()],
        [part.training for part in module.modules()],
    )


def digest_of_pyro():
    """Return the handlers and the dimensions that are in use, and how Pyro is set."""
    taken = [name for name in _DIM_ALLOCATOR._stack if name is not None]
    return list(_PYRO_STACK), taken, is_validation_enabled(), torch.is_grad_enabled()


def digest_of_store():
    """Hash Pyro's parameter store: the unconstrained values by name."""
    store = pyro.get_param_store()
    return digest_of_tensors({name: store[name].unconstrained() for name in store.keys()})


def digest(*folders, modules=(), objects=()):
    """Hash generators, Pyro's state, folders, modules and objects, by these names."""
    return {
        "generators": digest_of_generators(),
        "store": digest_of_store(),
        "pyro": digest_of_pyro(),
        "folders": [digest_of_folder(folder) for folder in folders],
        "modules": [digest_of_module(module) for module in modules],
        "objects": [digest_of_object(value) for value in objects],
    }


@contextmanager
def nothing_changes(*folders, modules=(), objects=()):
    """The block leaves generators, Pyro, folders, modules and objects as they were."""
    before = digest(*folders, modules=modules, objects=objects)
    yield
    same(before, digest(*folders, modules=modules, objects=objects))


def same(before, after):
    """Two digests are the same; tell what differs."""
    assert after == before, [key for key in before if before[key] != after[key]]


def _hash_of(tensor):
    content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


def _cuda_states():
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
