"""LanguageModel: its likelihood is that of a hand-written loop, and it learns."""

import math

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pyro_ssl.errors import NonFiniteError
from pyro_ssl.models import LanguageModel, language_model
from tests.test_device import NoBareFactory

V, T, B = 5, 7, 6
every_layer = pytest.mark.parametrize("layer", ["lstm", "mlstm"])


@pytest.fixture
def words():
    return torch.randint(V, (T, B))


@pytest.fixture
def lengths():
    return torch.tensor([T, 3, 1, 0, 5, T])


def small(layer="lstm", **settings):
    model = LanguageModel(V, embedding_size=4, hidden_size=6, cell=layer, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # far from uniform
    return model


def by_hand(model, words):
    """log p(x_t | x_{1:t-1}) by the equations of the LSTM, symbol by symbol."""
    lstm = model.recurrent
    out = torch.zeros(words.shape)
    for b in range(words.shape[1]):
        h = c = torch.zeros(6)
        previous = V
        for t in range(len(words)):
            x = model.embedding.weight[previous]
            gates = lstm.weight_ih_l0 @ x + lstm.bias_ih_l0 + lstm.weight_hh_l0 @ h
            i, f, g, o = (gates + lstm.bias_hh_l0).chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            probs = (model.head.weight @ h + model.head.bias).exp()
            previous = int(words[t, b])
            out[t, b] = (probs[previous] / probs.sum()).log()
    return out


# ----------------------------------------------------------------------------- the likelihood


def test_log_likelihood_is_that_of_the_equations(words):
    model = small()
    with torch.no_grad():
        expected = by_hand(model, words)
    assert expected.std() > 0.3  # a uniform model would hide a mistake
    torch.testing.assert_close(model.log_likelihood(words), expected, rtol=0, atol=1e-12)


@every_layer
def test_log_likelihood_is_that_of_windows_read_in_turn(words, layer):
    """``forward`` with a carried state, from the start symbol, gives the same probabilities."""
    model = small(layer).eval()
    inputs = torch.cat([torch.full((1, B), V), words[:-1]])
    state, logits = None, []
    with torch.no_grad():
        for window in inputs.split(3):
            out, state = model(window, state)
            logits.append(out)
    log_p = torch.cat(logits).log_softmax(-1).gather(-1, words.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(model.log_likelihood(words), log_p, rtol=0, atol=1e-12)


@every_layer
def test_is_normalised(layer):
    """The probabilities of all V^3 texts of three words sum to 1."""
    texts = torch.cartesian_prod(*[torch.arange(V)] * 3).T
    total = small(layer).log_likelihood(texts).sum(0).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("hidden_cells, logits", [(1, 1), (2 * T, 3 * V), (10**6, 10**6)])
def test_chunks_change_nothing(words, lengths, monkeypatch, hidden_cells, logits):
    model = small()
    expected = model.log_likelihood(words, lengths)
    monkeypatch.setattr(language_model, "_HIDDEN_CELLS", hidden_cells)
    monkeypatch.setattr(language_model, "_LOGITS", logits)
    torch.testing.assert_close(model.log_likelihood(words, lengths), expected, rtol=0, atol=1e-12)


def test_the_whole_of_the_logits_never_exists(words, monkeypatch):
    model, sizes = small(), []
    model.head.register_forward_hook(lambda module, args, out: sizes.append(out.numel()))
    monkeypatch.setattr(language_model, "_LOGITS", 4 * V)
    model.log_likelihood(words)
    assert max(sizes) == 4 * V and sum(sizes) == T * B * V


@every_layer
def test_lengths(words, lengths, layer):
    """Each sequence is scored as if alone, and is 0 past its length."""
    model = small(layer)
    log_p = model.log_likelihood(words, lengths)
    for b, length in enumerate(lengths.tolist()):
        alone = model.log_likelihood(words[:length, b : b + 1])
        torch.testing.assert_close(log_p[:length, b : b + 1], alone, rtol=0, atol=1e-12)
        assert (log_p[length:, b] == 0).all()


@pytest.mark.parametrize("padding", [-1, 10**6])
def test_what_the_padding_holds_is_never_read(words, lengths, padding):
    past = torch.arange(T)[:, None] >= lengths
    padded = words.masked_fill(past, padding)
    model, other = small(dropout=0.0), small(dropout=0.0)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.log_likelihood(words, lengths), other.log_likelihood(padded, lengths))
    for net, data in ((model, words), (other, padded)):
        torch.manual_seed(1)
        net.fit(data, lengths, num_epochs=2, batch_size=2, disable_progbar=True)
    learned = zip(model.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in learned)


def test_perplexity_and_start(words, lengths):
    model = small()
    log_p = model.log_likelihood(words, lengths)
    for start in (0, 2, 5):
        count = (lengths - start).clamp(min=0).sum()
        expected = math.exp(-log_p[start:].sum() / count)
        assert model.perplexity(words, lengths, start=start) == pytest.approx(expected, rel=1e-12)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    assert model.perplexity(words) == pytest.approx(V, rel=1e-12)


def test_dropout_is_off_when_scoring_and_on_when_learning(words):
    model = small(dropout=0.9).train()
    assert torch.equal(model.log_likelihood(words), model.log_likelihood(words))
    assert model.training
    loss, again = (
        model.fit(words, num_epochs=1, learning_rate=0.0, disable_progbar=True)[0].loss
        for _ in range(2)
    )
    assert loss != again
    assert not model.training


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_nothing_to_score(shape):
    words = torch.zeros(shape, dtype=torch.long)
    assert small().log_likelihood(words).shape == shape


# ------------------------------------------------------------------------------------ learning


@pytest.fixture(scope="module")
def cycle():
    """0 1 2 3 4 0 1 ..., from any start: only the first word cannot be predicted."""
    return (torch.arange(12)[:, None] + torch.arange(20)) % V


@every_layer
def test_learns_a_cycle(cycle, layer):
    model = LanguageModel(V, embedding_size=8, hidden_size=16, cell=layer, dropout=0.0)
    before = model.perplexity(cycle, start=1)
    seen = []
    model.fit(cycle, num_epochs=40, learning_rate=0.02, callback=seen.append, disable_progbar=True)
    assert before > 4.0
    assert model.perplexity(cycle, start=1) < 1.05
    # The first word is one of V, all with the same probability.
    assert model.log_likelihood(cycle)[0].mean() == pytest.approx(-math.log(V), abs=0.1)
    assert seen == model.history
    assert [record.epoch for record in seen] == list(range(1, 41))
    assert all(math.isnan(record.score) for record in seen)


def test_the_loss_is_that_of_the_words(words, lengths):
    """With steps of length 0: the mean over words, each minibatch by its share of them."""
    model = small(dropout=0.0)
    (record,) = model.fit(
        words, lengths, num_epochs=1, batch_size=4, learning_rate=0.0, disable_progbar=True
    )
    assert record.loss == pytest.approx(math.log(model.perplexity(words, lengths)), rel=1e-12)
    assert record.seconds > 0.0


def test_minibatches_are_shuffled_and_leave_nobody_out():
    """Column b holds word b alone, so the words that are embedded show which columns were taken."""
    model, seen = small(), []
    model.embedding.register_forward_hook(lambda module, args, out: seen.append(args[0][1]))
    model.fit(torch.arange(V).expand(3, V), num_epochs=4, batch_size=2, disable_progbar=True)
    assert [len(columns) for columns in seen] == [2, 2, 1] * 4
    orders = torch.cat(seen).view(4, V)
    assert (orders.sort().values == torch.arange(V)).all()
    assert len(orders.unique(dim=0)) > 1  # fails by chance once in 120^3 seeds


def test_a_step_sees_the_gradient_of_its_minibatch(words, lengths):
    """One batch of all: the gradient is that of the mean log-likelihood of the words."""
    model = small(dropout=0.0)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    inputs = torch.cat([torch.full((1, B), V), words[:-1]])
    log_p = model(inputs)[0].log_softmax(-1).gather(-1, words.unsqueeze(-1)).squeeze(-1)
    (-log_p[torch.arange(T)[:, None] < lengths].mean()).backward()
    gradient = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.fit(words, lengths, num_epochs=1, batch_size=B, clip=math.inf, disable_progbar=True)
    for name, parameter in model.named_parameters():  # the first step of Adam, elementwise
        g = gradient[name]
        expected = before[name] - 0.002 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-7)


