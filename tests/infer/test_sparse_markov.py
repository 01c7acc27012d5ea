"""Variational Bayes for HMMs: a bound that no step lowers, and states that are emptied."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Dirichlet, kl_divergence

from pyro_ssl import MarkovEM, TopicalSSL, ssl_transition
from pyro_ssl.errors import LatentSiteError
from pyro_ssl.infer.sparse_markov import SparseMarkovEM, emptied, restricted
from pyro_ssl.infer.warm_start import batches_of, search_markov
from pyro_ssl.models import fit_markov
from pyro_ssl.transitions import LSTMTransition
from tests.faults.digest import nothing_changes

K, V, BETA = 2, 3, 0.4


def planted(num_topics=4, num_words=6, T=30, B=80):
    """Topics over words of their own, each running for about four words; 3 % are other words."""
    V = num_topics * num_words
    phi = torch.full((num_topics, V), 0.01)
    for k in range(num_topics):
        phi[k, num_words * k : num_words * (k + 1)] = 1.0
    stay, z = torch.rand(T, B) < 0.75, torch.randint(num_topics, (T, B))
    for t in range(1, T):
        z[t] = torch.where(stay[t], z[t - 1], z[t])
    return dist.Categorical(phi[z]).sample()


def small(num_states=K, num_words=V, beta=BETA):
    return TopicalSSL(num_states, num_words, hidden_size=3, concentration=beta).model


def exact_evidence(words, lengths, alpha):
    """log p(x), chain and topics integrated out, by the sum over all joint paths."""
    cells = [(b, t) for b, n in enumerate(lengths) for t in range(n)]
    paths = torch.cartesian_prod(*[torch.arange(K)] * len(cells))  # (N, cells)
    n = {"start": torch.zeros(len(paths), K), "moves": torch.zeros(len(paths), K, K)}
    n["phi"] = torch.zeros(len(paths), K, V)
    rows = torch.arange(len(paths))
    for i, (b, t) in enumerate(cells):
        n["phi"][rows, paths[:, i], words[t, b]] += 1.0
        if t:
            n["moves"][rows, paths[:, i - 1], paths[:, i]] += 1.0
        else:
            n["start"][rows, paths[:, i]] += 1.0
    log_p = torch.zeros(len(paths))
    for name, counts in n.items():
        prior = torch.full_like(counts, BETA if name == "phi" else alpha / K)
        for weights, sign in ((prior + counts, 1.0), (prior, -1.0)):
            beta = weights.lgamma().sum(-1) - weights.sum(-1).lgamma()
            log_p += sign * beta.reshape(len(paths), -1).sum(-1)
    return log_p.logsumexp(0)


def test_the_bound_is_below_the_evidence_and_no_step_lowers_it():
    """Of ragged sequences, all 2^9 joint paths of which are summed."""
    words, lengths = torch.randint(V, (4, 3)), torch.tensor([4, 2, 3])
    exact = float(exact_evidence(words, lengths.tolist(), 1.3))
    for _ in range(3):
        hmm = SparseMarkovEM(small(), sparsity=1.3)
        bounds = [-hmm.step(words, lengths) for _ in range(60)][1:]  # the first has no q yet
        steps = torch.tensor(bounds).diff()
        assert (steps > -1e-9).all() and steps[0] > 1e-3
        assert exact - 4.0 < bounds[-1] < exact


def test_the_bound_is_its_definition():
    """E_q log p(x, z, θ) - E_q log q, with q(z) of all paths under the mean logarithms."""
    words = torch.randint(V, (3, 2))
    hmm = SparseMarkovEM(small(), sparsity=0.7)
    for _ in range(4):
        hmm.step(words)
    q = {name.strip(): weights for name, weights in hmm._q.items()}
    log = {n: w.digamma() - w.sum(-1, keepdim=True).digamma() for n, w in q.items()}
    z = torch.cartesian_prod(*[torch.arange(K)] * 3)  # (N, T)
    bound = 0.0
    for b in range(2):
        log_p = log["start"][z[:, 0]] + log["moves"][z[:, :-1], z[:, 1:]].sum(-1)
        bound += (log_p + log["phi"][z, words[:, b]].sum(-1)).logsumexp(0)
    for name, weights in q.items():
        prior = torch.full_like(weights, BETA if name == "phi" else 0.7 / K)
        bound -= kl_divergence(Dirichlet(weights), Dirichlet(prior)).sum()
    assert -hmm.step(words) == pytest.approx(float(bound), abs=1e-10)


def test_a_step_in_batches_is_a_step():
    words, lengths = torch.randint(V, (5, 9)), torch.randint(1, 6, (9,))
    found = []
    for size in (None, 4):
        torch.manual_seed(3)
        hmm, batches = SparseMarkovEM(small()), batches_of(words, lengths, size)
        losses = [hmm.epoch(batches) for _ in range(8)]
        found.append((torch.tensor(losses), hmm.matrix, hmm.counts["phi"]))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
    visits = hmm.counts["phi"].sum(-1)
    torch.testing.assert_close(hmm.visits, visits)


def test_estimates_are_means_of_prior_and_counts():
    """And those of the plain HMM that a search hands on."""
    words, reached = torch.randint(V, (6, 5)), []
    how = {"num_steps": 3, "num_starts": 1, "disable_progbar": True}
    search_markov(small(), words, sparsity=1.0, reached=reached.append, **how)
    hmm = reached[-1]
    assert type(hmm) is MarkovEM
    weights = hmm.counts["phi"] + BETA
    torch.testing.assert_close(hmm.values["phi"], weights / weights.sum(-1, keepdim=True))
    torch.testing.assert_close(hmm.matrix.sum(-1), torch.ones(K))
    assert hmm.perplexity(words) > 1.0


@pytest.mark.stage("statistical")
@pytest.mark.usefixtures("float32")
def test_of_ten_states_as_many_are_used_as_are_planted():
    """Four, in three texts; EM uses all ten."""
    for seed in range(3):
        pyro.set_rng_seed(seed)
        words, model = planted(), small(10, 24, 0.1)
        how = {"num_starts": 3, "disable_progbar": True}
        hmm = fit_markov(model, words, num_steps=40, sparsity=1.0, **how)
        share = hmm.counts["phi"].sum(-1) / words.numel()
        assert 4 <= int((share > 0.02).sum()) <= 5, share
        top = hmm.values["phi"][share > 0.02].view(-1, 4, 6).sum(-1)
        assert {*top.argmax(-1).tolist()} == {0, 1, 2, 3}
    em = fit_markov(model, words, num_steps=40, **how | {"num_starts": 1})
    assert int((em.counts["phi"].sum(-1) / words.numel() > 0.02).sum()) > 7


def test_a_state_that_is_needed_stays():
    """And a copy of one goes: its loss is more than that of its parameters' price."""
    words = planted(2, 3, 12, 40)
    phi = torch.full((3, 6), 0.01)
    phi[0, :3], phi[1:, 3:] = 1.0, 1.0
    phi[2] += 0.02 * torch.rand(6)
    hmm = SparseMarkovEM(small(3, 6, 0.1))
    hmm.start_from(torch.ones(3) / 3, torch.ones(3, 3) / 3, phi=phi / phi.sum(-1, keepdim=True))
    for _ in range(5):
        before = hmm.step(words)
    assert (hmm.visits > 20).all()
    found = emptied(hmm, lambda trial: trial.step(words))
    assert int((found.visits > 1).sum()) == 2 and found.visits[0] > 20
    assert found.step(words) < before
    assert (hmm.visits > 20).all(), "trials are copies"


