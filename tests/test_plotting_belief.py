"""Pictures of what a network's units and its latents depend on: right, and legible."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle
from torch import nn

from pyro_ssl import MarkovTransition
from pyro_ssl.belief import GateRNN, MemoryHorizon, dependency_graph, memory_horizon
from pyro_ssl.plotting import plot_dependency_graph, plot_memory_horizon


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def gate_with_blocks():
    """Units 0 and 2 are one block, 1 and 3 another, but for weak weights; 4 is alone."""
    gate = GateRNN(1, 5)
    label = torch.tensor([0, 1, 0, 1, 2])
    with torch.no_grad():
        gate.weight_hh.copy_(torch.where(label[:, None] == label, 1.0, 0.05))
        gate.weight_hh[3, 1] = 0.5
    return gate


def test_dependency_graph_shows_blocks():
    ax = plot_dependency_graph(dependency_graph(gate_with_blocks()))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "2", "1", "3", "4"]
    assert ax.get_title() == "5 units in 3 blocks"
    shown = torch.tensor(ax.images[0].get_array().data)
    assert shown[3, 2] == 0.5 and shown[2, 3] == 1.0  # a row reads a column
    assert int((shown > 0).sum()) == 4 + 4 + 1
    frames = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert [(frame.get_x(), frame.get_width()) for frame in frames] == [(-0.5, 2), (1.5, 2)]
    assert len(ax.lines[0].get_xdata()) == 25 - 9  # a cross for each weight that is too small
    (mark,) = ax.images[0].colorbar.ax.lines
    assert mark.get_ydata()[0] == pytest.approx(0.1)


def test_dependency_graph_of_many_units_and_of_none():
    big = plot_dependency_graph(dependency_graph(nn.LSTM(2, 40)))
    assert not big.get_xticklabels() and not big.lines
    gate = GateRNN(1, 1)
    with torch.no_grad():
        gate.weight_hh.zero_()
    assert plot_dependency_graph(dependency_graph(gate)).get_title() == "1 unit in 1 block"


def curve(values, threshold=0.01):
    tv = torch.tensor(values)
    return MemoryHorizon(torch.arange(1, len(tv) + 1), tv, 0.1 * tv, threshold)


def test_memory_horizon_names_curves_and_rings_horizons():
    curves = {"chain": curve([0.5, 0.0, 0.0]), "long": curve([0.5, 0.2, 0.1])}
    ax = plot_memory_horizon(curves)
    assert {text.get_text() for text in ax.texts} == {"chain, horizon 1", "long, horizon ≥ 3"}
    rings = [line for line in ax.lines if line.get_fillstyle() == "none"]
    assert [(ring.get_xdata()[0], ring.get_ydata()[0]) for ring in rings] == [(1, 0.5), (3, 0.1)]
    drawn = [list(line.get_ydata()) for line in ax.lines if len(line.get_xdata()) == 3]
    assert drawn == [
        [0.5, 1e-4, 1e-4],
        [0.5, 0.2, 0.1],
    ]  # 0 is at the axis
    assert ax.get_yticklabels()[0].get_text() == "≤ 0.0001"


def test_memory_horizon_of_one_and_in_given_axes():
    _, ax = plt.subplots()
    assert plot_memory_horizon(memory_horizon(MarkovTransition(3), max_lag=4), ax=ax) is ax
    assert [text.get_text() for text in ax.texts] == ["horizon 0"]


def test_labels_do_not_overlap():
    names = ("HMM", "autoregressive HMM", "input-output HMM", "LSTM", "mLSTM")
    ax = plot_memory_horizon({name: curve([0.5, 0.0]) for name in names})
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(boxes[i].overlaps(boxes[j]) for i in range(len(boxes)) for j in range(i))
