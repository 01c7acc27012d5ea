r"""How well a surrogate stands for a network, and how much of the truth the network holds.

:func:`fidelity` compares predictions of the next symbol: the network's and the surrogate's, always
beside the surrogate's number of states. :func:`mutual_information` compares the network's state
with the true filter's belief, where the data's generator is known (Lambrechts, Bolland & Ernst
2022, arXiv 2208.03520, measure an agent in a POMDP in the same way).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import LanguageModel
from ..transitions import DiscreteTransition
from .averages import Fidelity, averaged
from .densities import density_fidelity
from .filter import FilterRNN, exact_filter
from .hmm import ExtractedHMM
from .parameters import check_symbols
from .readout import softmax_regression

__all__ = ["BeliefInformation", "Fidelity", "fidelity", "log_predictive", "mutual_information"]


@torch.no_grad()
def log_predictive(source: Any, words: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return log p(x_t = v | x_{1:t-1}) of every symbol, ``(T, B, V)``.

    :param source: a :class:`LanguageModel`, an :class:`ExtractedHMM`, a :class:`FilterRNN`; a
        :class:`DiscreteTransition`, whose symbols are latents; or these log-probabilities.
    :param Tensor words: int64 ``(T, B)``.
    :raises TypeError: if the source is none of these.
    """
    if isinstance(source, Tensor):
        return source
    if isinstance(source, ExtractedHMM):
        return source.filter(words, lengths).log_predictive
    if isinstance(source, FilterRNN):
        hmm = source.matrix, source.emission, source.start
        return exact_filter(*hmm, words, lengths).log_predictive
    if isinstance(source, LanguageModel):
        words, _ = check_symbols(words, lengths, source.vocab_size, "log_predictive")
        previous = F.pad(words, (0, 0, 1, -1), value=source.vocab_size)
        return source.head(source.hidden(previous)[0]).log_softmax(-1)
    if isinstance(source, DiscreteTransition):
        words, _ = check_symbols(words, lengths, source.num_states, "log_predictive")
        return source.path_logits(words.T).transpose(0, 1).log_softmax(-1)
    raise TypeError(
        f"log_predictive: found {type(source).__name__}, expected a LanguageModel, ExtractedHMM, "
        "FilterRNN, a DiscreteTransition over symbols, or log-probabilities (T, B, V)."
    )


@torch.no_grad()
def fidelity(
    reference: Any,
    surrogate: Any,
    words: Tensor,
    lengths: Tensor | None = None,
    *,
    num_draws: int = 32,
    seed: int = 0,
) -> Fidelity:
    """Compare the predictions of a network with those of a surrogate on the same data.

    :param reference: the network, or the truth: what :func:`log_predictive` reads, or of
        measurements :func:`~pyro_ssl.belief.predictive_density`.
    :param surrogate: likewise.
    :param Tensor words: int64 ``(T, B)``, best held out; or measurements ``(T, B, D)``.
    :param Tensor lengths: ``(B,)``.
    :param int num_draws: of measurements: draws from the reference's prediction at each step, over
        which log p - log q is averaged; that estimates the divergence without bias.
    :param int seed: of these draws; the global generator is left as it is.
    :raises ValueError: if they predict different numbers of symbols.

    Example::

        >>> from pyro_ssl.belief import GateRNN, from_hmm, to_hmm
        >>> T, O = torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[0.7, 0.3], [0.1, 0.9]])
        >>> truth = ExtractedHMM(torch.tensor([0.5, 0.5]), T, O)
        >>> words = truth.distribution(50).sample((20,)).T
        >>> found = fidelity(truth, to_hmm(from_hmm(T, O), words, num_states=8), words)
        >>> found.num_states, found.kl < 0.1
        (8, True)
    """
    if isinstance(words, Tensor) and words.is_floating_point():
        return density_fidelity(reference, surrogate, words, lengths, num_draws, seed)
    log_p, log_q = (log_predictive(source, words, lengths) for source in (reference, surrogate))
    if log_p.shape != log_q.shape or log_p.shape[:-1] != words.shape:
        raise ValueError(
            f"fidelity: the reference predicts {tuple(log_p.shape)} and the surrogate "
            f"{tuple(log_q.shape)}; expected (T, B, V) = {(*words.shape, '…')} of both, with the "
            "same V; write to_hmm(..., num_symbols=V)."
        )
    words, active = check_symbols(words, lengths, log_p.shape[-1], "fidelity")
    log_p, log_q = log_p.double(), log_q.double()
    p = log_p.exp()
    # Where p is 0, so is its term, whatever q is.
    kl = torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1).masked_fill(~active, 0.0)
    same = (log_p.argmax(-1) == log_q.argmax(-1))[active]
    mean, error, by_step = averaged(kl, active)

    def perplexity(log_probs: Tensor) -> float:
        log_x = log_probs.gather(-1, words.unsqueeze(-1)).squeeze(-1)[active]
        return float((-log_x.mean()).exp())

    states = {ExtractedHMM: "num_states", FilterRNN: "hidden_size"}.get(type(surrogate))
    return Fidelity(
        num_states=getattr(surrogate, states) if states else 0,
        kl=mean,
        kl_error=error,
        kl_by_step=by_step,
        agreement=float(same.double().mean()),
        reference_perplexity=perplexity(log_p),
        surrogate_perplexity=perplexity(log_q),
    )


