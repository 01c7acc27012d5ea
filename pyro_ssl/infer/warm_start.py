"""A start away from the symmetric plateau: an exact HMM, and a transition that its paths teach.

Stochastic EM from random parameters sits on a plateau for very long. The HMM that a model becomes
with a Markov chain as transition is fitted exactly, in seconds; draws of its paths then teach the
transition.

Next file to read: ``markov_em.py``.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..arguments import at_least, hides_progbar
from ..errors import NonFiniteError
from ..reading.program import ModelRun, Program
from ..steps import steps_within
from ..transitions import DiscreteTransition
from .blocks import block_size
from .markov_em import MarkovEM
from .path_memory import sequence_index
from .path_rows import pad_steps
from .sharded import check_all_given, current, together
from .sparse_markov import SparseMarkovEM, emptied, restricted

__all__ = [
    "all_sequences",
    "batches_of",
    "check_steps",
    "draw_all",
    "fit_markov",
    "search_markov",
    "teach_transition",
    "within",
]

#: seconds after which a step over all data shows how far it is
PATIENCE = 5.0


def fit_markov(
    model: Callable[..., Any],
    data: Tensor,
    lengths: Tensor | None = None,
    *,
    valid: tuple[Any, ...] | None = None,
    num_steps: int = 150,
    num_starts: int = 3,
    sparsity: float | None = None,
    batch_size: int | None = None,
    disable_progbar: bool | None = None,
) -> MarkovEM:
    """Fit a model's HMM from several random starts, and keep the best.

    With validation data, the best of every tenth iteration of each start; without, the start of
    the highest likelihood.

    :param model: a Pyro model of ``(data, lengths)``, as :class:`MarkovEM` takes it; with
        ``batch_size`` of ``(data, lengths, index)``, as :meth:`TopicalSSL.model` is: all data, and
        the places ``index`` of a batch in them, for ``pyro.plate(..., subsample=index)``.
    :param Tensor data: what the model observes, time first.
    :param Tensor lengths: ``(B,)``.
    :param valid: ``(data, lengths)`` or ``(data, lengths, start)`` to choose by, scored from step
        ``start`` on.
    :param int num_steps: EM iterations from each start, one at least.
    :param int num_starts: random starts, one at least.
    :param float sparsity: α of a prior that empties the states that data have no need of, so that
        their number is an upper bound: see :class:`SparseMarkovEM`. By default there is none.
    :param int batch_size: sequences in memory at a time, which bounds it and changes no result; by
        default all.
    :param bool disable_progbar: hide the progress bar; by default where ``CI`` is set.
    :returns: the best one; after Ctrl-C the best so far, with a warning.
    :raises ValueError: if one of these is less than 1.

    Example::

        >>> from pyro_ssl import TopicalSSL
        >>> words = torch.randint(6, (7, 4))
        >>> hmm = fit_markov(TopicalSSL(3, 6, hidden_size=8).model, words, num_steps=5)
        >>> hmm.matrix.shape
        torch.Size([3, 3])
    """
    reached: list[MarkovEM] = []
    how: dict[str, Any] = {"valid": valid, "num_steps": num_steps, "num_starts": num_starts}
    how |= {"sparsity": sparsity, "batch_size": batch_size, "disable_progbar": disable_progbar}
    try:
        search_markov(model, data, lengths, reached=reached.append, **how)
    except KeyboardInterrupt:
        if not reached:
            raise
        warnings.warn(
            "fit_markov: stopped before its end; what is returned is the best so far.",
            RuntimeWarning,
            stacklevel=2,
        )
    return reached[-1]


def search_markov(
    model: Callable[..., Any],
    data: Tensor,
    lengths: Tensor | None = None,
    *,
    reached: Callable[[MarkovEM], None],
    valid: tuple[Any, ...] | None = None,
    num_steps: int = 150,
    num_starts: int = 3,
    sparsity: float | None = None,
    batch_size: int | None = None,
    disable_progbar: bool | None = None,
) -> None:
    """Do what :func:`fit_markov` does, of the same arguments.

    :param reached: takes each HMM that is the best so far; one at least.
    """
    if not at_least(1, num_steps, num_starts, 1 if batch_size is None else batch_size):
        raise ValueError(
            f"fit_markov: num_steps is {num_steps}, num_starts {num_starts} and batch_size "
            f"{batch_size}, expected at least 1 of each."
        )
    lowest = math.inf
    batches = batches_of(data, lengths, batch_size)
    disable = hides_progbar(disable_progbar)
    with tqdm(total=num_starts * num_steps, desc="HMM", unit="step", disable=disable) as bar:
        for _ in range(num_starts):
            hmm = MarkovEM(model) if sparsity is None else SparseMarkovEM(model, sparsity=sparsity)
            for i in range(1, num_steps + 1):
                score = hmm.epoch(within(batches, disable))
                bar.update()
                if lowest == math.inf:
                    reached(_copied(hmm))
                if i < num_steps and (valid is None or i % 10 or sparsity is not None):
                    continue
                if isinstance(hmm, SparseMarkovEM):
                    hmm = emptied(hmm, lambda trial: trial.epoch(within(batches, disable)))
                    score = hmm.epoch(within(batches, disable))
                if valid is not None:
                    held_out, n, start = (*valid, 0)[:3]
                    held_out = batches_of(held_out, n, batch_size)
                    score = hmm.perplexity(start=start, batches=held_out)
                if score < lowest:
                    reached(_copied(hmm))
                    lowest = score
                bar.set_postfix({"best": f"{lowest:.4g}"}, refresh=False)


def _copied(hmm: MarkovEM) -> MarkovEM:
    """A copy that is a plain HMM."""
    return restricted(hmm, hmm.model) if isinstance(hmm, SparseMarkovEM) else copy.copy(hmm)


def batches_of(data: Any, lengths: Tensor | None, size: int | None) -> list[tuple[Any, ...]]:
    """Return the arguments ``(data, lengths, index)`` of a model for each batch of sequences.

    Without ``index`` where one batch holds all. Of a distributed run, this rank's sequences.

    :param data: time first, ``(T, B, ...)``: a tensor, or what has its ``shape`` and ``device`` and
        reads ``data[:, index]`` from elsewhere.
    :param int size: sequences in a batch; by default all.
    """
    num_sequences, ranks = data.shape[1], current()
    size = num_sequences if size is None else size
    if size >= num_sequences and not ranks.active and isinstance(data, Tensor):
        return [(data, lengths)]
    own = ranks.part(torch.arange(num_sequences, device=data.device))
    return [(data, lengths, index) for index in own.split(size)]


def within(steps: Sequence[Any], disable: bool) -> Iterable[Any]:
    """Show a progress bar under that of epochs while these steps are gone through, if it is long.

    :param bool disable: show none.
    """
    shown = {"desc": "within", "unit": "batch", "leave": False, "delay": PATIENCE}
    return tqdm(steps, disable=disable or len(steps) < 2, **shown)


def check_steps(who: str, num_steps: int, transition_steps: int) -> None:
    """Check how many steps a warm start is to make.

    :raises ValueError: unless both are integers, 1 at least of the HMM's.
    """
    if not (at_least(1, num_steps) and at_least(0, transition_steps)):
        raise ValueError(
            f"{who}: num_steps is {num_steps} and transition_steps {transition_steps}, expected "
            "integers, at least 1 and 0."
        )


@together("teach_transition")
def teach_transition(
    transition: DiscreteTransition,
    draw: Callable[[], Any],
    num_steps: int,
    optim: Callable[[list[nn.Parameter]], Any],
    *,
    lengths: Tensor | None = None,
    inputs: Tensor | None = None,
    batch_size: int | None = None,
) -> None:
    """Train a transition on the paths of another one, drawn anew in every pass over the sequences.

    :param draw: returns paths, int64 ``(B, T)``, as :meth:`MarkovEM.sample_paths` does; or what has
        their shape, and draws those of the places that it is indexed by.
    :param int num_steps: gradient steps.
    :param optim: a Pyro optimiser.
    :param Tensor lengths: ``(B,)``; by default every path has T steps.
    :param Tensor inputs: exogenous inputs, ``(T, B, input_size)``.
    :param int batch_size: sequences in a step, chosen at random; by default all. The gradient of
        many adds up over blocks of them, so that memory is bounded.
    :raises NonFiniteError: if the transition gives a path no finite log-probability.
    """
    parameters = [p for p in transition.parameters() if p.requires_grad]
    if not parameters:
        return
    modes = [(part, part.training) for part in transition.modules()]
    transition.train()
    # A step of a sequence takes a row of logits, or of the widest layer.
    width = max([transition.num_states, *(len(p) for p in parameters if p.dim())])
    try:
        while num_steps > 0:
            z = draw()
            B, T = z.shape
            for index in torch.randperm(B, device=z.device).split(batch_size or B)[:num_steps]:
                for part in index.split(block_size(T * width)):
                    u = None if inputs is None else inputs[:, part].transpose(0, 1)
                    n = None if lengths is None else lengths[part]
                    # Of all sequences, as in stochastic EM, so that Adam and weight decay weigh
                    # alike.
                    (_loss(transition, z[part], u, n) * (B / len(index))).backward()
                current().sum_("gradients", [p.grad for p in parameters if p.grad is not None])
                optim(parameters)
                for parameter in parameters:
                    parameter.grad = None
                num_steps -= 1
    finally:
        for parameter in parameters:
            parameter.grad = None
        for part, training in modes:
            part.training = training


def _loss(
    transition: DiscreteTransition, z: Tensor, inputs: Tensor | None, lengths: Tensor | None
) -> Tensor:
    """-log p(z) of paths ``(B, T)``, a scalar, checked."""
    log_p = transition.log_prob(z, inputs).T  # (T, B)
    if lengths is not None:
        log_p = torch.where(steps_within(lengths, len(log_p)), log_p, 0.0)
    loss = -log_p.sum()
    if not bool(loss.isfinite()):
        raise NonFiniteError(
            f"The transition's log p(z) is {-loss.item()} of paths that it is to learn, expected a "
            "finite number; check its parameters and inputs for NaN (a learning rate that is too "
            "large?)."
        )
    return loss


def all_sequences(runs: Iterable[ModelRun]) -> dict[str, Any]:
    """Return lengths ``(N,)`` and inputs ``(T, N, input_size)`` of the sequences of all batches.

    By their names, as :func:`teach_transition` takes them.

    :param runs: of the model on each batch. One batch comes after the other, as in
        :func:`draw_all`.
    :raises ValueError: unless they hold every sequence once.
    """
    given, steps, index, lengths, inputs = False, [], [], [], []
    for run in runs:
        T, own = run.loop.num_steps, run.grid.lengths
        given = given or own is not None
        steps.append(T)
        index.append(sequence_index(run))
        lengths.append(torch.full_like(run.zero_path()[0], T) if own is None else own)
        if run.inputs is not None:
            inputs.append(run.inputs.transpose(0, 1))
    N, seen = run.full_shape.numel(), torch.cat(index)
    check_all_given(run, len(seen if len(seen) > N else seen.unique()) / N)
    T = max(steps)
    u = torch.cat([pad_steps(part, T) for part in inputs]).transpose(0, 1) if inputs else None
    return {"lengths": torch.cat(lengths) if given or min(steps) < T else None, "inputs": u}


def draw_all(hmm: MarkovEM, programs: Iterable[Program]) -> Tensor:
    """Draw paths of the sequences of all batches, one batch after the other, int64 ``(N, T)``."""
    drawn = [hmm.draw(program)[1].T for program in programs]
    T = max(path.shape[-1] for path in drawn)
    return torch.cat([pad_steps(path, T) for path in drawn])