def test_keeps_the_epoch_that_validates_best(words):
    """Words drawn at random: what is learned from them does not carry over to others."""
    model = LanguageModel(V, embedding_size=8, hidden_size=16, dropout=0.0)
    valid = (torch.randint(V, (T, 20)), torch.full((20,), T - 1), 2)
    model.fit(
        words, valid=valid, num_epochs=60, learning_rate=0.02, patience=5, disable_progbar=True
    )
    scores = [record.score for record in model.history]
    best = min(range(len(scores)), key=scores.__getitem__)
    assert len(scores) == best + 1 + 5 < 60
    kept = model.perplexity(*valid[:2], start=2)
    assert kept == pytest.approx(scores[best], rel=1e-12) and kept != scores[-1]


def test_valid_without_start(words):
    model = small(dropout=0.0)
    (record,) = model.fit(words, valid=(words, None), num_epochs=1, disable_progbar=True)
    assert record.score == pytest.approx(model.perplexity(words), rel=1e-12)


def test_clip_bounds_the_gradient(words):
    model, norms = small(dropout=0.0), []

    def norm(optim, args, kwargs):
        gradients = [p.grad for p in optim.param_groups[0]["params"]]
        norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))

    hook = register_optimizer_step_pre_hook(norm)
    try:
        for clip in (math.inf, 0.01):
            model.fit(words, num_epochs=1, learning_rate=0.0, clip=clip, disable_progbar=True)
    finally:
        hook.remove()
    assert norms[0] > 0.1 and norms[1] == pytest.approx(0.01, rel=1e-3)


