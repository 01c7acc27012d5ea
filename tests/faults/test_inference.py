"""Inference against faults: a named error and nothing changed, or the documented result.

The product of all faults (``broken_data.py``, ``broken_models.py``) and all calls (``world.py``).
Each is called twice with the fault, then without, then once more with it. Nothing is judged by
chance, so no alarm is false. The unit tier has two calls of each fault, so that every call meets
every kind; the nightly one has all.
"""

import math
import re

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import ParticleFilter
from pyro_ssl.errors import EmissionNotLocalError, SSLError
from tests.faults.broken_data import BROKEN_DATA
from tests.faults.broken_models import BROKEN_MODELS
from tests.faults.digest import digest, same
from tests.faults.world import CALLS, V, World, attempt

FAULTS = BROKEN_DATA | BROKEN_MODELS
EACH = 2  # calls of each fault in the unit tier


def product():
    calls = list(CALLS)
    for i, fault in enumerate(FAULTS):
        soon = {calls[(i * EACH + j) % len(calls)] for j in range(EACH)}
        for call in calls:
            if call in FAULTS[fault].without:
                continue
            nightly = () if call in soon else (pytest.mark.stage("nightly"),)
            yield pytest.param(fault, call, marks=nightly, id=f"{fault} | {call}")


def told(error, fault):
    """The error is a named one, that says what it should; return what it says."""
    text = str(error)
    assert re.search(fault.match, text, re.DOTALL), text
    if not fault.own:
        assert isinstance(error, SSLError | ValueError | TypeError), repr(error)
        assert re.search('Site "|Plate "|The model|The transition', text), text
        assert re.search("expected|write ", text), text
    return type(error).__name__, text


def finite(result):
    if isinstance(result, torch.Tensor):
        return not bool(result.isnan().any())
    return not isinstance(result, float) or math.isfinite(result)


@pytest.mark.stage("system")
@pytest.mark.parametrize("name, call", [*product()])
def test_is_told_and_changes_nothing(name, call):
    fault = FAULTS[name]
    world = World(fault.spoil)
    objects, do = CALLS[call](world.model)

    def told_of_fault():
        """Call with the fault, and return what is told, None where there is a result."""
        world.spoil()
        before = digest(modules=world.modules, objects=objects)
        result, error = attempt(do)
        if error is None:
            assert call in fault.taken and finite(result), result
            return None
        same(before, digest(modules=world.modules, objects=objects))
        return told(error, fault)

    said = told_of_fault()
    assert said is None or fault.own or call not in fault.taken, said
    if said is not None or not fault.own:  # else the call does not come to where the model breaks
        assert told_of_fault() == said
    world.mend()
    result, error = attempt(do)
    assert error is None and finite(result), error
    if said is not None and fault.late:
        assert told_of_fault() == said


#: what couples steps or sequences, and the dimension that it needs more than one of
COUPLINGS = {
    "the step before": (lambda z: z.roll(1, -2), 0),
    "the step after": (lambda z: z.roll(-1, -2), 0),
    "steps backwards": (lambda z: z.flip(-2), 0),
    "the first step": (lambda z: z[..., :1, :], 0),
    "the sequence beside": (lambda z: z.roll(1, -1), 1),
    "sequences backwards": (lambda z: z.flip(-1), 1),
    "the first sequence": (lambda z: z[..., :1], 1),
}


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_coupling_is_seen_at_any_size(coupling):
    couple, dim = COUPLINGS[coupling]

    def body(t, z, w):
        pyro.sample("x", dist.Categorical(w.phi[couple(z)]), obs=w.x[t])

    for steps in (1, 2, 3, 4, 6):
        for size in (1, 2, 3, 4):
            parts = {"T": steps, "size": size, "x": torch.randint(V, (steps, size)), "body": body}
            world = World(lambda w, parts=parts: vars(w).update(parts))
            world.spoil()
            _, error = attempt(ParticleFilter(world.model, 2).log_likelihood)
            alone = (steps, size)[dim] == 1
            assert (error is None) is alone, (steps, size)
            assert alone or isinstance(error, EmissionNotLocalError)


def test_there_are_enough_of_them():
    assert len(FAULTS) * EACH >= 300
    assert len(pyro.get_param_store()) == 0
