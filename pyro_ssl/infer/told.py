"""What is told of chains: of those that run, and of those that were saved."""

from __future__ import annotations

from typing import Any

from .diagnostics import Diagnostics
from .twisting import Twisting

__all__ = ["table", "told"]

#: what is told of the kernels that draw other sites, by site
Inner = dict[str, dict[str, float]]


def told(diagnostics: Diagnostics, twisting: Twisting, inner: Inner) -> dict[str, Any]:
    """Return change rates, functionals, other sites, and the twist's trial; see
    :meth:`ParticleGibbsKernel.diagnostics`.
    """
    trial = twisting.trial
    sites = {name: row | inner.get(name, {}) for name, row in diagnostics.sites().items()}
    found = {**diagnostics.report(), "sites": sites, "twisted": twisting.surrogate is not None}
    return found | ({} if trial is None else trial._asdict())


def table(diagnostics: Diagnostics, twisting: Twisting, inner: Inner) -> str:
    """Return the same as a table."""
    return f"{diagnostics.format(inner)}\n{twisting.format()}"
