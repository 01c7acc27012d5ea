"""A sweep over states in one launch: ``smc/sweep.py`` and ``smc/discrete.py``."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.errors import OutOfResources

from ..sweeps import SweepSettings, Swept
from ..weights import CellWeights
from .cell import CellArrays, Sizes, advance, log_prior, log_prior_at
from .launch import LEAST, launch, places
from .reference import redraw
from .resampling import ancestors_of, draw_state, normalise

__all__ = ["fits", "sweep_states"]

#: the most particles and states, and multiplications of a product, that a program has registers for
MOST_PARTICLES, MOST_STATES, MOST_PRODUCT = 64, 256, 2**18
#: how a product of float32 is made: by three of NVIDIA's tensor cores, which keep its precision
PRECISION = "ieee" if torch.version.hip else "tf32x3"
#: threads of a sequence, over 32: of the least tile of an LSTM, and of all that has more to hold
WARPS, MORE_WARPS = 4, 8
#: how far loads of weights run ahead of their products; at 1 they do not
STAGES = 2

LOWEST = tl.constexpr(-3.4028234663852886e38)


class Given(NamedTuple):
    """What a sweep reads beside the cell: see ``src/arguments.h``; some are ``None``."""

    emission: Tensor
    twist: Tensor | None
    scale: Tensor | None
    lengths: Tensor | None
    reference: Tensor | None
    u_ancestors: Tensor
    u_redraws: Tensor | None
    u_z: Tensor
    z_start: Tensor | None
    h_start: Tensor | None
    c_start: Tensor | None
    w_start: Tensor | None


@triton.jit(do_not_specialize=["T", "B", "first_redraw", "every", "lag"])
def _sweep(
    cell,
    given,
    out,
    size,
    T,
    B,
    first_redraw,
    every,
    lag,
    SYSTEMATIC: tl.constexpr,
    REDRAWS: tl.constexpr,
):
    """All steps of one sequence."""
    b = tl.program_id(0).to(tl.int64)
    p = tl.arange(0, size.PP)
    live = p < size.P
    length, power = b * 0 + T, 1.0
    if given.lengths is not None:
        length = tl.load(given.lengths + b)
    if given.scale is not None:
        power = tl.load(given.scale + b)
    h, c, z, w = _start(given, size, b)
    for t in range(length):
        tb = t * B + b
        h, c = advance(cell, size, h, c, z, tb)
        log_p = log_prior(cell, size, h, power)
        joint, alpha, evidence = _look_ahead(given, size, log_p, w, tb)
        first = tl.full((), 0, tl.int32)  # ancestor of the reference's step
        if REDRAWS:
            if (t >= first_redraw) & ((t - first_redraw) % every == 0):
                near = log_prior_at(size, log_p, tl.load(given.reference + tb))
                u = given.u_redraws + tb * 2
                first = redraw(
                    *(cell, size, given.reference, u, h, c, near, w, t, b, B, length, lag, power)
                )
        u = given.u_ancestors + tb * (1 if SYSTEMATIC else size.P)
        a = ancestors_of(alpha, first, u, size.P, size.PP, SYSTEMATIC, given.reference is not None)
        # Rows are gathered by a product with ones and zeros, in full precision: exactly.
        pick = (a[:, None] == p[None, :]).to(tl.float32)
        h = tl.dot(pick, h, input_precision="ieee")
        c = tl.dot(pick, c, input_precision="ieee")
        joint = tl.dot(pick, joint, input_precision="ieee")
        z = _draw(given, size, joint, tb)
        if given.twist is not None:
            log_w = -tl.load(given.twist + tb * size.K + z).to(tl.float64)
            w, log_mean = normalise(log_w, live, size.P)
            evidence += log_mean
        tl.store(out.chosen_by + tb * size.P + p, alpha, mask=live)
        _keep(out, size, z, a, evidence, tb)
    _end(out, size, h, c, w, b, length, T, B)


@triton.jit
def _start(given, size, b):
    """States, z_{t-1} and weights, of mean 1, before the first step."""
    p, j = tl.arange(0, size.PP), tl.arange(0, size.HP)
    live = p < size.P
    h = tl.zeros((size.PP, size.HP), tl.float32)
    c = tl.zeros((size.PP, size.HP), tl.float32)
    z = tl.full((size.PP,), size.K, tl.int64)  # the start's row of the table
    w = tl.where(live, 1.0, 0.0).to(tl.float64)
    if given.z_start is not None:
        place = (b * size.P + p)[:, None] * size.H + j[None, :]
        mask = live[:, None] & (j < size.H)[None, :]
        h = tl.load(given.h_start + place, mask=mask, other=0.0)
        c = tl.load(given.c_start + place, mask=mask, other=0.0)
        z = tl.load(given.z_start + b * size.P + p, mask=live, other=0)
    if given.w_start is not None:
        w = tl.load(given.w_start + b * size.P + p, mask=live, other=0.0)
    return h, c, z, w


@triton.jit
def _look_ahead(given, size, log_p, w, tb):
    """J(k) = p(z_t = k | z_{1:t-1}) p(x_t | z_t = k) over e^shift, α w_{t-1}, log of their mean."""
    k = tl.arange(0, size.KP)
    live = (tl.arange(0, size.PP) < size.P)[:, None]
    log_e = tl.load(given.emission + tb * size.K + k, mask=k < size.K, other=float("-inf"))
    log_joint = tl.where(live, log_p + log_e[None, :], float("-inf"))
    # Finite where all weights are zero, so that these come out as log 0 and not as NaN.
    shift = tl.maximum(tl.max(tl.max(log_joint, 1), 0), LOWEST)
    joint = tl.exp(log_joint - shift)
    alpha = tl.sum(joint, 1).to(tl.float64) * w
    return joint, alpha, tl.log(tl.sum(alpha, 0) / size.P) + shift


@triton.jit
def _draw(given, size, joint, tb):
    """z_t from the joint of each slot's ancestor; slot 0 holds the reference."""
    p = tl.arange(0, size.PP)
    u = tl.load(given.u_z + tb * size.P + p, mask=p < size.P, other=0.0)
    z = tl.minimum(draw_state(joint, u, size.KP), size.K - 1).to(tl.int64)
    if given.reference is not None:
        z = tl.where(p == 0, tl.load(given.reference + tb), z)
    return z


