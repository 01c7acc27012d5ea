"""Fast paths of the sweep of ``smc/``, compiled: the same draws given the same numbers.

Nothing needs them: without a compiled library, in float64, on a GPU without Triton, or for a
transition that they do not know, torch sweeps. :func:`available` says which it is, and why.

Read ``src/sweep.h``, the sweep; ``src/states.cpp`` and ``src/vectors.cpp``, what it asks of each
kind of latent; ``src/cell.h``, the products that it spends its time in; then ``sweeps.py``, which
calls it, and ``loading.py``, which finds it. ``gpu/`` has the same sweep over states for GPUs.
"""

from .loading import Availability, available, library, on_gpu, turned_off

__all__ = ["Availability", "available", "library", "on_gpu", "turned_off"]
