"""What a sweep asks of its arguments, once per sweep and before anything is drawn."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..arguments import check_kind, check_lengths, check_range, check_tensor, may_read, whole
from ..transitions import DiscreteTransition, Transition
from .emissions import Emission
from .resampling import RESAMPLING

__all__ = ["check_roll_out", "check_seed", "check_sweep"]


def check_sweep(
    transition: Any,
    emission: Any,
    num_particles: Any,
    reference: Any,
    lengths: Any,
    inputs: Any,
    scale: Any,
    **settings: Any,
) -> None:
    """Check the arguments of :func:`~pyro_ssl.smc.conditional_smc`.

    :raises TypeError: if one is of another class.
    :raises ValueError: if shapes, dtypes, devices or values do not fit.
    """
    where = "conditional_smc"
    check_kind(where, "transition", transition, Transition, "LSTMTransition(K, hidden_size=8)")
    check_kind(where, "emission", emission, Emission, "TableEmission(log_emission)")
    emission.check(transition)
    whole(where, "num_particles", num_particles, 1)
    whole(where, "ancestor_sampling", settings["ancestor_sampling"], 0)
    whole(where, "proposal_lag", settings["proposal_lag"], 1)
    if settings["resampling"] not in RESAMPLING:
        raise ValueError(
            f'{where}: resampling is "{settings["resampling"]}", expected one of '
            f'{sorted(RESAMPLING)}; write resampling="systematic".'
        )
    (T, B), like = emission.shape, transition.like
    check_lengths(where, lengths, T, B, like.device)
    transition._check_inputs(where, inputs, (T, B))
    check_seed(where, settings["seed"])
    if settings["sequences"] is not None:
        write = "torch.arange(B), which sequence each is"
        check_tensor(
            where, "sequences", settings["sequences"], (B,), like=like, integer=True, write=write
        )
    if scale is not None:
        check_tensor(where, "transition_scale", scale, (B,), like=like, write="one for each of B")
    if reference is not None:
        event = tuple(transition.event_shape)
        write = "z.T, or z.transpose(0, 1), for paths (B, T)"
        shape = (T, B, *event)
        check_tensor(
            where, "reference", reference, shape, like=like, integer=not event, write=write
        )
        if isinstance(transition, DiscreteTransition):
            check_range(where, "reference", reference, transition.num_states, "sweep.path")


def check_seed(where: str, seed: Any) -> None:
    """Check the seed of a sweep's random numbers; ``None`` passes.

    :raises ValueError: if it is no whole number from 0 to 2⁶³ - 1.
    """
    if seed is not None and whole(where, "seed", seed, 0) >= 2**63:
        raise ValueError(f"{where}: seed is {seed}, expected less than 2**63; write seed=0.")


def check_roll_out(transition: Any, sweep: Any, num_steps: Any, inputs: Tensor | None) -> None:
    """Check the arguments of :func:`~pyro_ssl.smc.roll_out`.

    :raises TypeError: if one is of another class.
    :raises ValueError: if particles have weights, or sizes do not fit.
    """
    where = "roll_out"
    check_kind(where, "transition", transition, Transition, "the transition of the sweep")
    if not isinstance(getattr(sweep, "ancestors", None), Tensor):
        raise TypeError(
            f"{where}: sweep is a {type(sweep).__name__}, expected a Sweep; write "
            "sweep=conditional_smc(transition, emission, num_particles)."
        )
    whole(where, "num_steps", num_steps, 1)
    w = sweep.weights  # a twist leaves some, all 1 at the end
    if w is not None and may_read(w) and bool(((w - 1.0).abs() > 1e-6).any()):
        raise ValueError(
            f"{where}: the particles of the sweep have weights, expected equal ones; write "
            "TableEmission or QuadraticEmission, whose proposals are exact."
        )
    start, B, _ = sweep.ancestors.shape
    if tuple(sweep.z.shape[3:]) != tuple(transition.event_shape):
        raise ValueError(
            f"{where}: the sweep's z has shape {tuple(sweep.z.shape)}, expected (T, B, P) and "
            f"{tuple(transition.event_shape)}; write the transition that the sweep was made with."
        )
    transition._check_inputs(where, inputs, (start + num_steps, B))
