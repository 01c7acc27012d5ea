"""The mask of steps within lengths, in both layouts; the step before each."""

import pytest
import torch

from pyro_ssl.steps import lagged, steps_within


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


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("T", [0, 1, 5])
def test_lagged_is_the_step_before_or_0(shape, T):
    x = torch.randn(T, *shape)
    x[torch.rand(x.shape) < 0.3] = float("nan")
    values, known = lagged(x)
    assert values.shape == known.shape == x.shape and values.dtype == x.dtype
    assert not values[:1].any() and not known[:1].any()
    assert torch.equal(known[1:], ~x[:-1].isnan())
    assert torch.equal(values[1:], x[:-1].nan_to_num())
    hidden = lagged(x.nan_to_num(7.0), ~x.isnan())
    assert torch.equal(hidden.values, values) and torch.equal(hidden.known, known)


def test_lagged_takes_integers_and_carries_gradients():
    assert lagged(torch.tensor([2, 3])).values.tolist() == [0, 2]
    x = torch.tensor([1.0, float("nan"), 3.0], requires_grad=True)
    lagged(x).values.sum().backward()
    assert x.grad.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("seen", [torch.ones(4, 2), torch.ones(4, dtype=torch.bool)])
def test_lagged_says_what_a_mask_is(seen):
    with pytest.raises(ValueError, match=r"lagged: seen is torch.*of x's shape.*write"):
        lagged(torch.zeros(4, 2), seen)