def test_a_start_forgets_the_steps_before():
    words = torch.randint(V, (6, 5))
    start = torch.ones(K) / K, torch.full((K, K), 1 / K)
    phi = Dirichlet(torch.ones(V)).sample((K,))
    fresh, used = SparseMarkovEM(small()), SparseMarkovEM(small())
    for _ in range(3):
        used.step(words)
    losses = [hmm.start_from(*start, phi=phi).step(words) for hmm in (fresh, used)]
    assert losses[0] == losses[1] and torch.equal(fresh.matrix, used.matrix)
    assert torch.equal(fresh.counts["phi"], used.counts["phi"])


def test_nothing_is_read_of_what_is_not_fitted():
    for read in (lambda hmm: hmm.visits, lambda hmm: hmm.without(0)):
        with pytest.raises(RuntimeError, match="Nothing is fitted yet; write hmm.step"):
            read(SparseMarkovEM(small()))


def test_a_restriction_is_given_none_of_the_others():
    words = torch.randint(V, (6, 5))
    hmm = MarkovEM(small(3))
    for _ in range(3):
        hmm.step(words)
    kept = torch.tensor([0, 2])
    found = restricted(hmm, small(2), kept)
    joint = hmm.matrix[kept][:, kept]
    torch.testing.assert_close(found.matrix, joint / joint.sum(-1, keepdim=True))
    assert torch.equal(found.values["phi"], hmm.values["phi"][kept])
    assert torch.equal(found.counts["phi"], hmm.counts["phi"][kept])
    assert found.perplexity(words) > 1.0


@pytest.mark.parametrize("sparsity", [0.0, -1.0, float("inf"), float("nan")])
def test_a_sparsity_that_is_none_is_told(sparsity):
    words, model = torch.randint(V, (4, 3)), small()
    with nothing_changes(), pytest.raises(ValueError, match="write sparsity=1.0"):
        fit_markov(model, words, sparsity=sparsity)


def test_it_follows_the_dtype_of_the_model():
    torch.set_default_dtype(torch.float32)
    words = planted(2, 400, 30, 60)
    how = {"num_steps": 20, "num_starts": 1, "disable_progbar": True}
    hmm = fit_markov(small(6, 800, 0.1), words, sparsity=1.0, **how)
    assert hmm.matrix.dtype == torch.float32
    assert int((hmm.counts["phi"].sum(-1) < 1.0).sum()) >= 3


def test_a_model_of_two_draws_a_step_is_told():
    transition = LSTMTransition(K, 3)

    def model(words):
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, V)).to_event(1))
        with pyro.plate("documents", words.shape[1]):
            for t, z in ssl_transition("z", transition, len(words)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
                pyro.sample("y", dist.Categorical(phi[z]), obs=words[t])

    with pytest.raises(LatentSiteError, match='Site "phi": .* expected one draw from row z'):
        SparseMarkovEM(model).step(torch.randint(V, (4, 3)))
