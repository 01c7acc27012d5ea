"""From a run of the user's model to the emission that a sweep is given."""

from __future__ import annotations

from pyro.poutine.util import is_validation_enabled

from ..errors import EmissionNotLocalError
from ..smc import Emission, QuadraticEmission, TableEmission
from .checks import check_elsewhere, check_placement
from .probe import check_emission_is_local
from .program import ModelRun
from .quadratic import find_quadratic, probe_points
from .sweep_in_loop import BodyEmission

__all__ = ["read_emission"]


def read_emission(run: ModelRun, *, verify: bool = False, expanded: bool = False) -> Emission:
    """Return a run's emission, checked.

    A table over the K states; over vectors a quadratic function where it is one, whatever the
    user's code, else the body itself.

    :param bool verify: also check that it is a function of z_t alone.
    :param bool expanded: over vectors take the body itself, whatever it is.
    """
    table = run.grid.table()
    check_placement(run, table)
    if is_validation_enabled():
        check_elsewhere(run)
    if verify:
        check_emission_is_local(run, table)
    if run.is_discrete:
        return TableEmission(table)
    found = None
    if not expanded:
        found = find_quadratic(table, probe_points(run.transition), run.emission_at)
    if found is None and run.grid.num_own < len(run.grid.sites):
        raise EmissionNotLocalError(
            f'Site "{run.grid.sites[-1].name}": in a later loop, it depends on the vectors of '
            f'"{run.loop.name}" in another way than a linear-Gaussian one, expected that where '
            "another loop reads vectors; observe it in the loop of these, given the other path: "
            "write that loop first."
        )
    return BodyEmission(run, table) if found is None else QuadraticEmission(*found)