# ---------------------------------------------------------------------- parameters, devices


def test_number_of_parameters():
    model = LanguageModel(10, embedding_size=3, hidden_size=4)
    lstm = 4 * 4 * (3 + 4) + 2 * 4 * 4
    assert model.num_parameters == 11 * 3 + lstm + 4 * 10 + 10


@every_layer
def test_follows_the_dtype_of_the_model(words, lengths, layer):
    """Under a default of float64; no tensor is made without device and dtype."""
    model = small(layer).float()
    with NoBareFactory():
        history = model.fit(
            words, lengths, valid=(words, lengths), num_epochs=1, disable_progbar=True
        )
        log_p = model.log_likelihood(words, lengths)
    assert log_p.dtype == torch.float64
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    double = small(layer).double()
    double.load_state_dict(model.state_dict())
    torch.testing.assert_close(log_p, double.log_likelihood(words, lengths), rtol=0, atol=1e-5)
    assert math.isfinite(history[0].score)


@pytest.mark.cuda
@every_layer
def test_on_cuda(words, lengths, layer):
    model = small(layer)
    expected = model.log_likelihood(words, lengths)
    model.cuda()
    there = model.log_likelihood(words.cuda(), lengths.cuda())
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), expected, rtol=0, atol=1e-10)
    model.fit(words.cuda(), lengths.cuda(), num_epochs=1, disable_progbar=True)


# -------------------------------------------------------------------------------------- errors


USES = {
    "log_likelihood": lambda model, *data: model.log_likelihood(*data),
    "perplexity": lambda model, *data: model.perplexity(*data),
    "fit": lambda model, *data: model.fit(*data, num_epochs=1, disable_progbar=True),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda w, n: (w[:, 0], None), r"words have shape \(7,\) .*words\[:, None\]"),
        (lambda w, n: (w + 0.5, n), r"words holds \d.5, expected whole numbers"),
        (lambda w, n: (w.T, n), r"lengths are torch.int64 \(6,\), .*write x.T"),
        (lambda w, n: (w, n + 0.5), r"lengths holds \d.5, expected whole numbers"),
        (lambda w, n: (w, n > 2), r"lengths are torch.bool \(6,\), expected integers \(6,\)"),
        (lambda w, n: (w, n + 1), r"lengths run from 1 to 8, expected 0 to T=7"),
        (lambda w, n: (w, n - 1), r"lengths run from -1 to 6, expected 0 to T=7"),
        (lambda w, n: (w + 1, None), r"words from \d to 5, .*a vocabulary of 6"),
        (lambda w, n: (w - 1, n), r"words from -1 to 3, expected 0 to V - 1 = 4"),
        (lambda w, n: (w.to("meta"), None), r"words found on meta, the model is on cpu"),
    ],
)
def test_wrong_data(words, lengths, use, spoil, message):
    words[0, :2] = torch.tensor([0, V - 1])
    model = small()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(ValueError, match=message):
        use(model, *spoil(words, lengths))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_wrong_layer():
    with pytest.raises(ValueError, match='cell is "gru", expected one of "lstm", "mlstm"'):
        LanguageModel(V, cell="gru")


def test_no_words(words):
    nothing = torch.zeros(B, dtype=torch.long)
    with pytest.raises(ValueError, match="no word to score from start=7"):
        small().perplexity(words, start=T)
    with pytest.raises(ValueError, match="no word to score from start=0"):
        small().perplexity(words, nothing)
    with pytest.raises(ValueError, match="fit: found no word"):
        small().fit(words, nothing, num_epochs=1)


def test_a_loss_that_is_no_number_is_told(words):
    model = small()
    with torch.no_grad():
        model.head.bias[0] = math.nan
    with pytest.raises(NonFiniteError, match="loss of an epoch is nan"):
        model.fit(words, num_epochs=1, disable_progbar=True)
