"""The exact start: the best of several HMMs, and a transition that learns from drawn paths."""

import warnings
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.optim import Adam

from pyro_ssl import (
    LSTMTransition,
    MarkovEM,
    MarkovTransition,
    MeanFieldGuide,
    StochasticEM,
    ssl_transition,
)
from pyro_ssl.errors import NonFiniteError
from pyro_ssl.infer.warm_start import all_sequences, draw_all, fit_markov, teach_transition
from pyro_ssl.reading.program import Program

T, B, K, V = 6, 8, 2, 4


def model(words, lengths=None):
    phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, V)).to_event(1))
    with pyro.plate("documents", words.shape[1]):
        for t, z in ssl_transition("z", LSTMTransition(K, 3), len(words), lengths=lengths):
            pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])


@pytest.fixture
def data():
    return torch.randint(V, (T, B)), torch.tensor([T, 1, 2, 3, T, T, T, 4])


@pytest.mark.parametrize("with_valid", [False, True])
def test_the_best_start_is_kept(data, with_valid):
    """The lowest perplexity of every tenth step, or the lowest loss of the last ones."""
    held_out = torch.randint(V, (T, B))
    candidates = []
    pyro.set_rng_seed(0)
    for _ in range(3):
        hmm = MarkovEM(model, dirichlet="mean")
        for step in range(1, 26):
            loss = hmm.step(*data)
            if with_valid and (step % 10 == 0 or step == 25):
                candidates.append((hmm.perplexity(held_out, None, start=2), hmm.matrix))
        if not with_valid:
            candidates.append((loss, hmm.matrix))
    pyro.set_rng_seed(0)
    valid = (held_out, None, 2) if with_valid else None
    found = fit_markov(model, *data, valid=valid, num_steps=25, num_starts=3)
    assert torch.equal(found.matrix, min(candidates, key=lambda pair: pair[0])[1])


def test_start_is_left_out_of_valid_or_given(data):
    found = []
    for valid in (data, (*data, 0)):
        pyro.set_rng_seed(0)
        found.append(fit_markov(model, *data, valid=valid, num_steps=11, num_starts=2).matrix)
    assert torch.equal(*found)


def test_refuses_no_steps(data):
    for options in ({"num_steps": 0}, {"num_starts": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="expected at least 1 of each"):
            fit_markov(model, *data, **options)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_takes_the_steps_that_are_asked_for_and_learns(batch_size):
    transition = LSTMTransition(K, 6).eval()
    z = torch.arange(T).expand(B, T) % K  # 0 1 0 1 ...
    before, calls, adam = transition.log_prob(z).mean(), [], Adam({"lr": 0.05})

    def optim(parameters):
        calls.append(1)
        adam(parameters)

    teach_transition(transition, lambda: z, 40, optim, batch_size=batch_size)
    assert len(calls) == 40 and not transition.training
    assert transition.log_prob(z).mean() > before + 0.3
    assert all(parameter.grad is None for parameter in transition.parameters())


def test_neither_what_is_past_the_lengths_nor_the_batches_change_the_gradient(data):
    """Of one step of all sequences, against the sum over them."""
    _, lengths = data
    transition = LSTMTransition(K, 4)
    z, found = torch.randint(K, (B, T)), []
    steps = torch.arange(T)
    log_p = transition.log_prob(z)[steps < lengths.unsqueeze(-1)].sum()
    expected = torch.autograd.grad(-log_p, list(transition.parameters()))
    for hidden in (0, 1):
        path = torch.where(steps < lengths.unsqueeze(-1), z, hidden)

        def optim(parameters):
            found.append([parameter.grad.clone() for parameter in parameters])

        teach_transition(transition, lambda path=path: path, 1, optim, lengths=lengths)
    for gradients in found:
        for a, b in zip(gradients, expected, strict=True):
            torch.testing.assert_close(a, b)


def test_blocks_do_not_change_the_gradient(data, monkeypatch):
    """Of a step of all sequences that memory holds in parts: T times 16 entries for each."""
    _, lengths = data
    z, found = torch.randint(K, (B, T)), []
    transition = LSTMTransition(K, 4)
    for entries in (2**25, 3 * T * 16):
        monkeypatch.setattr("pyro_ssl.infer.blocks.MAX_ENTRIES", entries)

        def optim(parameters):
            found.append([parameter.grad.clone() for parameter in parameters])

        teach_transition(transition, lambda: z, 1, optim, lengths=lengths)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_a_loss_that_is_not_finite_leaves_no_gradient(monkeypatch):
    """Nor does one of which the first parts were."""
    transition, z = LSTMTransition(K, 4, input_size=1), torch.zeros(B, T, dtype=torch.long)
    inputs = torch.zeros(T, B, 1)
    inputs[0, 3] = torch.nan
    monkeypatch.setattr("pyro_ssl.infer.blocks.MAX_ENTRIES", 1)
    with pytest.raises((NonFiniteError, ValueError), match="NaN"):
        teach_transition(transition, lambda: z, 1, Adam({}), inputs=inputs)
    assert all(parameter.grad is None for parameter in transition.parameters())


def indexed(words, lengths=None, index=None, transition=None):
    phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, V)).to_event(1))
    transition = MarkovTransition(K) if transition is None else transition
    pyro.module("transition", transition)
    with pyro.plate("documents", words.shape[1], subsample=index) as index:
        n = None if lengths is None else lengths[index]
        for t, z in ssl_transition("z", transition, len(words), lengths=n):
            pyro.sample("x", dist.Categorical(phi[z]), obs=words[:, index][t])


