r"""From a network to an HMM: exactly where its states are few, by counting otherwise.

* Chains with a finite memory are Markov chains, perhaps over more states (``chains.py``).
* A gate of k units, whose last state is read as k known bits and whose evidence a is held fixed, is
  a Markov chain over 2^k states,

  .. math:: p(s' \mid s) = \prod_j \mathrm{Bern}(s'_j;\, σ(W_h s + a)_j).

* Any network: the states h_t that it visits are put into K groups, and the moves between groups are
  counted. The HMM's state z_t is the group of h_t *after* x_t was read, since (h_t) is a Markov
  chain if the symbols are drawn from the network itself. (Groups of states before x_t would not do:
  the next group would depend on the symbol, and the next state of an HMM does not.) The emission
  p(x_t | z_t) needs groups that determine x_t as far as possible. So x_t is clustered beside h_t;
  with at least as many groups as symbols, no group mixes symbols. What is lost is the place of a
  state within its group; more groups lose less. With fewer groups than symbols, or where groups of
  h_t alone determine the distribution of x_t, h_t alone (``symbol_weight=0``) may do better.

Krakovna & Doshi-Velez 2016 (arXiv 1606.05320) also train HMMs on an LSTM's states.
:func:`~pyro_ssl.belief.fidelity` measures how much is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import whole
from ..infer import MarkovEM
from ..infer.dirichlet import normalised
from ..primitive import ssl_transition
from ..transitions import MarkovTransition
from .chains import CHAINS, tables_of
from .clusters import kmeans, nearest, visited_states
from .decode import product_belief
from .filter import ExactFilter, GateRNN, exact_filter
from .parameters import check_hmm, check_symbols
from .pomdp import GatePOMDP, to_pomdp

__all__ = ["ExtractedHMM", "to_hmm"]


@dataclass(frozen=True, eq=False)
class ExtractedHMM:
    """A hidden Markov model over K states and V symbols, ready for Pyro.

    :param Tensor initial: p(z_1), ``(K,)``.
    :param Tensor matrix: p(z_t = j | z_{t-1} = i) in row i, ``(K, K)``.
    :param Tensor emission: p(x_t = v | z_t = k) in row k, ``(K, V)``.
    :param Tensor centers: where it was made by clustering, the centre of each state,
        ``(K, H + V)``: of h_t and of the one-hot x_t times ``symbol_scale``.
    :param Tensor symbol_scale: ``()``.

    Example::

        >>> flip = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
        >>> hmm = ExtractedHMM(torch.tensor([0.5, 0.5]), flip, torch.eye(2))
        >>> hmm.log_prob(torch.tensor([[0], [0], [1]])).exp()
        tensor([0.0450])
    """

    initial: Tensor
    matrix: Tensor
    emission: Tensor
    centers: Tensor | None = None
    symbol_scale: Tensor | None = None

    def __post_init__(self) -> None:
        check_hmm(self.matrix, self.emission, self.initial, "ExtractedHMM")

    @property
    def num_states(self) -> int:
        """K."""
        return len(self.matrix)

    @property
    def num_symbols(self) -> int:
        """V."""
        return self.emission.shape[1]

    @property
    def transition(self) -> MarkovTransition:
        """The chain, for ``ssl_transition``."""
        return MarkovTransition(self.num_states, initial=self.initial, matrix=self.matrix)

    def model(self, words: Tensor, lengths: Tensor | None = None) -> None:
        """Run the generative process as a Pyro model, for ``ParticleFilter``, ``ParticleGibbs``, …

        :param Tensor words: int64 ``(T, B)``, observed.
        :param Tensor lengths: ``(B,)``.
        """
        chain, log_emission = self.transition, self.emission.log()  # logits keep a 0 a 0
        with pyro.plate("sequences", words.shape[1]):
            for t, z in ssl_transition("z", chain, len(words), lengths=lengths):
                pyro.sample("x", dist.Categorical(logits=log_emission[z]), obs=words[t])

    def distribution(self, num_steps: int) -> dist.DiscreteHMM:
        """Return p(x_{1:T}) with z summed out, event ``(T,)``.

        Pyro's chain takes a step before the first symbol; that step's matrix has p(z_1) in all of
        its rows here.

        :param int num_steps: T.
        """
        K, num_steps = self.num_states, whole("ExtractedHMM", "num_steps", num_steps, 0)
        logits = self.matrix.log().expand(num_steps, K, K).clone()
        logits[:1] = self.initial.log()
        return dist.DiscreteHMM(
            self.initial.log(),
            logits,
            dist.Categorical(logits=self.emission.log()),
            duration=num_steps,
        )

    def filter(self, words: Tensor, lengths: Tensor | None = None) -> ExactFilter:
        """Return beliefs and predictions at every step; see :func:`exact_filter`."""
        return exact_filter(self.matrix, self.emission, self.initial, words, lengths)

    def log_likelihood(self, words: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return log p(x_t | x_{1:t-1}), exact, ``(T, B)``; 0 past the lengths.

        From an impossible symbol on it is -inf or, where nothing is left to condition on, NaN.
        """
        return self.filter(words, lengths).log_likelihood

    def log_prob(self, words: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return log p(x_{1:T}), exact, ``(B,)``; -inf for what is impossible."""
        total = self.log_likelihood(words, lengths).sum(0)
        return torch.where(total.isnan(), -torch.inf, total)

    def perplexity(self, words: Tensor, lengths: Tensor | None = None) -> float:
        """Return exp(-mean log p(x_t | x_{1:t-1}))."""
        _, active = check_symbols(words, lengths, self.num_symbols, "ExtractedHMM", some=True)
        return float((-self.log_prob(words, lengths).sum() / active.sum()).exp())

    def states(self, h: Tensor, words: Tensor) -> Tensor:
        """Return the state that each of a network's states belongs to.

        :param Tensor h: the network's states once they have read the symbols, ``(..., H)``.
        :param Tensor words: the symbols, int64 ``(...)``.
        :returns: int64 ``(...)``.
        :raises ValueError: if the HMM was not made by clustering.
        """
        if self.centers is None or self.symbol_scale is None:
            raise ValueError(
                "ExtractedHMM.states: this HMM has no centres; expected one made by clustering, "
                "to_hmm(network, words, num_states=K)."
            )
        return nearest(_beside(h, words, self.num_symbols, self.symbol_scale), self.centers)

    def refine(
        self, words: Tensor, lengths: Tensor | None = None, *, num_epochs: int = 10
    ) -> ExtractedHMM:
        """Return the HMM after EM on data (Baum-Welch, by :class:`MarkovEM`) that starts from it.

        What EM gains, the extraction had lost; there may be more, since EM ends in a local optimum.
        The refined states are not the network's, so the HMM has no centres.

        :param Tensor words: int64 ``(T, B)``.
        :param Tensor lengths: ``(B,)``.
        :param int num_epochs: iterations over all of the data.
        """
        whole("ExtractedHMM.refine", "num_epochs", num_epochs, 0)
        # One pseudo-count a row, as in to_hmm: EM never leaves a 0, and 0 times log 0 is NaN.
        prior = torch.ones_like(self.emission) + 1.0 / self.num_symbols
        start = normalised(self.emission.clamp(min=1e-9))

        def model(words: Tensor) -> None:
            phi = pyro.sample("phi", dist.Dirichlet(prior).to_event(1))
            with pyro.plate("sequences", words.shape[1]):
                for t, z in ssl_transition("z", self.transition, len(words), lengths=lengths):
                    pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

        em = MarkovEM(model, dirichlet="mode").start_from(self.initial, self.matrix, phi=start)
        for _ in range(num_epochs):
            em.step(words)
        return ExtractedHMM(em.initial, em.matrix, em.values["phi"])


def to_hmm(
    source: nn.Module | GatePOMDP | Tensor,
    words: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    num_states: int | None = None,
    num_symbols: int | None = None,
    emission: Tensor | None = None,
    evidence: Tensor | None = None,
    pseudo_count: float = 1.0,
    symbol_weight: float = 1.0,
    seed: int = 0,
) -> ExtractedHMM:
    r"""Extract a hidden Markov model, in one of the three ways of the module's docstring.

    * ``to_hmm(chain)`` of a :class:`MarkovTransition`: that chain; of a
      :class:`SemiMarkovTransition` or a :class:`ProductTransition`: the chain over its states and
      how long they have lasted, or over tuples of states, which share the rows of ``emission``.
    * ``to_hmm(gate, evidence=a)`` of a :class:`GateRNN` or of what :func:`to_pomdp` made of an
      LSTM's gate: the 2^k kernel at that evidence, unit 0 the most significant bit.
    * ``to_hmm(network, words, num_states=K)``: K groups of the states that it visits on ``words``.

    The symbols of the first two are their states themselves, unless ``emission`` is given.

    :param source: one of these; a network is all that :func:`~pyro_ssl.belief.visited_states`
        reads, or its visited states ``(T, B, H)``. An SSL's transition reads latents: then
        ``words`` are paths of z, time first.
    :param Tensor words: int64 ``(T, B)``.
    :param Tensor lengths: ``(B,)``.
    :param int num_states: K.
    :param int num_symbols: V; by default one more than the largest symbol.
    :param Tensor emission: ``(K, V)``, for a chain or a gate.
    :param Tensor evidence: a = W_y y + b, ``(k,)``, for a gate.
    :param float pseudo_count: added to each row's counts, spread over the row.
    :param float symbol_weight: how far apart symbols put two states in the clustering, in units of
        the states' spread (root mean square distance from their mean).
    :param int seed: of the clustering.
    :raises ValueError: if what the source needs is missing.

    Example::

        >>> gate, words = GateRNN(input_size=5, hidden_size=3), torch.randint(5, (20, 4))
        >>> to_hmm(gate, words, num_states=6).emission.shape
        torch.Size([6, 5])
        >>> to_hmm(gate, evidence=torch.zeros(3)).matrix.shape
        torch.Size([8, 8])
        >>> to_hmm(MarkovTransition(3)).initial
        tensor([0.3333, 0.3333, 0.3333])
    """
    if isinstance(source, CHAINS):
        return ExtractedHMM(*tables_of(source, emission))
    if evidence is not None:
        return _gate_chain(source, evidence, emission)
    if words is None or num_states is None:
        raise ValueError(
            f"to_hmm: found a {type(source).__name__} without words, num_states or evidence; write "
            "to_hmm(network, words, num_states=16), or to_hmm(gate, evidence=a)."
        )
    if isinstance(source, GatePOMDP):
        raise ValueError("to_hmm: a GatePOMDP visits no states; write to_hmm(pomdp, evidence=a).")
    words, active = check_symbols(words, lengths, num_symbols, "to_hmm", some=True)
    V = int(words.max()) + 1 if num_symbols is None else num_symbols
    h = visited_states(source, words)
    if h.shape[:2] != words.shape:
        raise ValueError(
            f"to_hmm: found states {tuple(h.shape)} for symbols {tuple(words.shape)}, expected "
            "(T, B, H) for (T, B)."
        )
    scale = symbol_weight * h[active].var(0, correction=0).sum().sqrt()
    points = _beside(h, words, V, scale)
    centers = kmeans(points[active], num_states, seed=seed)
    z = nearest(points, centers)
    initial, matrix, emission = (
        table.to(h.dtype) for table in _counted(z, words, active, (num_states, V), pseudo_count)
    )
    return ExtractedHMM(initial, matrix, emission, centers, scale)


def _beside(h: Tensor, words: Tensor, num_symbols: int, scale: Tensor) -> Tensor:
    """What is clustered: h_t, and the one-hot x_t times ``scale``, ``(..., H + V)``."""
    return torch.cat([h, F.one_hot(words, num_symbols) * scale], -1)


def _counted(
    z: Tensor, words: Tensor, active: Tensor, sizes: tuple[int, int], pseudo_count: float
) -> list[Tensor]:
    """Distributions of the first state, moves and symbols, from z and words ``(T, B)``."""
    K, V = sizes
    start = z[0, active[0]].bincount(minlength=K)
    moves = (z[:-1] * K + z[1:])[active[1:]].bincount(minlength=K * K).reshape(K, K)
    symbols = (z * V + words)[active].bincount(minlength=K * V).reshape(K, V)
    counts = (start, moves, symbols)
    return [normalised(count.double() + pseudo_count / count.shape[-1]) for count in counts]


def _gate_chain(
    source: nn.Module | GatePOMDP | Tensor, evidence: Tensor, emission: Tensor | None
) -> ExtractedHMM:
    """The 2^k kernel of a gate at fixed evidence, from h_0 as its belief."""
    if not isinstance(source, GateRNN | GatePOMDP):
        raise ValueError(
            f"to_hmm: found a {type(source).__name__} with evidence; expected a GateRNN, or one "
            'gate of an LSTM: write to_hmm(to_pomdp(lstm, gate="forget"), evidence=a).'
        )
    pomdp = source if isinstance(source, GatePOMDP) else to_pomdp(source)
    initial = product_belief(pomdp.update(pomdp.start, evidence))
    return _shown(initial, pomdp.kernel(evidence), emission)


def _shown(initial: Tensor, matrix: Tensor, emission: Tensor | None) -> ExtractedHMM:
    """A chain with an emission; by default its symbols are its states."""
    if emission is None:
        emission = torch.eye(len(matrix), device=matrix.device, dtype=matrix.dtype)
    return ExtractedHMM(initial, matrix, emission)
