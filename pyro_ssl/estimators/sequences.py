"""States of symbol sequences, by hmmlearn's conventions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ..models import TopicalSSL
from ..reading.context import all_or_nothing
from ..transitions import PathDistribution
from .base import Estimator, seeded

__all__ = ["CategoricalSSL"]


class CategoricalSSL(Estimator):
    """A topical SSL of symbols, in the place of ``hmmlearn.hmm.CategoricalHMM``.

    Data are as there: ``X`` ``(n_samples, 1)`` whole numbers, sequences one after the other, and
    ``lengths`` of each; without them all is one sequence.

    :param int n_components: K, the number of states.
    :param int n_features: V; by default one more than the largest symbol of the fit.
    :param int hidden_size: H, units of the LSTM.
    :param emissionprob_prior: of the Dirichlet prior of each state's symbols: a number, or an array
        ``(n_components, n_features)``.
    :param int n_iter: epochs.
    :param int batch_size: sequences in a step; by default all.
    :param int random_state: seed of all random numbers; ``None``: torch's generator.
    :param bool verbose: show progress bars.
    :param dict fit_options: further arguments of :meth:`TopicalSSL.fit`.

    Example::

        >>> import numpy as np
        >>> from pyro_ssl.estimators import CategoricalSSL
        >>> X = np.array([[0, 0, 1, 1] * 5, [2, 3, 2, 3] * 5]).reshape(-1, 1)
        >>> quick = {"markov_steps": 10, "markov_starts": 1, "transition_steps": 10}
        >>> how = {"n_iter": 2, "random_state": 0, "fit_options": quick}
        >>> model = CategoricalSSL(2, hidden_size=8, **how).fit(X, [20, 20])
        >>> model.predict(X, [20, 20]).shape, model.predict_proba(X).shape
        ((40,), (40, 2))
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        n_features: int | None = None,
        hidden_size: int = 64,
        emissionprob_prior: Any = 0.1,
        n_iter: int = 50,
        batch_size: int | None = None,
        random_state: int | None = None,
        verbose: bool = False,
        fit_options: dict[str, Any] | None = None,
    ) -> None:
        self.n_components, self.n_features = n_components, n_features
        self.hidden_size, self.emissionprob_prior = hidden_size, emissionprob_prior
        self.n_iter, self.batch_size, self.random_state = n_iter, batch_size, random_state
        self.verbose, self.fit_options = verbose, fit_options

    @all_or_nothing
    def fit(self, X: Any, lengths: Sequence[int] | None = None) -> Self:
        """Fit by stochastic EM, from an exact HMM.

        :raises ValueError: if the data do not fit, or a setting is out of range.
        """
        words, n = _laid_out("fit", X, lengths)
        V = int(words.max()) + 1 if self.n_features is None else self.n_features
        with seeded("CategoricalSSL", self.random_state):
            model = TopicalSSL(
                self.n_components,
                V,
                hidden_size=self.hidden_size,
                concentration=self.emissionprob_prior,
            )
            options: dict[str, Any] = {"num_epochs": self.n_iter}
            options |= {
                "batch_size": self.batch_size,
                "disable_progbar": not self.verbose,
                **(self.fit_options or {}),
            }
            model.fit(words, n, **options)
        self.model_ = model
        return self

    def score(self, X: Any, lengths: Sequence[int] | None = None) -> float:
        """Return log p̂(X), the sum over sequences."""
        words, n = _laid_out("score", X, lengths)
        with seeded("CategoricalSSL", self.random_state):
            return -int(n.sum()) * math.log(self._check_fitted().perplexity(words, n))

    def predict_proba(self, X: Any, lengths: Sequence[int] | None = None) -> np.ndarray:
        """Return p(z_t = k | x_{1:T}) of every symbol, ``(n_samples, K)``, by particle Gibbs."""
        words, n = _laid_out("predict_proba", X, lengths)
        with seeded("CategoricalSSL", self.random_state):
            probs = self._check_fitted().transform(words, n)  # (T, B, K)
        each = [probs[:length, b] for b, length in enumerate(n.tolist())]
        return torch.cat(each).double().numpy(force=True)

    def predict(self, X: Any, lengths: Sequence[int] | None = None) -> np.ndarray:
        """Return the likeliest state of every symbol, ``(n_samples,)``."""
        return self.predict_proba(X, lengths).argmax(-1)

    def decode(
        self, X: Any, lengths: Sequence[int] | None = None, algorithm: str = "map"
    ) -> tuple[float, np.ndarray]:
        """Return the sum of log p(z_t | x) of the likeliest states, and these.

        :param str algorithm: ``"map"``, step by step, as hmmlearn's of this name. The likeliest
            path as a whole (its ``"viterbi"``) takes a Markov chain.
        """
        if algorithm != "map":
            raise ValueError(
                f'CategoricalSSL.decode: algorithm is "{algorithm}", expected "map": an LSTM has '
                'no Viterbi path; write algorithm="map".'
            )
        probs = self.predict_proba(X, lengths)
        return float(np.log(probs.max(-1)).sum()), probs.argmax(-1)

    def sample(
        self, n_samples: int = 1, random_state: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw one sequence from the model: symbols ``(n_samples, 1)`` and states ``(n_samples,)``.

        :param int random_state: by default that of the constructor.
        """
        model = self._check_fitted()
        seed = self.random_state if random_state is None else random_state
        assert model.phi is not None
        with torch.no_grad(), seeded("CategoricalSSL", seed):
            z = PathDistribution(model.transition, n_samples).sample()
            x = torch.multinomial(model.phi[z], 1)
        return x.numpy(force=True), z.numpy(force=True)

    @property
    def emissionprob_(self) -> np.ndarray:
        """p(symbol | state), ``(K, V)``."""
        phi = self._check_fitted().phi
        assert phi is not None
        return phi.double().numpy(force=True)


def _laid_out(method: str, X: Any, lengths: Sequence[int] | None) -> tuple[Tensor, Tensor]:
    """Symbols one after the other as ``(T, B)``, time first, and their lengths ``(B,)``.

    :raises ValueError: if they are no column, no whole numbers, or lengths do not add up.
    """
    where = f"CategoricalSSL.{method}"
    column = np.asarray(X)
    if column.ndim != 2 or column.shape[1] != 1 or not len(column):
        raise ValueError(
            f"{where}: X has shape {column.shape}, expected (n_samples, 1); write X.reshape(-1, 1)."
        )
    n = np.array([len(column)] if lengths is None else lengths)
    if n.ndim != 1 or n.dtype.kind not in "iu" or (n < 1).any() or n.sum() != len(column):
        raise ValueError(
            f"{where}: lengths are {n.tolist()}, expected whole numbers of 1 or more that add up "
            f"to the {len(column)} rows of X; write lengths=[len(x) for x in sequences]."
        )
    parts = np.split(column[:, 0], n.cumsum()[:-1])
    padded = np.zeros((n.max(), len(n)), dtype=column.dtype)
    for b, part in enumerate(parts):
        padded[: len(part), b] = part
    return torch.as_tensor(padded), torch.as_tensor(n)