@pytest.mark.parametrize("with_valid", [False, True])
def test_batches_fit_the_same_hmm(data, with_valid):
    valid = (torch.randint(V, (T, 5)), None, 2) if with_valid else None
    found = []
    for batch_size in (None, 3):
        pyro.set_rng_seed(1)
        how = {"num_steps": 12, "num_starts": 2, "batch_size": batch_size}
        found.append(fit_markov(indexed, *data, valid=valid, disable_progbar=True, **how))
    torch.testing.assert_close(found[0].matrix, found[1].matrix, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found[0].values, found[1].values, rtol=1e-8, atol=1e-10)


def plain_hmm():
    """States that words 0, 1 and 2, 3 tell apart, so that paths can be read off."""
    phi = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
    return MarkovEM(indexed).start_from(torch.ones(K) / K, torch.ones(K, K) / K, phi=phi)


def active_cells(lengths):
    return torch.arange(T)[:, None] < lengths


@pytest.mark.parametrize("transition_steps", [0, 3])
def test_a_start_in_batches_is_that_of_all_at_once(data, transition_steps):
    """Every sequence has its own path, counted once, and steps on all sequences go on from it."""
    words, lengths = data
    ems = []
    for batches in (None, [(index,) for index in torch.randperm(B).split(3)]):
        transition = LSTMTransition(K, 4)

        pyro.clear_param_store()
        em = StochasticEM(
            partial(indexed, transition=transition), Adam({"lr": 0.01}), num_particles=3
        )
        how = {"transition_steps": transition_steps, "batches": batches}
        em.start_from(plain_hmm(), words, lengths, **how)
        ems.append(em)
    expected = torch.where(active_cells(lengths), words // 2, 0).T
    counts = torch.zeros(K, V)
    for z, x in zip((words // 2)[active_cells(lengths)], words[active_cells(lengths)], strict=True):
        counts[z, x] += 1.0
    for em in ems:
        assert torch.equal(em.paths, expected)
        torch.testing.assert_close(em._path_counts["phi"], counts)
        assert em._memory.num_known == B
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of paths that start anew
        ems[1].step(words, lengths)
        assert 0.0 <= ems[1].change_rate <= 1.0
        ems[1].step(words, lengths, torch.arange(3))


def test_a_warm_start_in_batches_fits_the_same_hmm(data):
    batches, found = [(index,) for index in torch.arange(B).split(3)], []
    for parts in (None, batches):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        model = partial(indexed, transition=MarkovTransition(K))
        em = StochasticEM(model, Adam({"lr": 0.01}), num_particles=3)
        how = {"num_steps": 4, "transition_steps": 0, "batches": parts}
        found.append(em.warm_start(*data, **how))
        assert float(em._path_counts["phi"].sum()) == pytest.approx(float(data[1].sum()))
    torch.testing.assert_close(found[0].matrix, found[1].matrix, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found[0].counts, found[1].counts, rtol=1e-9, atol=1e-11)


def test_a_start_needs_every_sequence_once(data):
    model = partial(indexed, transition=MarkovTransition(K))
    em = StochasticEM(model, Adam({"lr": 0.01}), num_particles=3)
    some, again = [(torch.arange(4),)], [(torch.arange(4),), (torch.arange(4),)]
    for batches, share in ((some, "0.5"), (again, "0.5"), ([*some, (torch.arange(B),)], "1.5")):
        with pytest.raises(ValueError, match=f"{share} of the sequences.*each sequence once"):
            em.start_from(plain_hmm(), *data, batches=batches)


def test_the_mean_field_starts_in_batches(data):
    words, lengths = data
    guides = []
    for batches in (None, [(index,) for index in torch.randperm(B).split(3)]):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        guide = MeanFieldGuide(indexed)
        guide.start_from(plain_hmm(), words, lengths, batches=batches)
        pyro.set_rng_seed(1)
        guides.append(pyro.param("mean_field.z.logits").detach())
    active = active_cells(lengths).T
    torch.testing.assert_close(guides[0][active], guides[1][active])


def test_batches_of_other_lengths_and_inputs_line_up():
    """Padded to the longest, each sequence with its own length and inputs, batch after batch."""
    phi = torch.tensor([[1.0, 0.0], [0.0, 1.0]])

    def driven(words, lengths, inputs, index):
        transition = MarkovTransition(2, input_size=1)
        with pyro.plate("documents", 5, subsample=index):
            steps = ssl_transition("z", transition, len(words), lengths=lengths, inputs=inputs)
            for t, z in steps:
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    words, inputs = torch.randint(2, (4, 5)), torch.randn(4, 5, 1)
    first, last = torch.tensor([3, 0, 4]), torch.tensor([1, 2])
    batches = [
        (words[:2, first], None, inputs[:2, first], first),
        (words[:, last], torch.tensor([4, 1]), inputs[:, last], last),
    ]
    programs = [Program(driven, batch) for batch in batches]
    found = all_sequences(program.run() for program in programs)
    assert found["lengths"].tolist() == [2, 2, 2, 4, 1]
    assert torch.equal(found["inputs"][:2, :3], inputs[:2, first])
    assert torch.equal(found["inputs"][:, 3], inputs[:, 1])
    assert torch.equal(found["inputs"][:1, 4], inputs[:1, 2])
    hmm = MarkovEM(driven).start_from(torch.ones(2) / 2, torch.ones(2, 2) / 2)
    paths = draw_all(hmm, programs)
    for b, place in enumerate([*first, *last]):
        n = found["lengths"][b]
        assert torch.equal(paths[b, :n], words[:n, place]) and not paths[b, n:].any()
