"""A topical model without the topics that the text has no need of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from ..infer import MarkovEM
from ..infer.sparse_markov import restricted
from .learned import Learned
from .settings import checked
from .word_priors import HasWordPrior

__all__ = ["Prunable"]


class Prunable(HasWordPrior):
    """How topics that stay empty are dropped."""

    phi: Tensor | None
    occupancy: Tensor | None
    markov: MarkovEM | None
    learned: Learned | None
    model: Callable[..., Any]

    @checked
    def prune(self, least: float = 0.001) -> Self:
        r"""Return a fitted model of the topics that have a share of the words; this one stays.

        Which topic comes next is asked given that it is none of those that are gone: p(z_t = k |
        z_{1:t-1}) is scaled up to 1 over those that are kept, whose words stay as they are. Topics
        keep their order, and anchored ones their prior; :attr:`markov` is pruned alike, so that
        ``fit(..., markov=pruned.markov)`` may go on. Of documents that :meth:`partial_fit` keeps,
        counts are left.

        :param float least: share of the words of the fit below which a topic is dropped.
        :raises ValueError: if no topic has so much.
        :raises RuntimeError: if the model is not fitted.

        Example::

            >>> import torch
            >>> from pyro_ssl import TopicalSSL
            >>> ssl, words = TopicalSSL(4, 9, hidden_size=4), torch.randint(9, (7, 12))
            >>> quick = {"markov_steps": 9, "transition_steps": 9, "disable_progbar": True}
            >>> history = ssl.fit(words, num_epochs=1, **quick)
            >>> ssl.occupancy = torch.tensor([0.5, 0.0, 0.3, 0.2])
            >>> ssl.prune().occupancy
            tensor([0.5000, 0.3000, 0.2000])
        """
        phi, occupancy = self._fitted()
        (kept,) = (occupancy >= least).nonzero(as_tuple=True)
        if not len(kept):
            raise ValueError(
                f"TopicalSSL.prune: least is {least}, but no topic has more than "
                f"{float(occupancy.max()):.3g} of the words; write prune(least=0.001)."
            )
        config = {**self.config, "num_topics": len(kept)}
        if isinstance(beta := config["concentration"], Tensor):
            config["concentration"] = beta[kept.to(beta.device)]
        with torch.random.fork_rng(devices=[]):
            model: Any = type(self)(**config)
        model = model.to(phi.device, phi.dtype)
        model.transition.load_state_dict(_restricted(self.transition, kept))
        model.phi, model.occupancy = phi[kept], occupancy[kept] / occupancy[kept].sum()
        model.history = list(self.history)
        if self.markov is not None:
            model.markov = restricted(self.markov, model.model, kept)
        if self.learned is not None:
            model.learned = Learned(self.learned.num_words, parts=list(self.learned.parts))
        pruned: Self = model.train(self.training)
        return pruned


def _restricted(transition: Any, kept: Tensor) -> dict[str, Tensor]:
    """The tensors of a recurrent transition that knows some of its states alone."""
    start = torch.full_like(kept[:1], transition.num_states)
    weight = transition.cell.input_map()[0].detach()[:, torch.cat([kept, start])]
    found = {}
    for name, value in transition.state_dict().items():
        if name.endswith("weight_ih_magnitude"):  # rows are shorter without some columns
            value = torch.linalg.vector_norm(weight, dim=-1)
        elif "weight_ih" in name:
            value = weight
        elif name.startswith("head."):
            value = value[kept]
        found[name] = value.clone()
    return found
