"""The loop over epochs, by itself: scripted losses and scores."""

import math

import pytest
import torch

from pyro_ssl.models import FitState, Model, fit_epochs


class Counter(Model):
    """Its only parameter counts the epochs."""

    def __init__(self):
        super().__init__()
        self.count = torch.nn.Parameter(torch.zeros(()))

    def step(self):
        assert self.training
        with torch.no_grad():
            self.count += 1
        return 10.0 - self.epochs, 0.5

    @property
    def epochs(self):
        return int(self.count.detach())

    def fit(self, scores=(), num_epochs=None, **options):
        def score(scores):
            assert not self.training
            return {"other": 0.0, "chosen": scores[self.epochs - 1]}

        options = {"disable_progbar": True, "monitor": "chosen", **options}
        options |= {"score": score, "valid": (scores,)} if scores else {}
        return fit_epochs(self, num_epochs or len(scores), self.step, **options)


def test_records():
    model = Counter()
    history = model.fit([3.0, 2.0])
    assert [(r.epoch, r.loss, r.change_rate, r.score) for r in history] == [
        (1, 9.0, 0.5, 3.0),
        (2, 8.0, 0.5, 2.0),
    ]
    assert history[0].metrics == {"other": 0.0, "chosen": 3.0}


@pytest.mark.parametrize(
    "scores, best",
    [
        ([3.0, 1.0, 2.0], 2),
        ([1.0, 1.0, 1.0], 1),  # the first of equals
        ([math.nan, 5.0, math.nan], 2),
        ([math.nan, math.nan], 2),  # none is better: the last
        ([math.inf, 4.0], 2),
    ],
)
def test_best_epoch(scores, best):
    model = Counter()
    history = model.fit(scores)
    assert len(history) == len(scores) and model.epochs == best


@pytest.mark.parametrize(
    "scores, patience, length",
    [
        ([3.0, 4.0, 5.0, 1.0], 2, 3),
        ([3.0, 4.0, 2.0, 5.0, 5.0, 1.0], 2, 5),
        ([math.nan, math.nan, math.nan, 1.0], 1, 4),  # patience begins with the first score
        ([3.0, 4.0, 5.0], None, 3),
    ],
)
def test_patience(scores, patience, length):
    assert len(Counter().fit(scores, patience=patience)) == length


def test_goes_on_from_a_state():
    """Two halves equal the whole, and the best epoch of the first half is not forgotten."""
    scores, state, model = [3.0, 1.0, 4.0, 2.0], FitState(), Counter()
    model.fit(scores, num_epochs=2, state=state)
    assert state.best_epoch == 2 and float(state.best["count"]) == 2.0
    history = model.fit(scores, num_epochs=4, state=state)
    assert [record.epoch for record in history] == [1, 2, 3, 4]
    assert history is state.history and model.epochs == 2.0
    assert len(model.fit(scores, num_epochs=4, state=state)) == 4  # nothing is left to do


def test_no_epochs():
    model = Counter()
    assert model.fit(num_epochs=-1) == [] and not model.training


def test_an_error_before_any_score_says_so():
    model = Counter()

    def callback(record):
        raise ValueError("of the caller")

    with pytest.raises(ValueError, match="of the caller") as caught:
        model.fit(num_epochs=2, callback=callback)
    assert len(model.history) == 1 and not model.training
    assert "after 1 whole epochs" in caught.value.__notes__[0]
    assert "the model is as the error left it" in caught.value.__notes__[0]


def test_progress_bar(capsys, monkeypatch):
    """Shown, but not where CI is set, unless it is asked for."""
    for ci, disable, shown in [("", None, True), ("1", None, False), ("1", False, True)]:
        monkeypatch.setenv("CI", ci)
        Counter().fit([2.0], disable_progbar=disable)
        out = capsys.readouterr().err
        assert ("Counter" in out) == shown
        assert ("chosen=2" in out) == shown
