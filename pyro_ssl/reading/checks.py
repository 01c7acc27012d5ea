"""What a model has to keep for its samplers to be right: each check is one function."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.nn import Parameter

from ..errors import LatentSiteError, NonFiniteError, SMCFailed
from ..loop import Chain
from ..transitions import DiscreteTransition
from .program import ModelRun
from .site import name_of

__all__ = [
    "check_all_learn",
    "check_elsewhere",
    "check_placement",
    "check_reference",
    "check_transition_learns",
    "require_discrete",
    "require_no_latents",
    "require_one_chain",
]


def require_no_latents(run: ModelRun, reason: str) -> None:
    """Check that the path is all there is to draw.

    :param str reason: what the caller does, for the message.
    :raises LatentSiteError: on any other latent site.
    """
    for name, site in run.sites.items():
        if not site["is_observed"] and not isinstance(site["fn"], _Subsample):
            raise LatentSiteError(
                f'Site "{name}": latent, but {reason}; expected "{run.loop.name}" to be the only '
                f'latent site. Give it: pyro.condition(model, {{"{name}": value}}).'
            )


def require_discrete(run: ModelRun, who: str) -> None:
    """Check that z_t is one of K states.

    :raises TypeError: if it is a vector.
    """
    if not run.is_discrete:
        raise TypeError(
            f'Site "{run.loop.name}": its transition is a {type(run.transition).__name__}, but '
            f"{who} sums over K states; expected a DiscreteTransition. StochasticEM, ParticleGibbs "
            "and ParticleFilter take both kinds."
        )


def require_one_chain(run: ModelRun, who: str) -> None:
    """Check that the loop has one chain.

    :raises TypeError: if it has several.
    """
    if run.paths.several:
        raise TypeError(
            f'Site "{run.loop.name}": its loop is over a dict of chains, but {who} has one q, of '
            f'one site; expected one chain: write ssl_transition("{run.paths.names[0]}", '
            "transition, T). ParticleGibbs, StochasticEM, ParticleFilter and MarkovEM take several."
        )


def check_transition_learns(run: ModelRun) -> None:
    """Warn where the transition has parameters that no optimiser will see."""
    known = {site["value"].unconstrained() for site in run.params.values()}
    lost = [
        name
        for name, parameter in run.transition.named_parameters()
        if parameter.requires_grad and parameter not in known
    ]
    if lost:
        warnings.warn(
            f'Site "{run.loop.name}": the parameters {", ".join(lost)} of its transition are not '
            "in Pyro's store, so they stay as they are; expected all that require a gradient. "
            'Write pyro.module("transition", transition) in the model, under a name that no other '
            "module has, or transition.requires_grad_(False).",
            RuntimeWarning,
            stacklevel=4,
        )


def check_all_learn(run: ModelRun, objective: Tensor) -> None:
    """Warn where an objective depends on parameters that no optimiser will see."""
    known = {site["value"].unconstrained() for site in run.params.values()}
    known |= set(run.transition.parameters())  # of these :func:`check_transition_learns` tells
    seen, edge = set(), [objective.grad_fn]
    lost = []
    while edge:
        node = edge.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Parameter) and leaf not in known:
            lost.append(leaf)
        edge.extend(parent for parent, _ in node.next_functions)
    if lost:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in lost)
        warnings.warn(
            f'Site "{name_of(run.grid.sites)}": parameters of shape {shapes}, in the loop of '
            f'"{run.loop.name}" or before it, are not in Pyro\'s store, so they stay as they are; '
            'expected all that require a gradient. Write pyro.module("decoder", decoder) in the '
            "model, or decoder.requires_grad_(False).",
            RuntimeWarning,
            stacklevel=4,
        )


def check_placement(run: ModelRun, table: Tensor) -> None:
    """Check that the transition and the emission share device and dtype.

    :raises ValueError: if they do not, or are of a half precision; nothing has been drawn yet.
    """
    name, loop = name_of(run.grid.sites), run.loop
    if table.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f'Site "{name}": its log-density is {table.dtype}, expected float32 or float64: in '
            "half precision states of small probability are never drawn. Write model.float(), "
            "and data.float()."
        )
    if table.device != loop.device:
        raise ValueError(
            f'Site "{name}": its log-density is on {table.device}, but the transition of '
            f'"{loop.name}" is on {loop.device}; expected one device: write '
            f'transition.to("{table.device}"), or move the data.'
        )
    for value in (*loop.transition.parameters(), loop.transition.like):
        if value.dtype != table.dtype:
            raise ValueError(
                f'Site "{name}": its log-density is {table.dtype}, but the transition of '
                f'"{loop.name}" has {value.dtype} parameters; expected one dtype: write '
                f"transition.to({table.dtype})."
            )


def check_elsewhere(run: ModelRun) -> None:
    """Check what is observed outside the loop.

    :raises NonFiniteError: if its log-density is NaN or +inf.
    :raises SMCFailed: if it is impossible.
    """
    log_p = run.log_elsewhere(observed=True)
    if bool(log_p.isfinite()):
        return
    names = ", ".join(
        f'"{name}"'
        for name, site in run.sites.items()
        if site["is_observed"] and not isinstance(site["fn"], _Subsample)
    )
    error = SMCFailed if log_p == -torch.inf else NonFiniteError
    raise error(
        f'Site {names}, outside the loop of "{run.loop.name}": log-density {log_p.item()}, '
        "expected a finite number; check its parameters, and what is observed there."
    )


def check_reference(run: ModelRun, reference: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Check a user's path ``(B, T, ...)``, and lay it out as the sampler's ``(T, B, ...)``.

    :param reference: a dict by site where the loop has several chains.
    :raises ValueError: if a chain has none, or one of another shape or dtype, with numbers that are
        no states, or that is not what ``obs`` says.
    """
    names = run.paths.names
    if not isinstance(reference, Mapping) and not run.paths.several:
        reference = {names[0]: reference}
    if not isinstance(reference, Mapping) or set(reference) != set(names):
        found = sorted(reference) if isinstance(reference, Mapping) else type(reference).__name__
        raise ValueError(
            f'Site "{run.loop.name}": the reference is {found}, expected a dict of a path for each '
            f'chain, {sorted(names)}; write {{"{names[0]}": z, ...}}, as a sweep returns it.'
        )
    each = {chain.name: _path_of(run, chain, reference[chain.name]) for chain in run.loop.drawn}
    return run.flatten(each)


