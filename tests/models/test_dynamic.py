"""Dynamic evaluation: scored before adapting, by the published rule, and nothing stays changed."""

import copy
import itertools
import math

import pytest
import torch

from pyro_ssl.errors import NonFiniteError
from pyro_ssl.models import DynamicEvaluation, LanguageModel, dynamic

V, T, B = 4, 13, 3
every_layer = pytest.mark.parametrize("layer", ["lstm", "mlstm"])


def small(layer="lstm", **options):
    return LanguageModel(V, embedding_size=3, hidden_size=4, cell=layer, dropout=0.5, **options)


@pytest.fixture
def words():
    return torch.randint(V, (T, B))


def by_hand(model, words, window, rule):
    """Score windows with a twin that learns by ``rule(name, fitted, value, gradient)`` after."""
    twin = copy.deepcopy(model).eval()
    fitted = {name: value.detach().clone() for name, value in twin.named_parameters()}
    inputs = torch.cat([torch.full((1, B), V), words[:-1]])
    out, state = [], None
    for x, y in zip(inputs.split(window), words.split(window), strict=True):
        logits, state = twin(x, state)
        state = tuple(part.detach() for part in state)
        log_p = logits.log_softmax(-1).gather(-1, y.unsqueeze(-1)).squeeze(-1)
        out.append(log_p.detach())
        twin.zero_grad()
        (-log_p.mean()).backward()
        with torch.no_grad():
            for name, value in twin.named_parameters():
                value.copy_(rule(name, fitted[name], value, value.grad))
    return torch.cat(out)


@every_layer
@pytest.mark.parametrize("window", [1, 4, T + 1])
def test_without_a_step_it_is_the_likelihood(words, layer, window):
    model = small(layer)
    lengths = torch.tensor([T, 0, 6])
    still = DynamicEvaluation(window=window, learning_rate=0.0)
    found = model.log_likelihood(words, lengths, dynamic=still)
    torch.testing.assert_close(found, model.log_likelihood(words, lengths), rtol=0, atol=1e-12)


@every_layer
def test_descends_and_is_pulled_back(words, layer):
    model = small(layer)
    how = DynamicEvaluation(window=3, learning_rate=0.7, pull=0.2)
    expected = by_hand(model, words, 3, lambda n, old, p, g: p - 0.7 * g + 0.2 * (old - p))
    found = model.log_likelihood(words, dynamic=how)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert (found[:3] - model.log_likelihood(words)[:3]).abs().max() < 1e-12  # scored first
    assert (found[3:] - model.log_likelihood(words)[3:]).abs().max() > 1e-3
    assert model.perplexity(words, dynamic=how) == pytest.approx(math.exp(-expected.mean()))


def test_the_rule_of_the_paper(words):
    """Equations 7 to 9, with gradients' root mean squares on another text."""
    model = small("mlstm", weight_norm=True)
    rms = model.gradient_rms(torch.randint(V, (20, 2)), window=5)
    mean = torch.cat([r.flatten() for r in rms.values()]).mean()
    eta, pull, eps = 0.01, 0.3, 0.02

    def rule(name, fitted, value, gradient):
        back = torch.minimum(rms[name] / mean, torch.tensor(1 / pull))
        return value - eta * gradient / (rms[name] + eps) + pull * back * (fitted - value)

    how = DynamicEvaluation(window=3, learning_rate=eta, pull=pull, rms=rms, epsilon=eps)
    assert (torch.cat([r.flatten() for r in rms.values()]) / mean > 1 / pull).any()  # clipped
    found = model.log_likelihood(words, dynamic=how)
    torch.testing.assert_close(found, by_hand(model, words, 3, rule), rtol=0, atol=1e-12)


def test_the_root_mean_square_is_that_of_the_windows(words):
    model = small()
    squares = {}

    def keep(name, fitted, value, gradient):
        squares.setdefault(name, []).append(gradient.square())
        return value

    by_hand(model, words, 5, keep)
    for name, found in model.gradient_rms(words, window=5).items():
        torch.testing.assert_close(found, torch.stack(squares[name]).mean(0).sqrt())


def state_of(model):
    own = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return own, grads, [part.training for part in model.modules()], torch.get_rng_state()


def same(before, after):
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert all(a is b or torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    assert before[2] == after[2] and torch.equal(before[3], after[3])


@every_layer
def test_leaves_everything_as_it_was(words, layer, monkeypatch):
    options = {"variational_dropout": 0.5} if layer == "mlstm" else {}
    model = small(layer, **options).train()
    model(words)[0].sum().backward()
    before = state_of(model)
    how = DynamicEvaluation(window=3, learning_rate=0.5)
    model.log_likelihood(words, dynamic=how)
    model.gradient_rms(words)
    same(before, state_of(model))

    with pytest.raises(NonFiniteError, match="learning_rate=1e.200.* ran away"):
        model.log_likelihood(words, dynamic=DynamicEvaluation(window=3, learning_rate=1e200))
    same(before, state_of(model))

    windows = dynamic._windows

    def stopped(*args):
        yield from itertools.islice(windows(*args), 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(dynamic, "_windows", stopped)
    with pytest.raises(KeyboardInterrupt):
        model.log_likelihood(words, dynamic=how)
    same(before, state_of(model))


def test_learns_from_the_text_that_it_scores():
    """A text of one symbol, to a model that knows nothing."""
    text = torch.zeros(200, 1, dtype=torch.long)
    model = small()
    how = DynamicEvaluation(window=5, learning_rate=0.5, pull=0.0)
    found = model.log_likelihood(text, dynamic=how).squeeze(-1).exp()
    assert found[0] < 0.6 and found[-20:].min() > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_follows_the_dtype(words, dtype):
    model = small().to(dtype)
    rms = model.gradient_rms(words)
    assert {r.dtype for r in rms.values()} == {dtype}
    assert model.log_likelihood(words, dynamic=DynamicEvaluation(rms=rms)).dtype == torch.float64


def test_wrong_settings(words):
    for name, value in {"window": 0, "learning_rate": -1.0, "pull": 1.5, "epsilon": "x"}.items():
        with pytest.raises(ValueError, match=f"DynamicEvaluation: {name} is .*expected"):
            DynamicEvaluation(**{name: value})
    other = LanguageModel(V + 1, embedding_size=3, hidden_size=4)
    how = DynamicEvaluation(rms=other.gradient_rms(words))
    with pytest.raises(ValueError, match=r"write rms=model.gradient_rms\(words\)"):
        small().log_likelihood(words, dynamic=how)
    with pytest.raises(TypeError, match="dynamic is a float, expected a DynamicEvaluation"):
        small().perplexity(words, dynamic=0.1)
    with pytest.raises(ValueError, match="gradient_rms: found no word"):
        small().gradient_rms(words, torch.zeros(B))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        small().log_likelihood(words, dynamic=DynamicEvaluation())
