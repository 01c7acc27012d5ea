"""A :class:`MeanFieldGuide` among the guides of other latent sites."""

from __future__ import annotations

from typing import Any

from pyro import poutine
from pyro.infer.autoguide import AutoCallable, AutoGuideList
from torch import Tensor

from ..errors import LatentSiteError
from .mean_field import MeanFieldGuide

__all__ = ["check_covered", "parts_of"]


def parts_of(
    guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[MeanFieldGuide, dict[str, Tensor], Any]:
    """Find the part of a guide that is over paths, and draw what the others are over.

    :param guide: a :class:`MeanFieldGuide`, or an ``AutoGuideList`` with one.
    :returns: that part; the draws by site, with their gradients; and log q of them, a scalar.
    :raises TypeError: on another guide.
    """
    if isinstance(guide, MeanFieldGuide):
        return guide, {}, 0.0
    parts = list(guide) if isinstance(guide, AutoGuideList) else []
    found = [part._guide for part in parts if isinstance(part, AutoCallable)]
    paths = [part for part in found if isinstance(part, MeanFieldGuide)]
    if len(paths) != 1:
        raise TypeError(
            f"MeanFieldELBO takes a MeanFieldGuide, found {type(guide).__name__}; write "
            "SVI(model, MeanFieldGuide(model), optim, loss=MeanFieldELBO()), or append one to an "
            "AutoGuideList."
        )
    (part,) = paths
    trace = poutine.trace(guide).get_trace(*args, **kwargs)
    log_q = trace.log_prob_sum(lambda name, site: name not in part.own)
    nodes = trace.nodes
    return part, {name: nodes[name]["value"] for name in part.others if name in nodes}, log_q


def check_covered(guide: MeanFieldGuide, others: dict[str, Tensor]) -> None:
    """Check that every latent site has a guide.

    :raises LatentSiteError: if one has none.
    """
    missing = sorted(set(guide.others) - others.keys())
    if missing:
        raise LatentSiteError(
            f'Site "{missing[0]}": latent, no table of counts, and no guide is over it, expected '
            "one for each; write guide = AutoGuideList(model), guide.append(MeanFieldGuide(model)) "
            f"and guide.append(AutoNormal(pyro.poutine.block(model, expose={missing})))."
        )