def _path_of(run: ModelRun, chain: Chain, path: Tensor) -> Tensor:
    """Check the path of one chain, ``(B, T, ...)``; int64 where it is discrete."""
    loop, event = run.loop, chain.transition.event_shape
    shape = (*loop.batch_shape, loop.num_steps, *event)
    if event:
        if tuple(path.shape) != shape or not bool(path.isfinite().all()):
            raise ValueError(
                f'Site "{chain.name}": the reference has shape {tuple(path.shape)}, expected '
                f"finite numbers {shape}: sequences first, then time, then the vector."
            )
        return path
    integer = not path.is_floating_point() and path.dtype != torch.bool
    if tuple(path.shape) != shape or not integer:
        raise ValueError(
            f'Site "{chain.name}": the reference has shape {tuple(path.shape)} and dtype '
            f"{path.dtype}, expected int64 {shape}, sequences first and time last."
        )
    assert isinstance(chain.transition, DiscreteTransition)
    K = chain.transition.num_states
    if path.numel() and (int(path.min()) < 0 or int(path.max()) >= K):
        raise ValueError(
            f'Site "{chain.name}": the reference holds states from {int(path.min())} to '
            f"{int(path.max())}, expected 0 to {K - 1}."
        )
    if chain.known is not None and chain.known_at is not None:
        known, seen = chain.known.movedim(0, -1), chain.known_at.movedim(0, -1)
        if bool((seen & (known != path)).any()):
            *b, t = (seen & (known != path)).nonzero()[0].tolist()
            raise ValueError(
                f'Site "{chain.name}": the reference is {int(path[(*b, t)])} at step {t} of '
                f"sequence {tuple(b)}, expected {int(known[(*b, t)])}, which obs says it is; write "
                "torch.where(obs_mask.T, obs.T, path)."
            )
    return path.long()
