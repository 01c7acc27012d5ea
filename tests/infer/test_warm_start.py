"""The exact start: the best of several HMMs, and a transition that learns from drawn paths."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.optim import Adam

from pyro_ssl import LSTMTransition, MarkovEM, ssl_transition
from pyro_ssl.infer.warm_start import fit_markov, teach_transition

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
    for options in ({"num_steps": 0}, {"num_starts": 0}):
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
