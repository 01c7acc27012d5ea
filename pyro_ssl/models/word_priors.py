"""The Dirichlet prior of the topics' words: one number for all, or a say in which word is whose.

Anchors are pseudo-counts: β_{kv} grows by a weight where v is an anchor of topic k, as in Lu, Ott,
Cardie & Tsou 2011 ("Multi-aspect sentiment analysis with topic models"). The prior stays a
Dirichlet, so that its posterior is one of counts, as ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor

from ..arguments import at_least
from .words import WordModel

__all__ = ["HasWordPrior", "exchangeable", "word_prior"]

_DTYPES = (torch.float32, torch.float64)


def word_prior(
    concentration: Any, anchors: Any, anchor_weight: float, num_topics: int, names: Sequence[str]
) -> float | Tensor:
    """Return β as a model keeps it: a number, or a tensor ``(K, V)`` of its own, on the CPU.

    :param concentration: a number, ``(V,)`` or ``(K, V)``: a tensor, an array or nested lists.
    :param anchors: words by topic, a dict or a list whose place is the topic; or ``None``.
    :param float anchor_weight: what each anchor adds.
    :raises ValueError: if there is no such topic or word, or β has another shape or dtype, or an
        entry that is no positive number.

    Example::

        >>> word_prior(0.5, {1: ["b"]}, 10.0, 2, ["a", "b"])
        tensor([[ 0.5000,  0.5000],
                [ 0.5000, 10.5000]])
    """
    beta = _base(concentration, num_topics, names)
    if anchors is None:
        return beta
    if not isinstance(beta, Tensor):
        beta = torch.full((num_topics, len(names)), beta, device="cpu")
    ids = {word: v for v, word in enumerate(names)}
    for k, words in _by_topic(anchors, num_topics):
        for word in words:
            if str(word) not in ids:
                raise ValueError(
                    f'TopicalSSL: anchors of topic {k} have "{word}", expected words of the '
                    f"vocabulary, of {len(names)}; leave it out, or make the vocabulary larger."
                )
            beta[k, ids[str(word)]] += anchor_weight
    return beta


def _base(given: Any, num_topics: int, names: Sequence[str]) -> float | Tensor:
    """A number, or the tensor that is given, checked."""
    if isinstance(given, str | bool) or given is None or not _has_dim(given):
        return _number(given)
    write = f"torch.full(({num_topics}, {len(names)}), 0.1)"
    try:
        beta = torch.as_tensor(given, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"TopicalSSL: concentration is a {type(given).__name__} that is no table of numbers "
            f"({error}), expected a number, or {len(names)} for each topic; write {write}."
        ) from None
    if beta.dtype in (torch.int32, torch.int64):
        beta = beta.double()
    if beta.dtype not in _DTYPES or isinstance(given, Tensor) and given.requires_grad:
        found = "requires a gradient" if beta.dtype in _DTYPES else f"has dtype {beta.dtype}"
        raise ValueError(
            f"TopicalSSL: concentration {found}, expected fixed numbers of torch.float32 or "
            "torch.float64; write concentration.detach().double()."
        )
    shapes = (len(names),), (num_topics, len(names))
    if tuple(beta.shape) not in shapes:
        raise ValueError(
            f"TopicalSSL: concentration has shape {tuple(beta.shape)}, expected (V,) = {shapes[0]} "
            f"or (K, V) = {shapes[1]}; write {write}, and change the entries that have a say."
        )
    beta = beta.expand(shapes[1]).clone()
    bad = ~(beta.isfinite() & (beta > 0))
    if bool(bad.any()):
        k, v = bad.nonzero()[0].tolist()
        raise ValueError(
            f'TopicalSSL: concentration is {float(beta[k, v])} of topic {k} and word "{names[v]}", '
            "expected positive numbers: 0 would forbid the word for ever, whatever the text says; "
            "write concentration.clamp(min=1e-3)."
        )
    return beta


def _has_dim(given: Any) -> bool:
    return bool(getattr(given, "ndim", 1 if hasattr(given, "__len__") else 0))


def _number(given: Any) -> float:
    try:
        found = float(given)
    except (TypeError, ValueError):
        found = 0.0
    if isinstance(given, str | bool) or not 0.0 < found < float("inf"):
        raise ValueError(
            f"TopicalSSL: concentration is {given}, expected a positive number, or one for each "
            "topic and word; write concentration=0.1."
        )
    return found


def _by_topic(anchors: Any, num_topics: int) -> list[tuple[int, list[Any]]]:
    """Anchors as pairs of a topic and its words, checked."""
    if isinstance(anchors, Mapping):
        pairs = [*anchors.items()]
    elif isinstance(anchors, Sequence) and not isinstance(anchors, str):
        pairs = [*enumerate(anchors)]
    else:
        raise ValueError(
            f"TopicalSSL: anchors are a {type(anchors).__name__}, expected words by topic; write "
            'anchors={0: ["film", "actor"], 1: ["war"]}.'
        )
    for k, words in pairs:
        if not at_least(0, k) or k >= num_topics:
            raise ValueError(
                f"TopicalSSL: anchors of topic {k!r}, expected topics from 0 to K - 1 = "
                f"{num_topics - 1}; write num_topics larger, or another number."
            )
        if isinstance(words, str) or not isinstance(words, Sequence | Set):
            raise ValueError(
                f"TopicalSSL: anchors of topic {k} are {words!r}, expected a list of words; write "
                f"anchors={{{k}: [{words!r}]}}."
            )
    return [(int(k), [*words]) for k, words in pairs]


def exchangeable(prior: Tensor) -> Tensor:
    """Return which topics may change places: those whose prior is the same, bool ``(K, K)``.

    Example::

        >>> exchangeable(torch.tensor([[0.1, 0.1], [0.1, 9.0], [0.1, 0.1]]))[0]
        tensor([ True, False,  True])
    """
    kinds = prior.unique(dim=0, return_inverse=True)[1]
    return kinds.unsqueeze(-1) == kinds


class HasWordPrior(WordModel):
    """How a model of topics keeps their prior: β of each topic and word, or one number for all."""

    #: β: a number, or ``(K, V)`` where the topics' words have priors of their own
    concentration: float | Tensor
    vocabulary: list[str]
    transition: Any
    #: counts of documents that are gone, while there is a part to learn from
    _past: Tensor | None = None

    @property
    def num_topics(self) -> int:
        """K."""
        return int(self.transition.num_states)

    @property
    def _tables(self) -> tuple[int, int]:
        """K and H, which the tables of a document are wide."""
        return self.num_topics, self.config["hidden_size"]

    @property
    def _prior(self) -> Tensor:
        """The Dirichlet prior of the topics, ``(K, V)``: β, and what is gone has left."""
        weight, beta = self.transition.head.weight, self.concentration
        if not isinstance(beta, Tensor):
            beta = weight.new_full((self.num_topics, len(self.vocabulary)), beta)
        return beta if self._past is None else beta + self._past.to(beta)

    def _set_concentration(self, beta: float | Tensor) -> None:
        """Keep β where the model is, and in its config."""
        if isinstance(beta, Tensor):
            # Not among what is fitted: it comes with the config, and moves with the model.
            like = self.transition.head.weight
            self.register_buffer("concentration", beta.to(like), persistent=False)
        else:
            self.concentration = beta
        self.config = {**self.config, "concentration": beta}

    def _widen_prior(self, num_new_words: int) -> None:
        """Give new words the prior that most words of a topic have: the median of its row."""
        beta = self.config["concentration"]
        if isinstance(beta, Tensor) and num_new_words:
            usual = beta.median(-1, keepdim=True).values
            self._set_concentration(torch.cat([beta, usual.expand(-1, num_new_words)], -1))
