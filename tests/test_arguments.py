"""Shapes broadcast as torch's do."""

import itertools

import pytest
import torch

from pyro_ssl.arguments import broadcast_shapes

SHAPES = [(), (1,), (3,), (0,), (1, 3), (2, 1), (2, 3), (4, 1, 1), torch.Size([4, 2, 3])]


@pytest.mark.parametrize("num", [1, 2, 3])
def test_shapes_broadcast_as_torchs_do(num):
    for shapes in itertools.product(SHAPES, repeat=num):
        try:
            expected = torch.broadcast_shapes(*shapes)
        except RuntimeError:
            with pytest.raises(RuntimeError, match="do not broadcast"):
                broadcast_shapes(*shapes)
        else:
            found = broadcast_shapes(*shapes)
            assert found == expected and isinstance(found, torch.Size)
