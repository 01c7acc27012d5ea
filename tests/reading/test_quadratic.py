"""Which functions of a vector are quadratic, whatever few steps say of the others."""

import pytest
import torch

from pyro_ssl.reading.quadratic import FEW, fit_quadratic, probe_points
from pyro_ssl.transitions import GaussianLSTMTransition

T, B, D = 10 * FEW, 2, 2


@pytest.mark.parametrize("row", [None, 0, 7, T * B - 1])
def test_one_step_that_is_not_quadratic_is_found_wherever_it_is(row):
    points = probe_points(GaussianLSTMTransition(D, 2))
    center = torch.randn(T, B, 1, D)
    table = -0.5 * (points - center).square().sum(-1)  # (T, B, S)
    if row is not None:
        table.view(T * B, -1)[row] -= points[:, 0].exp()
    found = fit_quadratic(table, points)
    assert (found is None) == (row is not None)
