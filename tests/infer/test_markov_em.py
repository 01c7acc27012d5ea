"""Where EM begins: a given start is taken as it is, and one step from it is Baum-Welch."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import LSTMTransition, MarkovEM, MarkovTransition, ssl_transition
from pyro_ssl.exact.chains import enumerate_paths

K, V, T, B = 3, 4, 5, 2


def make_model(num_states=K):
    transition = LSTMTransition(num_states, 4)

    def model(words):
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(num_states, V)).to_event(1))
        with pyro.plate("sequences", words.shape[1]):
            for t, z in ssl_transition("z", transition, len(words)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    return model


def random_start():
    rows = dist.Dirichlet(torch.ones(K)).sample((K + 1,))
    return rows[0], rows[1:], dist.Dirichlet(torch.ones(V)).sample((K,))


def test_a_given_start_and_one_step_from_it_are_enumeration():
    words = torch.randint(V, (T, B))
    initial, matrix, phi = random_start()
    hmm = MarkovEM(make_model(), dirichlet="mode", smoothing=0.0)
    assert hmm.start_from(initial, matrix, phi=phi) is hmm
    paths = enumerate_paths(
        MarkovTransition(K, initial=initial, matrix=matrix), phi.log().T[words]
    )  # log p(x_t | z_t): (T, B, K)
    evidence = paths.log_evidence
    assert torch.allclose(hmm.log_likelihood(words).sum(0), evidence, rtol=1e-11, atol=1e-11)
    assert hmm.step(words) == pytest.approx(-float(evidence.sum()), rel=1e-11)
    weight, z = paths.posterior.sum(0), paths.paths  # (N,), (N, T)
    moves = torch.zeros(K, K)
    for t in range(T - 1):
        moves.index_put_((z[:, t], z[:, t + 1]), weight, accumulate=True)
    start = torch.zeros(K).index_put_((z[:, 0],), weight, accumulate=True)
    emitted = torch.zeros(K, V)
    for b in range(B):
        for t in range(T):
            emitted[:, words[t, b]] += torch.stack(
                [paths.posterior[b][z[:, t] == k].sum() for k in range(K)]
            )
    for found, counts in ((hmm.matrix, moves), (hmm.initial, start), (hmm.values["phi"], emitted)):
        expected = counts / counts.sum(-1, keepdim=True)
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_a_start_is_repeated_and_left_as_it_was():
    words, (initial, matrix, phi) = torch.randint(V, (T, B)), random_start()
    given = {"phi": phi}
    ems = [
        MarkovEM(make_model()).start_from(initial, matrix.requires_grad_(), **given)
        for _ in range(2)
    ]
    assert torch.equal(ems[0].matrix, matrix) and not ems[0].matrix.requires_grad
    losses = [em.step(words) for em in ems]
    assert losses[0] == losses[1] and torch.equal(ems[0].matrix, ems[1].matrix)
    assert given["phi"] is phi and not torch.equal(ems[0].values["phi"], phi)


def test_errors_teach():
    words, (initial, matrix, phi) = torch.randint(V, (T, B)), random_start()
    hmm = MarkovEM(make_model())
    with pytest.raises(ValueError, match=r"initial \(3,\) and matrix \(4,\)"):
        hmm.start_from(initial, phi[0], phi=phi)
    with pytest.raises(ValueError, match=r"for \['phi'\], found \['psi'\].*phi=\.\.\."):
        hmm.start_from(initial, matrix, psi=phi).step(words)
    with pytest.raises(ValueError, match="chain has 3 states, expected 2.*LSTMTransition"):
        MarkovEM(make_model(2)).start_from(initial, matrix, phi=phi[:2]).step(words)