@triton.jit
def _keep(out, size, z, a, evidence, tb):
    p = tl.arange(0, size.PP)
    live = p < size.P
    tl.store(out.log_likelihood + tb, evidence)
    tl.store(out.z + tb * size.P + p, z, mask=live)
    tl.store(out.ancestors + tb * size.P + p, a.to(tl.int64), mask=live)


@triton.jit
def _end(out, size, h, c, w, b, length, T, B):
    """What the caller keeps of a sequence, and its frozen steps."""
    p, j = tl.arange(0, size.PP), tl.arange(0, size.HP)
    live = p < size.P
    place = (b * size.P + p)[:, None] * size.H + j[None, :]
    mask = live[:, None] & (j < size.H)[None, :]
    tl.store(out.h + place, h, mask=mask)
    tl.store(out.c + place, c, mask=mask)
    if out.weights is not None:
        tl.store(out.weights + b * size.P + p, w, mask=live)
    for t in range(length, T):
        tb = t * B + b
        _keep(out, size, tl.zeros((size.PP,), tl.int64), p, 0.0, tb)
        one = tl.full((size.PP,), 1.0, tl.float64)
        tl.store(out.chosen_by + tb * size.P + p, one, mask=live)


def fits(P: int, K: int, H: int) -> bool:
    """Whether a sweep of such sizes is one of Triton's."""
    product = places(P) * places(H) * max(places(H), places(K))
    return P <= MOST_PARTICLES and K <= MOST_STATES and product <= MOST_PRODUCT


def sweep_states(
    cell: CellWeights,
    emission: Tensor,
    twist: Tensor | None,
    u_z: Tensor,
    settings: SweepSettings,
) -> Swept | None:
    """Run it, as :func:`~pyro_ssl.kernels.states.sweep_states` does on the CPU.

    :returns: ``None``, and nothing has run, where the GPU has too little memory on the chip.
    """
    (T, B, P), K, H = u_z.shape, emission.shape[-1], cell.recurrent.shape[-1]
    exogenous = None
    if settings.inputs is not None:
        exogenous = torch.nn.functional.linear(settings.inputs, cell.exogenous)
    arrays = CellArrays(
        *(cell.table, exogenous, cell.recurrent, cell.to_m, cell.bias_h, cell.head, cell.head_bias)
    )
    read = {**settings._asdict(), "emission": emission, "twist": twist, "u_z": u_z}
    redraw_at, found = settings.redraw_at, _empty(cell, u_z, H, twist is not None)
    arguments: dict[str, Any] = {
        "cell": arrays,
        "given": Given(**{name: _contiguous(read[name]) for name in Given._fields}),
        "out": found,
        "size": _sizes(P, K, H, cell),
        **{"T": T, "B": B, "lag": min(settings.lag, T)},
        "first_redraw": redraw_at.start if redraw_at else 0,
        "every": redraw_at.step if redraw_at else 1,
        **{"SYSTEMATIC": settings.systematic, "REDRAWS": bool(redraw_at)},
    }
    least = places(P) == LEAST and cell.to_m is None and not redraw_at
    warps = WARPS if least else MORE_WARPS
    # The loops of ancestor sampling keep weights on the chip already.
    for stages in dict.fromkeys((1,) if redraw_at else (STAGES, 1)):
        try:
            launch(_sweep, B, u_z, arguments, num_warps=warps, num_stages=stages)
            return found
        except OutOfResources:
            continue
    return None


def _sizes(P: int, K: int, H: int, cell: CellWeights) -> Sizes:
    G = cell.table.shape[-1]
    values = (P, K, H, G, places(P), places(K), places(H), cell.kind, PRECISION)
    return Sizes(*map(tl.constexpr, values))


def _empty(cell: CellWeights, u_z: Tensor, H: int, weighted: bool) -> Swept:
    """Where a sweep puts what it finds."""
    T, B, P = u_z.shape
    like: dict[str, Any] = {"device": u_z.device}
    whole, double = like | {"dtype": torch.long}, like | {"dtype": torch.float64}
    return Swept(
        z=torch.empty(T, B, P, **whole),
        ancestors=torch.empty(T, B, P, **whole),
        log_likelihood=torch.empty(T, B, **double),
        chosen_by=torch.empty(T, B, P, **double),
        weights=torch.empty(B, P, **double) if weighted else None,
        h=cell.table.new_empty(B * P, H),
        c=cell.table.new_empty(B * P, H),
    )


def _contiguous(value: Tensor | None) -> Any:
    return None if value is None else value.contiguous()
