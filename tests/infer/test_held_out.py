"""Dirichlet sites of an E-step without the counts of the minibatch's own paths."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.optim import Adam

from pyro_ssl import LSTMTransition, StochasticEM, TopicalSSL, ssl_transition
from tests.faults.digest import digest

K, V, T, B, PRIOR = 3, 5, 6, 8, 0.5


def make_model(transition, seen):
    """Notes each φ that it is run with."""

    def model(words, index):
        pyro.module("transition", transition)
        phi = pyro.sample("phi", dist.Dirichlet(torch.full((K, V), PRIOR)).to_event(1))
        seen.append(phi.detach())
        with pyro.plate("documents", B, subsample=index):
            x = words[:, index]
            for t, z in ssl_transition("z", transition, len(words)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    return model


def mean_of(words, paths, among):
    """E[φ] given the paths ``(B, T)`` of some sequences, by a plain loop."""
    n = torch.full((K, V), PRIOR)
    for b in among:
        for t in range(T):
            n[paths[b, t], words[t, b]] += 1
    return n / n.sum(-1, keepdim=True)


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("index", [[0, 1, 2], [4], [5, 2, 2]], ids=str)
def test_the_sites_are_those_of_the_other_sequences(index, conditional):
    words, seen = torch.randint(V, (T, B)), []
    em = StochasticEM(
        make_model(LSTMTransition(K, 4), seen),
        Adam({"lr": 1e-2}),
        3,
        held_out=True,
        averaging=0.7,
        conditional=conditional,
    )
    for start in range(0, B, 2):
        em.step(words, torch.arange(start, start + 2))
    paths, own = em.paths.clone(), torch.tensor(index)
    seen.clear()
    em.step(words, own)
    others = mean_of(words, paths, set(range(B)) - set(index))
    assert any(torch.allclose(phi, others) for phi in seen)
    # And what is learned counts all of them, those of the step anew.
    everything = mean_of(words, em.paths, range(B))
    now = em._path_counts["phi"] + PRIOR
    assert torch.allclose(now / now.sum(-1, keepdim=True), everything)


def test_sequences_without_a_path_hold_nothing_out():
    words, seen = torch.randint(V, (T, B)), []
    em = StochasticEM(make_model(LSTMTransition(K, 4), seen), Adam({"lr": 1e-2}), 3, held_out=True)
    em.step(words, torch.arange(4))
    before = {name: value.clone() for name, value in em.values.items()}
    seen.clear()
    em.step(words, torch.arange(4, 8))
    assert any(torch.allclose(phi, before["phi"]) for phi in seen)


def test_a_step_of_all_sequences_is_refused():
    words, transition = torch.randint(V, (T, B)), LSTMTransition(K, 4)
    em = StochasticEM(make_model(transition, []), Adam({"lr": 1e-2}), 3, held_out=True)
    em.step(words, torch.arange(4))
    before = digest(modules=[transition], objects=[em])
    with pytest.raises(ValueError, match="held_out=True and all 8 sequences in one step"):
        em.step(words, torch.arange(8))
    assert digest(modules=[transition], objects=[em]) == before


@pytest.mark.parametrize(
    "how", [{}, {"batch_size": 8}, {"batch_size": 2, "inference": "mean_field"}], ids=str
)
def test_a_fit_that_leaves_nothing_is_refused(how):
    words = torch.randint(V, (T, B))
    ssl = TopicalSSL(K, V, hidden_size=4)
    before = digest(modules=[ssl])
    with pytest.raises(ValueError, match="found held_out=True, .*write batch_size=1"):
        ssl.fit(words, held_out=True, **how)
    assert digest(modules=[ssl]) == before


def test_a_fit_holds_out():
    words = torch.randint(V, (T, 20))
    ssl = TopicalSSL(K, V, hidden_size=4)
    quick = {"num_epochs": 2, "markov_steps": 5, "transition_steps": 5, "disable_progbar": True}
    history = ssl.fit(words, held_out=True, batch_size=5, **quick)
    assert len(history) == 2 and torch.allclose(ssl.phi.sum(-1), torch.ones(K))
