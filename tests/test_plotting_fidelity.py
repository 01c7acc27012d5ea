"""Pictures of gate, fidelity and beliefs hold what they should, and no label hides another."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from pyro_ssl.belief import Fidelity, linear_gap
from pyro_ssl.plotting import plot_beliefs, plot_fidelity, plot_linear_gap

EMISSION = torch.tensor([[0.7, 0.3], [0.2, 0.8]])


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def _texts(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def _check_legible(ax):
    ax.figure.draw_without_rendering()
    legend = ax.get_legend()
    named = legend.get_texts() if legend else []
    texts = [t for t in [*ax.texts, ax.title, *named] if t.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert not any(boxes[i].overlaps(boxes[j]) for i in range(len(boxes)) for j in range(i))
    assert all(ax.figure.bbox.fully_contains(box.x0, box.y0) for box in boxes)
    assert all(ax.figure.bbox.fully_contains(box.x1, box.y1) for box in boxes)
    return texts, boxes


@pytest.mark.parametrize("stay", [(0.9, 0.9), (0.95, 0.9), (0.1, 0.3), (0.3, 0.99)])
def test_plot_linear_gap(stay):
    matrix = torch.tensor([[stay[0], 1 - stay[0]], [1 - stay[1], stay[1]]], dtype=torch.float64)
    gap = linear_gap(matrix, EMISSION.double(), y=torch.randint(2, (6, 3)))
    ax = plot_linear_gap(gap)
    assert f"gap {float(gap.gap.abs().max()):.2f}" in _texts(ax)
    assert ax.lines[0].get_ydata().tolist() == gap.exact.tolist()
    assert ax.lines[1].get_ydata().tolist() == gap.linear.tolist()
    assert f"{float(gap.path_kl.mean()):.2g} nats" in ax.get_title()
    texts, boxes = _check_legible(ax)
    for text, box in zip(texts, boxes, strict=True):  # no curve runs through a label
        if text is ax.title:
            continue
        for line in ax.lines[:2]:
            points = ax.transData.transform(line.get_xydata())
            assert not any(box.contains(x, y) for x, y in points), text.get_text()


def test_plot_linear_gap_without_sequences_in_given_axes():
    given = plt.figure().add_subplot()
    gap = linear_gap(torch.tensor([[0.9, 0.1], [0.2, 0.8]]).double(), EMISSION.double())
    assert plot_linear_gap(gap, ax=given) is given
    assert "nats" not in given.get_title()


def _found(num_states, kl):
    return Fidelity(num_states, kl, kl / 20, torch.zeros(1), 0.5, 4.0, 4.1)


def test_plot_fidelity():
    curves = {
        "counted": [_found(2, 0.2), _found(8, 0.05), _found(64, 0.0101)],
        "after EM": [_found(2, 0.1), _found(8, 0.02), _found(64, 0.01)],
    }
    ax = plot_fidelity(curves, {"true HMM": 0.0099})
    assert sorted(_texts(ax)) == ["after EM  0.01", "counted  0.01", "true HMM  0.0099"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["2", "8", "64"]
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ax.containers[0].lines[0].get_ydata().tolist() == [0.2, 0.05, 0.0101]
    _check_legible(ax)
    given = plt.figure().add_subplot()
    assert plot_fidelity({"counted": curves["counted"]}, ax=given) is given


def test_plot_beliefs():
    true, found = (torch.distributions.Dirichlet(torch.ones(3)).sample((20,)) for _ in range(2))
    states = true.argmax(-1)
    ax = plot_beliefs(true, found, states=states)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["state 0", "state 1", "state 2"]
    lines = [line for line in ax.lines if len(line.get_ydata()) == 20]
    assert torch.allclose(torch.tensor(lines[2].get_ydata()), 0.8 * found[:, 2])  # lowest band
    assert torch.allclose(torch.tensor(lines[0].get_ydata()), 2 + 0.8 * found[:, 0])
    assert len(ax.get_legend().get_texts()) == 3
    ax.figure.draw_without_rendering()
    box = ax.get_legend().get_window_extent()
    assert ax.figure.bbox.fully_contains(box.x0, box.y0)
    assert ax.figure.bbox.fully_contains(box.x1, box.y1)
    given = plt.figure().add_subplot()
    assert plot_beliefs(true, ax=given) is given
    assert len(given.get_legend().get_texts()) == 1