class BeliefInformation(NamedTuple):
    """What a network's state h_t tells of the true state s_t, in nats, on held-out sequences.

    ``held`` is a lower bound of I(h_t; s_t); ``available`` is I(x_{1:t}; s_t), which the true
    filter holds and no network can exceed; ``share`` is their ratio; ``r_squared`` is the share of
    the belief's variance that is linear in h. ``decoded`` ``(T, B // 2, K)`` is q(s_t | h_t) of the
    held-out sequences 1, 3, 5, …: the belief as decoded from h.
    """

    held: float
    available: float
    share: float
    r_squared: float
    decoded: Tensor


def mutual_information(
    h: Tensor, belief: Tensor, *, ridge: float = 1e-6, num_iterations: int = 100
) -> BeliefInformation:
    r"""Estimate how much of the true belief a network's state holds.

    The information of two deterministic functions of the past is infinite, or a matter of binning;
    that of h_t and the *true state* s_t is finite and bounded:

    .. math:: H(s) - \mathrm{E}\Big[-\sum_s b_t(s) \log q(s \mid h_t)\Big] \le I(h_t; s_t)
        \le I(x_{1:t}; s_t) = H(s) - \mathrm{E}[H(b_t)]

    for every q (Barber & Agakov 2003); here q is a softmax of a linear map of h, fitted to the even
    sequences, and all figures are of the odd ones. h is a sufficient statistic for s_t exactly if
    the second inequality is an equality. A low figure can also mean that h encodes s_t in a way
    that no linear map decodes.

    :param Tensor h: the network's states, ``(T, B, H)``.
    :param Tensor belief: p(s_t | x_{1:t}) by the true filter, ``(T, B, K)``.
    :param float ridge: penalty of q's weights, over the standardised h.
    :param int num_iterations: of L-BFGS.
    :raises ValueError: if the shapes do not fit, or there is one sequence only.

    Example::

        >>> belief = torch.distributions.Dirichlet(torch.ones(3)).sample((50, 20))
        >>> found = mutual_information(belief.log(), belief)
        >>> round(found.share, 3), 0.5 < found.r_squared < 1
        (1.0, True)
    """
    if h.shape[:2] != belief.shape[:2] or h.dim() != 3 or belief.dim() != 3 or h.shape[1] < 2:
        raise ValueError(
            f"mutual_information: found h {tuple(h.shape)} and belief {tuple(belief.shape)}; "
            "expected (T, B, H) and (T, B, K) of B >= 2 sequences: half are for fitting."
        )
    h, belief = h.detach().double(), belief.detach().double()
    spread, center = torch.std_mean(h[:, ::2].flatten(0, 1), 0)
    h = (h - center) / spread.clamp(min=1e-12)
    h = torch.cat([h, torch.ones_like(h[..., :1])], -1)
    (x, b), (x_new, b_new) = (
        (h[:, part].flatten(0, 1), belief[:, part].flatten(0, 1))
        for part in (slice(0, None, 2), slice(1, None, 2))
    )
    weight = softmax_regression(x, b, ridge, num_iterations)
    marginal = b_new.mean(0)
    entropy = -torch.special.xlogy(marginal, marginal).sum()
    available = entropy + torch.special.xlogy(b_new, b_new).sum(-1).mean()
    log_q = (x_new @ weight).log_softmax(-1)
    held = entropy + (b_new * log_q).sum(-1).mean()
    linear = torch.linalg.pinv(x) @ b
    residual = (b_new - x_new @ linear).square().sum()
    r_squared = 1.0 - residual / (b_new - marginal).square().sum()
    return BeliefInformation(
        held=float(held),
        available=float(available),
        share=float(held / available),
        r_squared=float(r_squared),
        decoded=log_q.exp().reshape(len(h), -1, belief.shape[-1]),
    )
