"""The expansion of an emission: its concave part."""

import pytest
import torch

from pyro_ssl.smc.expanded import _concave_part


@pytest.mark.parametrize("D", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["concave", "flat", "mixed"])
def test_concave_part(D, kind):
    torch.manual_seed(D)
    root = torch.randn(20, D, D)
    precision = root @ root.mT
    if kind == "flat":
        precision = precision * 0.0
    if kind == "mixed":
        precision[::2] -= 2.0 * precision[::2].diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    values, vectors = torch.linalg.eigh(precision)
    expected = (vectors * values.clamp(min=0.0).unsqueeze(-2)) @ vectors.mT
    torch.testing.assert_close(_concave_part(precision), expected, rtol=1e-9, atol=1e-9)
