"""Planted block structures are found, exactly."""

import pytest
import torch
from torch import nn

from pyro_ssl import LSTMTransition
from pyro_ssl.belief import GateRNN, dependency_graph
from pyro_ssl.cells import LSTMCell, MultiplicativeLSTMCell
from tests.test_device import NoBareFactory


def planted(sizes, low=0.3, noise=0.0):
    """A matrix with blocks under a random renaming of the units, and the blocks."""
    H = sum(sizes)
    label = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    label = label[torch.randperm(H)]
    within = label[:, None] == label
    size = low + (1 - low) * torch.rand(H, H)
    matrix = torch.where(within, size, noise * torch.rand(H, H)) * (
        torch.randint(2, (H, H)) * 2 - 1
    )
    blocks = sorted([(label == b).nonzero().flatten().tolist() for b in range(len(sizes))])
    return matrix, within, blocks


@torch.no_grad()
def lstm_of(matrix):
    lstm = nn.LSTM(2, len(matrix))
    lstm.weight_hh_l0.copy_(matrix.repeat(4, 1))
    return lstm


@pytest.mark.parametrize("sizes", [(1,), (7,), (3, 4, 2), (1,) * 6, (8, 1, 8, 3)])
@pytest.mark.parametrize(("noise", "threshold"), [(0.0, 0.0), (0.02, 0.1)])
def test_planted_blocks_are_found(sizes, noise, threshold):
    for _ in range(5):
        matrix, within, blocks = planted(sizes, noise=noise)
        for gate in (None, "input", "forget", "output", "candidate"):
            graph = dependency_graph(lstm_of(matrix), gate, threshold=threshold)
            assert torch.equal(graph.adjacency, within)
            assert graph.blocks() == blocks
            assert torch.equal(graph.strength, matrix.abs())


def test_every_kind_of_source():
    matrix, within, blocks = planted((3, 2))
    lstm = lstm_of(matrix)
    cell, gate, transition = LSTMCell(2, 5), GateRNN(2, 5), LSTMTransition(3, 5)
    twin = nn.LSTMCell(2, 5)
    with torch.no_grad():
        for weight in (cell.lstm.weight_hh_l0, transition.cell.lstm.weight_hh_l0, twin.weight_hh):
            weight.copy_(lstm.weight_hh_l0)
        gate.weight_hh.copy_(matrix)
    for source in (lstm, cell, gate, transition, twin):
        graph = dependency_graph(source)
        assert torch.equal(graph.adjacency, within) and graph.blocks() == blocks


def test_multiplicative_cell():
    """W_hm diag(m) W_mh has a block's zeros at every input, if both matrices have them."""
    matrix, within, blocks = planted((3, 4))
    cell = MultiplicativeLSTMCell(3, 7)
    with torch.no_grad():
        cell.weight_mh.copy_(torch.rand(7, 7) * within)
        cell.weight_hm.copy_((torch.rand(28, 7) + 0.1) * within.repeat(4, 1))
    assert torch.equal(dependency_graph(cell, threshold=0.0).adjacency, within)
    assert dependency_graph(cell).blocks() == blocks
    unread = MultiplicativeLSTMCell(3, 7)  # where no input reaches m, h is not read
    with torch.no_grad():
        unread.weight_ih[:7] = 0.0
    assert not dependency_graph(unread, threshold=0.0).adjacency.any()


def test_direction_and_gates():
    weight = torch.zeros(4, 3, 3)  # i, f, g, o
    weight[1, 2, 0] = 1.0  # the forget gate of unit 2 reads unit 0
    weight[3, 1, 1] = 0.5
    lstm = nn.LSTM(1, 3)
    with torch.no_grad():
        lstm.weight_hh_l0.copy_(weight.flatten(0, 1))
    forget, both = dependency_graph(lstm, "forget"), dependency_graph(lstm)
    assert forget.adjacency.nonzero().tolist() == [[2, 0]]
    assert both.adjacency.nonzero().tolist() == [[1, 1], [2, 0]]
    assert forget.blocks() == both.blocks() == [[0, 2], [1]]
    assert both.order.tolist() == [0, 2, 1]
    assert not dependency_graph(lstm, "input").adjacency.any()
    with torch.no_grad():  # the other way round
        lstm.weight_hh_l0.copy_(weight.mT.flatten(0, 1))
    assert dependency_graph(lstm, "forget").blocks() == [[0, 2], [1]]


def test_a_chain_of_many_units_is_one_component():
    gate = GateRNN(1, 65)
    with torch.no_grad():
        gate.weight_hh.copy_(torch.diag(torch.ones(64), -1))
    assert dependency_graph(gate).components.eq(0).all()
    with torch.no_grad():
        gate.weight_hh[40, 39] = 0.0
    assert [len(block) for block in dependency_graph(gate).blocks()] == [40, 25]


def test_threshold():
    gate = GateRNN(1, 2)
    with torch.no_grad():
        gate.weight_hh.copy_(torch.tensor([[4.0, -1.0], [0.3, 0.0]]))
    edges = [
        int(dependency_graph(gate, threshold=share).adjacency.sum()) for share in (0, 0.1, 0.5)
    ]
    assert edges == [3, 2, 1]
    absolute = dependency_graph(gate, threshold=0.5, relative=False)
    assert int(absolute.adjacency.sum()) == 2 and float(absolute.threshold) == 0.5


def test_dtype_and_device_follow(device):
    for source in (nn.LSTM(2, 3), MultiplicativeLSTMCell(2, 3), LSTMTransition(2, 3)):
        with NoBareFactory():
            graph = dependency_graph(source.float().to(device))
        assert graph.strength.dtype == graph.threshold.dtype == torch.float32
        assert {value.device.type for value in graph} == {device.type}


def test_layers_and_errors():
    lstm = nn.LSTM(2, 3, 2)
    with torch.no_grad():
        lstm.weight_hh_l1.zero_()
    assert dependency_graph(lstm).adjacency.any()
    assert not dependency_graph(lstm, layer=1).adjacency.any()
    with pytest.raises(ValueError, match=r"no gate 'reset', expected one of \['input'"):
        dependency_graph(lstm, "reset")
    with pytest.raises(ValueError, match="threshold is -1, expected 0 or more"):
        dependency_graph(lstm, threshold=-1)
