"""One seed gives the recorded draws, whatever has moved in the code."""

import json

import pytest
import torch

from tests.recorded.cases import CASES, DRAWS, draw


@pytest.mark.parametrize("name", CASES)
def test_same_draws(name):
    expected = torch.tensor(json.loads(DRAWS.read_text())[name])
    assert torch.allclose(torch.tensor(draw(name)), expected, rtol=1e-7, atol=1e-9)
