"""What must be the same before and after an error: files, generators, parameters."""

import hashlib
import random
import stat
from contextlib import contextmanager

import numpy as np
import pyro
import torch


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


def digest_of_store():
    """Hash Pyro's parameter store: the unconstrained values by name."""
    store = pyro.get_param_store()
    return digest_of_tensors({name: store[name].unconstrained() for name in store.keys()})


@contextmanager
def nothing_changes(*folders, modules=()):
    """The block leaves generators, parameter store, folders and modules as they were."""

    def digest():
        return {
            "generators": digest_of_generators(),
            "store": digest_of_store(),
            "folders": [digest_of_folder(folder) for folder in folders],
            "modules": [digest_of_tensors(module.state_dict()) for module in modules],
        }

    before = digest()
    yield
    after = digest()
    assert after == before, [key for key in before if before[key] != after[key]]


def _hash_of(tensor):
    content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


def _cuda_states():
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
