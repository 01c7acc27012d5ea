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
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import trange

from ..cells import MultiplicativeLSTM
from ..errors import NonFiniteError
from .checkpoint import load_checkpoint, save_checkpoint
from .words import active_cells, check_words

__all__ = ["LanguageModel", "LanguageModelRecord"]

#: Words, with lengths, and with the step from which they are scored.
Scored = tuple[Tensor, "Tensor | None"] | tuple[Tensor, "Tensor | None", int]

_LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "lstm": nn.LSTM,
    "mlstm": MultiplicativeLSTM,
}
_HIDDEN_CELLS = 2**16  # cells (t, b) whose hidden states exist at once while scoring
_LOGITS = 2**22  # logits that exist at once while scoring


class LanguageModelRecord(NamedTuple):
    """What one epoch of :meth:`LanguageModel.fit` came to.

    ``loss`` is -log p(x_t | x_{1:t-1}) in nats per token, with dropout and while the weights move;
    ``valid_perplexity`` is NaN where no validation data were given; ``seconds`` leaves validation
    out.
    """

    epoch: int
    loss: float
    valid_perplexity: float
    seconds: float


class LanguageModel(nn.Module):
    r"""p(x_t | x_{1:t-1}) of words or characters by an LSTM over them.

    :param int vocab_size: V, the number of symbols; symbol V is the start symbol, never predicted.
    :param int embedding_size: E, width of a symbol's vector.
    :param int hidden_size: H, units of the recurrent layer.
    :param str cell: ``"lstm"``, or ``"mlstm"`` for the multiplicative LSTM (Krause et al. 2016,
        arXiv 1609.07959).
    :param float dropout: probability of dropping a unit of h_t before the output layer, while
        the model learns.
    :raises ValueError: if ``cell`` is neither.

    Data are time first, ``words`` int64 ``(T, B)`` and ``lengths`` ``(B,)``, as
    :func:`pyro_ssl.datasets.batchify` makes them; what stands past the lengths is never read.
    It is a :class:`torch.nn.Module`: ``to``, ``parameters``, ``state_dict`` are torch's own.

    Example::

        >>> words = (torch.arange(9)[:, None] + torch.arange(6)) % 5
        >>> model = LanguageModel(5, embedding_size=4, hidden_size=8)
        >>> history = model.fit(words, num_epochs=2, disable_progbar=True)
        >>> model.log_likelihood(words).shape, model.perplexity(words) > 1.0
        (torch.Size([9, 6]), True)
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        embedding_size: int = 64,
        hidden_size: int = 64,
        cell: str = "lstm",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if cell not in _LAYERS:
            raise ValueError(f'LanguageModel: cell is "{cell}", expected "lstm" or "mlstm".')
        self.vocab_size = int(vocab_size)
        self.cell = cell
        self.embedding = nn.Embedding(self.vocab_size + 1, embedding_size)
        self.recurrent = _LAYERS[cell](embedding_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, self.vocab_size)
        self.history: list[LanguageModelRecord] = []

    @property
    def num_parameters(self) -> int:
        """How many numbers are learned, the embedding's and the output layer's included."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, words: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the logits of the symbol after each of ``words``, and the state after the last.

        This reads one long text in windows: hand the state of one window to the next. At the start
        of a text put the start symbol, ``vocab_size``, in front.

        :param Tensor words: int64 ``(T, B)``.
        :param state: of the recurrent layer, as an earlier call returned it; ``None``: zero.
        :returns: logits ``(T, B, V)``, and the state.
        """
        h, state = self.recurrent(self.embedding(words), state)  # (T, B, H)
        return self.head(self.dropout(h)), state

    @torch.no_grad()
    def log_likelihood(self, words: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return log p(x_t | x_{1:t-1}), float64 ``(T, B)``; 0 past the lengths.

        Dropout is off, in ``train()`` mode too, and ``(T, B, V)`` never exists as a whole.

        :param Tensor words: int64 ``(T, B)``.
        :param Tensor lengths: ``(B,)``; by default every sequence has T words.
        :raises ValueError: if they do not fit one another, or a word is outside the vocabulary.
        """
        active = self._check(words, lengths)
        log_p = torch.zeros(words.shape, dtype=torch.float64, device=words.device)
        if words.numel() == 0:  # nn.LSTM refuses T = 0
            return log_p
        columns = max(1, _HIDDEN_CELLS // len(words))
        rows = max(1, _LOGITS // self.vocab_size)
        parts = (tensor.split(columns, 1) for tensor in (words, active, log_p))
        for x, seen, out in zip(*parts, strict=True):
            h = self._hidden(x, seen)[seen]  # (N, H)
            pieces = zip(h.split(rows), x[seen].split(rows), strict=True)
            scores = [F.cross_entropy(self.head(a), b, reduction="none") for a, b in pieces]
            out[seen] = -torch.cat(scores).double()
        return log_p

    def perplexity(self, words: Tensor, lengths: Tensor | None = None, *, start: int = 0) -> float:
        """Return exp(-mean log p(x_t | x_{1:t-1})) per word.

        :param int start: score from this step on; earlier words are only conditioned on.
        :raises ValueError: if no word is left to score.
        """
        scored = self._check(words, lengths)[start:]
        if not bool(scored.any()):
            raise ValueError(
                f"LanguageModel.perplexity: found no word to score from start={start} on, in words "
                f"of shape {tuple(words.shape)}; expected one at least. Write start=0, or a step "
                "below the longest length."
            )
        log_p = self.log_likelihood(words, lengths)[start:]
        return float((-log_p.sum() / scored.sum()).exp())

    def fit(
        self,
        words: Tensor,
        lengths: Tensor | None = None,
        *,
        valid: Scored | None = None,
        num_epochs: int = 50,
        batch_size: int = 20,
        learning_rate: float = 0.002,
        weight_decay: float = 0.0,
        clip: float = 5.0,
        patience: int | None = None,
        callback: Callable[[LanguageModelRecord], None] | None = None,
        disable_progbar: bool | None = None,
    ) -> list[LanguageModelRecord]:
        """Fit by AdamW on shuffled minibatches of sequences, from the weights as they are.

        :param Tensor words: int64 ``(T, B)``.
        :param Tensor lengths: ``(B,)``.
        :param valid: ``(words, lengths)`` or ``(words, lengths, start)``, scored from ``start`` on;
            the epoch of the lowest perplexity is the one that is kept.
        :param int num_epochs: at most so many.
        :param int batch_size: sequences per gradient step.
        :param float clip: longest gradient, in the Euclidean norm over all parameters.
        :param int patience: stop after so many epochs without a better validation perplexity.
        :param callback: called with each :class:`LanguageModelRecord`.
        :returns: :attr:`history`, one record per epoch.
        :raises ValueError: if there is no word to learn from, or the data do not fit the model.
        :raises NonFiniteError: if the loss is no longer a number.
        """
        if not bool(self._check(words, lengths).any()):
            raise ValueError(
                f"LanguageModel.fit: found no word in words of shape {tuple(words.shape)}; "
                "expected a sequence of length 1 or more."
            )
        optim = torch.optim.AdamW(self.parameters(), lr=learning_rate, weight_decay=weight_decay)
        kept: tuple[float, int, dict[str, Tensor]] = (math.inf, 0, {})
        self.history = []
        disable = bool(os.environ.get("CI")) if disable_progbar is None else disable_progbar
        with trange(1, num_epochs + 1, desc="LanguageModel", unit="epoch", disable=disable) as bar:
            for epoch in bar:
                started = time.perf_counter()
                loss = self._epoch(words, lengths, batch_size, optim, clip)
                seconds = time.perf_counter() - started
                score = math.nan
                if valid is not None:
                    score = self.perplexity(*valid[:2], start=valid[2] if len(valid) > 2 else 0)
                self.history.append(LanguageModelRecord(epoch, loss, score, seconds))
                bar.set_postfix(loss=f"{loss:.3f}", valid=f"{score:.1f}", refresh=False)
                if callback is not None:
                    callback(self.history[-1])
                if score < kept[0]:
                    kept = (score, epoch, {n: t.clone() for n, t in self.state_dict().items()})
                if patience is not None and kept[2] and epoch - kept[1] >= patience:
                    break
        if kept[2]:
            self.load_state_dict(kept[2])
        self.eval()
        return self.history

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a folder of safetensors and JSON; see :mod:`pyro_ssl.models.checkpoint`."""
        config = {
            "vocab_size": self.vocab_size,
            "embedding_size": self.embedding.embedding_dim,
            "hidden_size": self.head.in_features,
            "cell": self.cell,
            "dropout": self.dropout.p,
            "history": [list(record) for record in self.history],
        }
        save_checkpoint(path, "LanguageModel", self.state_dict(), config)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LanguageModel:
        """Read what :meth:`save` wrote, onto the CPU.

        :raises CheckpointError: if it is missing, of another kind, cut short, or altered.
        """
        tensors, config = load_checkpoint(path, "LanguageModel")
        history = config.pop("history")
        model = cls(config.pop("vocab_size"), **config).to("cpu", tensors["head.weight"].dtype)
        model.load_state_dict(tensors)
        model.history = [LanguageModelRecord(*record) for record in history]
        return model.eval()

    def _hidden(self, words: Tensor, active: Tensor) -> Tensor:
        """h_t, which has seen x_{1:t-1}, at every step: ``(T, B, H)``."""
        start = self.vocab_size
        previous = F.pad(words.masked_fill(~active, start), (0, 0, 1, -1), value=start)
        return self.recurrent(self.embedding(previous))[0]

    def _epoch(
        self,
        words: Tensor,
        lengths: Tensor | None,
        batch_size: int,
        optim: torch.optim.Optimizer,
        clip: float,
    ) -> float:
        """One gradient step per minibatch; return the mean loss of a token."""
        self.train()
        active = active_cells(words, lengths)
        total = words.new_zeros((), dtype=torch.float64)
        for chosen in torch.randperm(words.shape[1], device=words.device).split(batch_size):
            seen = active[:, chosen]
            num_steps = int(seen.any(1).sum())
            if num_steps == 0:
                continue
            x, seen = words[:num_steps, chosen], seen[:num_steps]
            # The output layer is most of the work at V = 5,000, so it sees no padding.
            logits = self.head(self.dropout(self._hidden(x, seen)[seen]))  # (N, V)
            loss = F.cross_entropy(logits, x[seen])
            optim.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters(), clip)
            optim.step()
            total += loss.detach() * len(logits)
        mean = float(total / active.sum())
        if not math.isfinite(mean):
            raise NonFiniteError(
                f"LanguageModel.fit: the loss of an epoch is {mean}, expected a finite number. The "
                "weights are spoilt: begin with a new model and a lower learning_rate."
            )
        return mean

    def _check(self, words: Tensor, lengths: Tensor | None) -> Tensor:
        """Check the data, and return where a word stands: bool ``(T, B)``."""
        return check_words(words, lengths, self.vocab_size, self.head.weight.device)
