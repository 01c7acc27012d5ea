"""LanguageModel on long texts: windows with a carried state are one long text, cut nowhere.

Also the options of its cells, and of those of TopicalSSL.
"""

import math

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pyro_ssl import LSTMTransition
from pyro_ssl.belief import log_predictive, visited_states
from pyro_ssl.models import LanguageModel, TopicalSSL

V, T, B = 5, 11, 4
every_layer = pytest.mark.parametrize("layer", ["lstm", "mlstm"])


def small(layer="lstm", **settings):
    settings = {"dropout": 0.0, **settings}
    return LanguageModel(V, embedding_size=3, hidden_size=4, cell=layer, **settings)


@pytest.fixture
def words():
    return torch.randint(V, (T, B))


def gradients_of(model, words, lengths=None, **options):
    """The loss of an epoch of steps of length 0, and the gradient of each step."""
    seen = []

    def keep(optim, args, kwargs):
        grads = [p.grad for p in optim.param_groups[0]["params"]]
        seen.append(torch.cat([g.flatten() for g in grads]).clone())

    hook = register_optimizer_step_pre_hook(keep)
    try:
        options = {"num_epochs": 1, "learning_rate": 0.0, "clip": math.inf, **options}
        (record,) = model.fit(words, lengths, disable_progbar=True, **options)
    finally:
        hook.remove()
    return record.loss, seen


@every_layer
@pytest.mark.parametrize("window", [1, 3, T, T + 5])
@pytest.mark.parametrize("lengths", [None, [T, 7, 0, 3]])
def test_the_loss_of_windows_is_that_of_one_long_forward(words, layer, window, lengths):
    """No step moves the parameters: what an epoch adds up is the likelihood of whole texts."""
    model = small(layer)
    lengths = None if lengths is None else torch.tensor(lengths)
    loss, steps = gradients_of(model, words, lengths, window=window)
    assert len(steps) == -(-T // window)
    assert loss == pytest.approx(math.log(model.perplexity(words, lengths)), rel=1e-12)


@every_layer
def test_a_window_sees_the_gradient_of_its_words_from_a_state_that_is_given(words, layer):
    """The second window's gradient is that of log p of its words, its first state being fixed."""
    model = small(layer)
    _, steps = gradients_of(model, words, window=6)
    inputs = torch.cat([torch.full((1, B), V), words[:-1]])
    with torch.no_grad():
        _, state = model(inputs[:6])
    logits, _ = model(inputs[6:], state)
    model.zero_grad()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), words[6:].flatten()).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(steps[1], expected, rtol=0, atol=1e-12)


@every_layer
def test_one_window_of_all_steps_is_the_fit_without_windows(words, layer):
    """Bit by bit: the same minibatches, the same steps."""
    fits = []
    for window in (None, T):
        torch.manual_seed(3)
        model = small(layer, dropout=0.3)
        model.fit(words, num_epochs=3, batch_size=3, window=window, disable_progbar=True)
        fits.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*fits)


def test_learns_what_lies_before_the_window():
    """0 0 0 1 1 1 0 0 0 ...: within a window of 1 nothing tells the place in the cycle."""
    text = torch.tensor([0, 0, 0, 1, 1, 1]).repeat(60)[:, None]
    torch.manual_seed(0)
    model = LanguageModel(2, embedding_size=4, hidden_size=16, dropout=0.0)
    model.fit(text, num_epochs=4, window=10, learning_rate=0.02, disable_progbar=True)
    assert model.perplexity(text, start=6) < 1.05  # of the last symbol alone: at least 1.9


def test_a_stream_that_is_stopped_goes_on_as_if_it_never_was(tmp_path, words):
    def fit(num_epochs, **where):
        torch.manual_seed(1)
        model = small("mlstm", dropout=0.2, variational_dropout=0.3)
        model.fit(words, num_epochs=num_epochs, window=4, disable_progbar=True, **where)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    expected = fit(4)
    fit(2, checkpoint=tmp_path)
    assert torch.equal(fit(4, checkpoint=tmp_path, resume=True), expected)


