r"""The recurrent language model over words: what a state space LSTM is compared with.

.. math::
    h_t = \mathrm{LSTM}(h_{t-1}, E_{x_{t-1}}), \qquad
    x_t \mid x_{1:t-1} \sim \mathrm{Cat}(\mathrm{softmax}(W h_t + b))

Sundermeyer, Schlüter & Ney 2012 ("LSTM neural networks for language modeling"), with dropout of h_t
as in Zaremba, Sutskever & Vinyals 2014 (arXiv 1409.2329), section 3. Zheng et al. 2017 (arXiv
1711.11179) set the SSL against it: the LSTM runs over words here, over topics there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..gradients import evaluating
from .base import EpochRecord
from .cell_options import check_options, make_layer
from .door import integers
from .dynamic import DynamicEvaluation, adapting_log_likelihood, root_mean_square_gradient
from .epochs import fit_epochs, whole_or_not
from .language_epochs import after_start, learn_epoch
from .saved_fit import saved
from .settings import checked
from .words import WordModel, check_start

__all__ = ["LanguageModel"]

_HIDDEN_CELLS = 2**16  # cells (t, b) whose hidden states exist at once while scoring
_LOGITS = 2**22  # logits that exist at once while scoring


class LanguageModel(WordModel):
    r"""p(x_t | x_{1:t-1}) of words or characters by an LSTM over them.

    :param int vocab_size: V, the number of symbols; symbol V is the start symbol, never predicted.
    :param int embedding_size: E, width of a symbol's vector.
    :param int hidden_size: H, units of the recurrent layer.
    :param str cell: ``"lstm"``, or ``"mlstm"`` for the multiplicative LSTM (Krause et al. 2016,
        arXiv 1609.07959).
    :param float dropout: probability of dropping a unit of h_t before the output layer, while
        the model learns.
    :param options: of the cell: ``forget_bias``, the initial bias of an LSTM's forget gate; of the
        multiplicative LSTM ``weight_norm``, ``variational_dropout``, ``forget_bias`` and
        ``squash``, see :class:`~pyro_ssl.cells.MultiplicativeLSTMCell`.
    :raises ValueError: if ``cell`` is neither, or has no such option.

    Data are time first, ``words`` ``(T, B)`` and ``lengths`` ``(B,)``, as
    :func:`pyro_ssl.datasets.batchify` makes them; what stands past the lengths is never read. They
    may be tensors, arrays or lists of any whole numbers.

    Example::

        >>> words = (torch.arange(9)[:, None] + torch.arange(6)) % 5
        >>> model = LanguageModel(5, embedding_size=4, hidden_size=8)
        >>> history = model.fit(words, num_epochs=2, disable_progbar=True)
        >>> model.log_likelihood(words).shape, model.perplexity(words) > 1.0
        (torch.Size([9, 6]), True)
    """

    @checked
    def __init__(
        self,
        vocab_size: int,
        *,
        embedding_size: int = 64,
        hidden_size: int = 64,
        cell: str = "lstm",
        dropout: float = 0.5,
        **options: Any,
    ) -> None:
        check_options("LanguageModel", cell, options)
        super().__init__(
            vocab_size=vocab_size,
            embedding_size=embedding_size,
            hidden_size=hidden_size,
            cell=cell,
            dropout=dropout,
            **options,
        )
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(self.vocab_size + 1, embedding_size)
        self.recurrent = make_layer(cell, embedding_size, hidden_size, options)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, self.vocab_size)

    def forward(self, words: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the logits of the symbol after each of ``words``, and the state after the last.

        This reads one long text in windows: hand the state of one window to the next. At the start
        of a text put the start symbol, ``vocab_size``, in front.

        :param Tensor words: int64 ``(T, B)``.
        :param state: of the recurrent layer, as an earlier call returned it; ``None``: zero.
        :returns: logits ``(T, B, V)``, and the state.
        """
        words = integers("LanguageModel: words", words, self.head.weight.device)
        if bool(((words < 0) | (words > self.vocab_size)).any()):
            raise ValueError(
                f"LanguageModel: found words from {int(words.min())} to {int(words.max())}, "
                f"expected 0 to V = {self.vocab_size}, the start symbol."
            )
        h, state = self.recurrent(self.embedding(words), state)  # (T, B, H)
        return self.head(self.dropout(h)), state

    def hidden(self, words: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return h after each of ``words``, ``(T, B, H)``, and the state; dropout is off.

        It reads a text in windows as :meth:`forward` does, and has gradients.
        """
        # An LSTM has no dropout, and cuDNN takes no gradient in evaluation mode.
        plain = isinstance(self.recurrent, nn.LSTM)
        with nullcontext() if plain else evaluating(self.recurrent):
            h, state = self.recurrent(self.embedding(words), state)
        return h, state

    def train(self, mode: bool = True) -> LanguageModel:
        """Set the mode of dropout; an LSTM, which has none, stays in training mode.

        In ``eval()`` mode cuDNN would refuse gradients through it.
        """
        super().train(mode)
        self.recurrent.train(mode or isinstance(self.recurrent, nn.LSTM))
        return self

    @torch.no_grad()
    def log_likelihood(
        self,
        words: Tensor,
        lengths: Tensor | None = None,
        *,
        dynamic: DynamicEvaluation | None = None,
    ) -> Tensor:
        """Return log p(x_t | x_{1:t-1}), float64 ``(T, B)``; 0 past the lengths.

        Dropout is off, in ``train()`` mode too, and ``(T, B, V)`` never exists as a whole.

        :param Tensor words: int64 ``(T, B)``.
        :param Tensor lengths: ``(B,)``; by default every sequence has T words.
        :param DynamicEvaluation dynamic: adapt to the text while scoring it: each window of words
            is scored, then learned from, by one model for all B sequences, whose parameters are
            the fitted ones again afterwards.
        :raises ValueError: if they do not fit one another, or a word is outside the vocabulary.
        """
        words, lengths, active = self._take("log_likelihood", words, lengths)
        if dynamic is not None:
            return adapting_log_likelihood(self, words, active, dynamic)
        log_p = torch.zeros(words.shape, dtype=torch.float64, device=words.device)
        if words.numel() == 0:  # nn.LSTM refuses T = 0
            return log_p
        columns = max(1, _HIDDEN_CELLS // len(words))
        steps, rows = max(1, _HIDDEN_CELLS // columns), max(1, _LOGITS // self.vocab_size)
        parts = words, active, log_p, after_start(words, active, self.vocab_size)
        for block in zip(*(part.split(columns, 1) for part in parts), strict=True):
            state = None
            for x, seen, out, previous in zip(*(part.split(steps) for part in block), strict=True):
                h, state = self.hidden(previous, state)
                pieces = zip(h[seen].split(rows), x[seen].split(rows), strict=True)
                scores = [F.cross_entropy(self.head(a), b, reduction="none") for a, b in pieces]
                out[seen] = -torch.cat(scores).double()
        return log_p

    @checked
    def gradient_rms(
        self, words: Tensor, lengths: Tensor | None = None, *, window: int = 20
    ) -> dict[str, Tensor]:
        """Return the root mean square of each parameter's gradient, for ``DynamicEvaluation``.

        :param Tensor words: int64 ``(T, B)``, of the training text.
        :param int window: steps of which each gradient is.
        :raises ValueError: if there is no word.
        """
        words, lengths, active = self._take("gradient_rms", words, lengths)
        check_start("LanguageModel.gradient_rms", 0, active)
        return root_mean_square_gradient(self, words, active, window)

    @checked
    def perplexity(
        self,
        words: Tensor,
        lengths: Tensor | None = None,
        *,
        start: int = 0,
        dynamic: DynamicEvaluation | None = None,
    ) -> float:
        """Return exp(-mean log p(x_t | x_{1:t-1})) per word.

        :param int start: score from this step on; earlier words are only conditioned on.
        :param DynamicEvaluation dynamic: see :meth:`log_likelihood`.
        :raises ValueError: if no word is left to score.
        """
        words, lengths, active = self._take("perplexity", words, lengths)
        start = check_start("LanguageModel.perplexity", start, active)
        log_p = self.log_likelihood(words, lengths, dynamic=dynamic)[start:]
        return float((-log_p.sum() / active[start:].sum()).exp())

    @checked
    @whole_or_not
    @saved
    def fit(
        self,
        words: Tensor,
        lengths: Tensor | None = None,
        *,
        valid: tuple[Any, ...] | None = None,
        num_epochs: int = 50,
        batch_size: int = 20,
        window: int | None = None,
        learning_rate: float = 0.002,
        weight_decay: float = 0.0,
        clip: float = 5.0,
        patience: int | None = None,
        callback: Callable[[EpochRecord], None] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        every: int = 1,
        resume: bool = False,
        disable_progbar: bool | None = None,
    ) -> list[EpochRecord]:
        """Fit by AdamW on shuffled minibatches of sequences, from the weights as they are.

        :param Tensor words: int64 ``(T, B)``.
        :param Tensor lengths: ``(B,)``.
        :param valid: ``(words, lengths)`` or ``(words, lengths, start)``, scored from ``start`` on;
            the epoch of the lowest perplexity is the one that is kept.
        :param int num_epochs: at most so many.
        :param int batch_size: sequences per gradient step.
        :param int window: for long texts: steps per gradient step, of each minibatch one window
            after the other, with the state carried on (truncated back-propagation through time).
            By default whole sequences. One text of N symbols is cut into B side by side by
            ``text[: N // B * B].view(B, -1).T``.
        :param float clip: longest gradient, in the Euclidean norm over all parameters.
        :param checkpoint: a folder to save the fit in, after every so many epochs (``every``);
            with ``resume`` it goes on from there: see :class:`~pyro_ssl.models.Model`.
        :param patience: this, ``callback``, ``disable_progbar``, and how a fit ends, Ctrl-C
            included: see :func:`~pyro_ssl.models.fit_epochs`.
        :returns: :attr:`history`, one record per epoch.
        :raises ValueError: if there is no word to learn from, or the data do not fit the model.
        :raises NonFiniteError: if the loss is no longer a number.
        """
        words, lengths, valid = self._take_all(words, lengths, valid)
        optim = torch.optim.AdamW(self.parameters(), lr=learning_rate, weight_decay=weight_decay)
        how: dict[str, Any] = {"batch_size": batch_size, "window": window, "clip": clip}

        def step() -> tuple[float, float]:
            return learn_epoch(self, words, lengths, optim, **how), math.nan

        def score(words: Tensor, lengths: Tensor | None = None, start: int = 0) -> dict[str, float]:
            return {"perplexity": self.perplexity(words, lengths, start=start)}

        how_it_ends: dict[str, Any] = {"patience": patience, "callback": callback}
        how_it_ends |= {"valid": valid, "score": score, "monitor": "perplexity"}
        how_it_ends |= {"parts": {"optim": optim}}
        return fit_epochs(self, num_epochs, step, disable_progbar=disable_progbar, **how_it_ends)

    @property
    def _sizes(self) -> tuple[int, torch.device]:
        return self.vocab_size, self.head.weight.device
