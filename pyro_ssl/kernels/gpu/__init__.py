"""Kernels for GPUs, in Triton: the same draws as those of ``src/``, given the same numbers.

One program takes one sequence through all of its steps: its particles' states never leave the chip,
and a sweep is one launch. Imported by ``loading.py`` alone, where Triton is.

Read ``states.py``, the sweep; ``reference.py``, ancestor sampling; ``resampling.py``; ``cell.py``.

Every axis of a block is a power of two, and at least 16 where it enters a product: P, K and H have
PP, KP and HP places. Past K and H all weights are 0, and past P those of the particles.
"""

from .messages import MOST_STATES, backward_messages
from .states import fits, sweep_states
from .trace import trace_back
from .uniforms import uniforms

__all__ = ["MOST_STATES", "backward_messages", "fits", "sweep_states", "trace_back", "uniforms"]
