"""The mask of steps within lengths, in both layouts."""

import pytest
import torch

from pyro_ssl.steps import steps_within


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("T", [0, 1, 5])
def test_is_true_at_steps_before_the_length(shape, T):
    lengths = torch.randint(T + 1, shape)
    time_last = steps_within(lengths, T, time_first=False)
    assert time_last.dtype == torch.bool and time_last.shape == (*shape, T)
    assert torch.equal(time_last.sum(-1), lengths)
    assert torch.equal(time_last, time_last.sort(-1, descending=True).values)  # no gaps
    time_first = steps_within(lengths, T)
    assert time_first.shape == (T, *shape)
    assert torch.equal(time_first.movedim(0, -1), time_last)


def test_follows_the_device_and_takes_any_integers():
    assert steps_within(torch.ones(2, device="meta"), 3).device.type == "meta"
    lengths = torch.tensor([0, 2], dtype=torch.int32)
    assert steps_within(lengths, 2).tolist() == [[False, True], [False, True]]
