"""One observed site of the loop's body: log p(x_t | z_t = k) for all t and k at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from ..arguments import broadcast_shapes
from .context import undrawn

__all__ = [
    "EmissionSite",
    "base_of",
    "log_prob",
    "name_of",
    "naming_site",
    "same_density",
    "user_scale",
]


class EmissionSite(NamedTuple):
    """An observed site of the loop's body: log p(x_t | z_t = k) for all t and k.

    ``fn`` has batch shape ``(K, T, B)`` up to broadcasting. ``mask`` and ``scale`` are the user's
    own and broadcast to the same shape; a plate's subsampling factor is not among them, since it
    weighs a sequence in a sum over sequences, not x_t in the posterior of z.
    """

    name: str
    fn: Any
    value: Tensor
    mask: Tensor | bool | None
    scale: Tensor | float
    shape: torch.Size  # (K, T) + batch_shape
    filler: Tensor | None = None  # stands for what is masked; by default the first that is not

    def table(self) -> Tensor:
        """Return log p(x_t | z_t = k), ``(T, B, K)``, B the flattened batch shape."""
        if self.is_row_per_state():  # rows (V, K), looked up by symbol
            log_p = torch.nn.functional.embedding(self._symbols(), self._rows().T.contiguous())
        else:
            with naming_site(self.name):
                log_p = self._lay_out(log_prob(self.fn, self._seen_value()))
        return self._weigh(log_p.expand(-1, -1, self.shape[0]))

    def path(self, z: Tensor) -> Tensor:
        """Return log p(x_t | z_t) of given paths ``(T, B)``, of the same shape."""
        if not self.is_row_per_state():
            return self.table().gather(-1, z.unsqueeze(-1)).squeeze(-1)
        # In float64, so that the gradient, a count of look-ups, is not rounded while it adds up.
        rows = self._rows()
        log_p = rows.double()[z, self._symbols()].to(rows.dtype)
        return self._weigh(log_p.unsqueeze(-1), z).squeeze(-1)

    def a_possible_value(self) -> Tensor | None:
        """Return the first value that is not masked, of event shape, or a draw if all are.

        ``None`` where there is no mask.
        """
        value, mask = self._with_mask()
        if mask is None or not mask.numel():
            return None
        if bool(mask.any()):
            return value.flatten(0, mask.dim() - 1)[mask.flatten().to(torch.uint8).argmax()]
        with undrawn(value.device):
            drawn = self.fn.sample()
        return drawn.flatten(0, len(self.fn.batch_shape) - 1)[0].to(value.dtype)

    def _seen_value(self) -> Tensor:
        """The value, with a possible one in place of each that is masked: padding may be NaN."""
        value, mask = self._with_mask()
        filler = self.a_possible_value() if self.filler is None else self.filler
        if mask is None or filler is None:
            return value
        return torch.where(mask.reshape(mask.shape + (1,) * self.fn.event_dim), value, filler)

    def _with_mask(self) -> tuple[Tensor, Tensor | None]:
        """The value and its mask, of one batch shape; no mask where it depends on the state."""
        mask, value, batch_dims = self.mask, self.value, self.value.dim() - self.fn.event_dim
        if not isinstance(mask, Tensor) or mask.dim() >= len(self.shape) or not mask.dim():
            return value, None
        batch = broadcast_shapes(value.shape[:batch_dims], mask.shape)
        return value.expand(batch + value.shape[batch_dims:]), mask.expand(batch)

    def _lay_out(self, value: Any) -> Tensor:
        """``(K, T) + batch_shape``, up to broadcasting, to ``(T, B, K)``; K may stay 1."""
        K, T = self.shape[:2]
        value = value.reshape((1,) * (len(self.shape) - value.dim()) + value.shape)
        value = value.expand((value.shape[0],) + self.shape[1:])
        return value.reshape(value.shape[0], T, -1).permute(1, 2, 0)

    def _weigh(self, log_p: Tensor, z: Tensor | None = None) -> Tensor:
        """Apply the user's mask and scale; for a path, those of its states."""

        def factor(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            value = self._lay_out(value)
            if z is not None and value.shape[-1] > 1:
                value = value.gather(-1, z.unsqueeze(-1))
            return value

        scale, mask = factor(self.scale), factor(self.mask)
        if isinstance(scale, Tensor) or scale != 1.0:
            log_p = log_p * scale
        if mask is False:
            return torch.zeros_like(log_p)
        if isinstance(mask, Tensor):
            log_p = torch.where(mask, log_p, 0.0)
        return log_p

    def varies_with_state(self) -> bool:
        """Whether the distribution depends on the state."""
        batch = self.fn.batch_shape
        return len(batch) == len(self.shape) and batch[0] == self.shape[0]

    def is_row_per_state(self) -> bool:
        """Whether x is categorical, with probabilities that depend on the state alone.

        Then a cell costs one look-up, and its gradient one scatter of as many elements; the
        gradient through ``log_prob`` would be of shape ``(K, T, B, V)``.
        """
        ndim = len(self.shape)
        return (
            type(self.fn) is dist.Categorical
            and self.fn.batch_shape == self.shape[:1] + (1,) * (ndim - 1)
            and self.value.dim() < ndim
        )

    def _rows(self) -> Tensor:
        return _log_probs(self.fn).reshape(self.shape[0], -1)

    def _symbols(self) -> Tensor:
        """Return the observed symbols ``(T, B)``, checked, with 0 where they are masked."""
        symbols = self._lay_out(self.value).squeeze(-1)
        if isinstance(self.mask, Tensor) and self.mask.dim() < len(self.shape):
            symbols = torch.where(self._lay_out(self.mask).squeeze(-1), symbols, 0)
        V = self.fn.param_shape[-1]
        whole = symbols.long()
        wrong = (whole < 0) | (whole >= V) | (whole != symbols)
        if wrong.any():
            t, b = wrong.nonzero()[0].tolist()
            raise ValueError(
                f'Site "{self.name}": the value at step {t} of sequence {b} is '
                f"{symbols[t, b].item()}, expected an integer from 0 to {V - 1}; encode the data "
                f"with the vocabulary of the model (V={V}), and leave padding out by lengths=."
            )
        return whole


def log_prob(fn: Any, value: Tensor) -> Tensor:
    """Return ``fn.log_prob(value)`` with no clamp between a probability and its logarithm.

    torch keeps the probabilities of a ``Categorical`` 1.2e-7 away from 0 in float32, and those of a
    ``Bernoulli`` from 1 too, as soon as it takes logarithms.
    """
    if type(fn) is dist.Independent:
        log_p, n = log_prob(fn.base_dist, value), fn.reinterpreted_batch_ndims
        return log_p.sum(tuple(range(-n, 0))) if n else log_p
    if type(fn) not in (dist.Categorical, dist.Bernoulli) or not _has_probs(fn):
        return fn.log_prob(value)
    if fn._validate_args:
        fn._validate_sample(value)
    if type(fn) is dist.Bernoulli:
        p = torch.where(value > 0.5, fn.probs, 1.0 - fn.probs)
        return _safe_log(p)
    value, log_p = torch.broadcast_tensors(value.long().unsqueeze(-1), fn.probs)
    return _safe_log(log_p.gather(-1, value[..., :1]).squeeze(-1))


def _log_probs(fn: Any) -> Tensor:
    """Log-probabilities of a ``Categorical``; see :func:`log_prob`."""
    return _safe_log(fn.probs) if _has_probs(fn) else fn.logits


def _has_probs(fn: Any) -> bool:
    """Whether a distribution was given probabilities, not log-odds."""
    return fn._param is vars(fn).get("probs")


def _safe_log(p: Tensor) -> Tensor:
    """log p, -inf at 0, with gradient 0 there where none comes in."""
    positive = p > 0
    return torch.where(positive, torch.where(positive, p, 1.0).log(), -torch.inf)


@contextmanager
def naming_site(name: str) -> Iterator[None]:
    """Say which site's density it is that cannot be taken.

    :raises ValueError: from what its distribution raised.
    """
    try:
        yield
    except (ValueError, TypeError, RuntimeError) as error:
        if type(error) not in (ValueError, TypeError, RuntimeError):
            raise  # out of memory, or one of this library's own
        raise ValueError(
            f'Site "{name}": its log-density cannot be taken, expected values in the support of '
            "its distribution and of its shape. Leave what is missing out by "
            f"poutine.mask(mask=...), and padding by lengths=. It raised: {error}"
        ) from error


def name_of(sites: Sequence[EmissionSite]) -> str:
    """Return the name by which a body is known: of its first site that is no label."""
    own = [site.name for site in sites if not isinstance(site.fn, dist.Delta)]
    return own[0] if own else sites[0].name


def same_density(found: Tensor, expected: Tensor) -> bool:
    """Return whether two ways to compute log p(x_t | z_t) agree, but for rounding."""
    rtol = 1e-3 if expected.dtype == torch.float32 else 1e-6
    return torch.allclose(found, expected, rtol=rtol, atol=rtol, equal_nan=True)


def base_of(fn: Any) -> Any:
    """Return a distribution without the dimensions that ``to_event`` made its event's."""
    while isinstance(fn, dist.Independent):
        fn = fn.base_dist
    return fn


def user_scale(site: dict[str, Any], num_inner: int = 0) -> Tensor | float:
    """Return a site's scale without what the plates around the loop put there for subsampling."""
    scale = site["scale"]
    frames = site["cond_indep_stack"]
    for frame in frames[: len(frames) - num_inner]:
        if frame.full_size is not None and frame.full_size != frame.size:
            scale = scale * frame.size / frame.full_size
    if not isinstance(scale, Tensor) and abs(scale - 1.0) < 1e-12:
        return 1.0
    return scale
