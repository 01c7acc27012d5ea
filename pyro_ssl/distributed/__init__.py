r"""Many machines: sequences are sharded over the ranks of ``torch.distributed``.

Given parameters and latent sites outside the loop, sequences are independent. So each rank sweeps
its own, and what a step adds up over sequences is added up over ranks too: changes of counts,
gradients, losses. All else is computed alike on every rank, from the same numbers and the same
draws, and nothing is sent that grows with how many sequences there are.

Two streams of random numbers go with that. Outside of the library's calls torch's generator is
alike on all ranks, as are within them the draws that all have to share (φ, the seeds of sweeps,
which are keyed by a sequence's place in the plates); what depends on a rank's data, such as
dropout, comes from a stream of the rank's own.

Before tensors are added up, every rank sends a few numbers: where it is, and whether it has failed.
So an error on one rank is raised on all, and ranks that do different things are told so.

Next file to read: ``infer/sharded.py``, what inference classes ask of this one.
"""

from .alone import Alone
from .launch import current, ranks
from .ranks import Ranks

__all__ = ["Alone", "Ranks", "current", "ranks"]
