"""The compiled backward messages are those of torch."""

import pytest
import torch

from pyro_ssl import kernels
from pyro_ssl.smc import MarkovSurrogate, TableEmission

pytestmark = pytest.mark.skipif(not kernels.available(), reason=str(kernels.available()))


@pytest.mark.parametrize("K", [1, 3, 16, 50])
@pytest.mark.parametrize("T, B", [(1, 1), (2, 9), (30, 4), (7, 17)])
@pytest.mark.parametrize("ragged", [False, True])
def test_same_as_torch(K, T, B, ragged):
    torch.manual_seed(0)
    single = {"dtype": torch.float32}
    surrogate = MarkovSurrogate(torch.rand(K, K, **single).softmax(-1))
    table = 3.0 * torch.randn(T, B, K, **single)
    table[T // 2, 0] = -torch.inf  # explained by no state
    lengths = torch.randint(1, T + 1, (B,)) if ragged else None
    found = surrogate.twist(TableEmission(table), lengths).table
    with kernels.turned_off():
        expected = surrogate.twist(TableEmission(table), lengths).table
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    wide = TableEmission(table.double().permute(1, 0, 2).contiguous().permute(1, 0, 2))
    torch.testing.assert_close(
        surrogate.twist(wide, lengths).table, expected.double(), rtol=1e-4, atol=1e-4
    )


def test_lengths_of_another_dtype_are_left_to_torch():
    torch.manual_seed(0)
    table, lengths = torch.randn(9, 6, 4, dtype=torch.float32), torch.tensor([9, 1, 0, 4, 9, 2])
    surrogate = MarkovSurrogate(torch.rand(4, 4, dtype=torch.float32).softmax(-1))
    found = surrogate.twist(TableEmission(table), lengths.int()).table
    torch.testing.assert_close(found, surrogate.twist(TableEmission(table), lengths).table)