@pytest.mark.parametrize("window", [0, -1, 1.5, "all"])
def test_wrong_window(words, window):
    with pytest.raises(ValueError, match="window is .*, expected a whole number of 1 or more"):
        small().fit(words, window=window)


# ------------------------------------------------------------------------------------- options

OPTIONS = {
    "lstm": {"forget_bias": 2.0},
    "mlstm": {
        **{"weight_norm": True, "variational_dropout": 0.5, "forget_bias": 2.0},
        "squash": "output",
    },
}


@every_layer
def test_options_reach_the_cell(layer):
    model, ssl = small(layer, **OPTIONS[layer]), TopicalSSL(2, V, cell=layer, **OPTIONS[layer])
    if layer == "lstm":
        for lstm in (model.recurrent, ssl.transition.cell.lstm):
            start = (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach().view(4, -1)[1]
            assert torch.equal(start, torch.full_like(start, 2.0))
    else:
        for cell in (model.recurrent, ssl.transition.cell):
            assert {name: getattr(cell, name) for name in OPTIONS[layer]} == OPTIONS[layer]
            assert (cell.bias.detach().view(4, -1)[2] == 2.0).all()
    for made in (model, ssl):
        assert made.config.items() >= OPTIONS[layer].items()


@every_layer
def test_options_are_saved(tmp_path, words, layer):
    model = small(layer, **OPTIONS[layer])
    model.fit(words, num_epochs=1, disable_progbar=True)
    model.save(tmp_path / "model")
    loaded = LanguageModel.load(tmp_path / "model")
    assert loaded.config == model.config
    assert torch.equal(loaded.log_likelihood(words), model.log_likelihood(words))
    ssl = TopicalSSL(2, V, hidden_size=3, cell=layer, **OPTIONS[layer])
    ssl.fit(words, num_epochs=1, markov_steps=0, disable_progbar=True)
    ssl.save(tmp_path / "ssl")
    assert TopicalSSL.load(tmp_path / "ssl").config == ssl.config


def test_without_options_an_lstm_starts_as_it_did():
    torch.manual_seed(0)
    plain = LSTMTransition(3, hidden_size=4)
    torch.manual_seed(0)
    biased = LSTMTransition(3, hidden_size=4, forget_bias=1.0)
    different = [
        name
        for name, value in plain.state_dict().items()
        if not torch.equal(value, biased.state_dict()[name])
    ]
    assert different == ["cell.lstm.bias_ih_l0", "cell.lstm.bias_hh_l0"]


def test_variational_dropout_is_on_while_learning_alone(words):
    model = small("mlstm", variational_dropout=0.5).train()
    assert not torch.equal(model(words)[0], model(words)[0])
    for use in (
        lambda: model.log_likelihood(words),
        lambda: model.hidden(words)[0],
        lambda: visited_states(model, words),
        lambda: log_predictive(model, words),
    ):
        assert torch.equal(use(), use())
    assert model.training and model.recurrent.training
    losses = [gradients_of(model, words)[0] for _ in range(2)]
    assert losses[0] != losses[1]
    assert not model.recurrent.training  # as a fit leaves it
    assert torch.equal(model(words)[0], model(words)[0])


WRONG = {
    "other cell": ({"weight_norm": True}, ValueError, 'cell="lstm" has no weight_norm'),
    "unknown": ({"speed": 1}, TypeError, "unexpected keyword argument 'speed'; expected"),
    "word": ({"cell": "mlstm", "weight_norm": "yes"}, ValueError, "weight_norm is 'yes'"),
    "dropout 1": ({"cell": "mlstm", "variational_dropout": 1.0}, ValueError, "from 0 to below 1"),
    "infinite": ({"forget_bias": math.inf}, ValueError, "forget_bias is inf, expected a finite"),
    "squash": ({"cell": "mlstm", "squash": "tanh"}, ValueError, "squash is 'tanh', expected"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("make", [LanguageModel, lambda V, **o: TopicalSSL(2, V, **o)])
def test_wrong_options(make, case):
    options, kind, message = case
    with pytest.raises(kind, match=message):
        make(V, **options)
