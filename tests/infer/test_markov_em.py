"""Where EM begins, that a step from there is Baum-Welch, and that batches make the same step."""

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


N = 11


def make_data(seed=0):
    """Words ``(T, N)``, lengths and a label for each of N documents."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        lengths = torch.randint(T + 1, (N,))
        return torch.randint(V, (T, N)), lengths.clamp(min=1), torch.randint(V, (N,))


def labelled(words, lengths, labels, index=None):
    """A label of each document, ten draws of row 0 outside of all plates, and the loop."""
    phi = pyro.sample("phi", dist.Dirichlet(torch.full((K, V), 0.7)).to_event(1))
    theta = pyro.sample("theta", dist.Dirichlet(torch.ones(V)))
    with pyro.plate("pilot", 10):
        pyro.sample("y", dist.Categorical(phi[0]), obs=torch.arange(10) % V)
    with pyro.plate("documents", words.shape[1], subsample=index) as index:
        pyro.sample("label", dist.Categorical(theta), obs=labels[index])
        steps = ssl_transition(
            "z",
            LSTMTransition(K, 2),
            len(words),
            lengths=None if lengths is None else lengths[index],
        )
        for t, z in steps:
            pyro.sample("x", dist.Categorical(phi[z]), obs=words[:, index][t])


@pytest.mark.stage("system")
@pytest.mark.parametrize("size", [1, 4, N])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("dirichlet", ["mean", "mode"])
def test_an_epoch_of_batches_is_one_step_on_all(size, ragged, dirichlet):
    """Chain, sites, counts inside and outside the loop, and loss, over several iterations."""
    words, lengths, labels = make_data()
    data = words, lengths if ragged else None, labels
    order = torch.randperm(N)
    batches = [(*data, index) for index in order.split(size)]
    fits = []
    for step in ("step", "epoch"):
        pyro.set_rng_seed(3)
        hmm = MarkovEM(labelled, dirichlet=dirichlet)
        losses = [hmm.step(*data) if step == "step" else hmm.epoch(batches) for _ in range(4)]
        fits.append((hmm, torch.tensor(losses)))
    (full, expected), (parts, losses) = fits
    close = {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(losses, expected, **close)
    torch.testing.assert_close(parts.initial, full.initial, **close)
    torch.testing.assert_close(parts.matrix, full.matrix, **close)
    assert parts.counts.keys() == full.counts.keys() == {"phi", "theta"}
    for name, counts in full.counts.items():
        torch.testing.assert_close(parts.counts[name], counts, **close)
        torch.testing.assert_close(parts.values[name], full.values[name], **close)
    cells = int(lengths.sum()) if ragged else T * N
    assert float(parts.counts["phi"].sum()) == pytest.approx(cells + 10)  # the pilot's once
    hist = torch.bincount(labels, minlength=V).double()
    torch.testing.assert_close(parts.counts["theta"], hist, **close)


def test_a_step_on_a_part_is_scaled_to_all():
    words, lengths, labels = make_data()
    twice = [torch.cat([x, x], -1) for x in (words, lengths, labels)]
    fits = []
    for data in ((*twice, torch.arange(N)), twice):
        pyro.set_rng_seed(0)
        hmm = MarkovEM(labelled)
        fits.append((hmm.step(*data), hmm))
    assert fits[0][0] == pytest.approx(fits[1][0], rel=1e-12)
    torch.testing.assert_close(fits[0][1].matrix, fits[1][1].matrix)
    for name, counts in fits[1][1].counts.items():
        torch.testing.assert_close(fits[0][1].counts[name], counts)


def test_the_perplexity_of_batches_is_that_of_all():
    """Also where no sequence of a batch reaches the step to score from."""
    words, lengths, labels = make_data()
    hmm = MarkovEM(labelled)
    hmm.step(words, lengths, labels)
    batches = [(index,) for index in lengths.argsort().split(3)]
    for start in (0, T - 1):
        expected = hmm.perplexity(words, lengths, labels, start=start)
        found = hmm.perplexity(words, lengths, labels, start=start, batches=batches)
        assert found == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match=f"start={T - 1} on was observed"):
        hmm.perplexity(words, lengths.clamp(max=2), labels, start=T - 1, batches=batches)


def test_batches_that_are_not_the_data_once_are_refused():
    words, lengths, labels = make_data()
    hmm = MarkovEM(labelled)
    hmm.step(words, lengths, labels)
    before = hmm.matrix, hmm.values["phi"]
    with pytest.raises(ValueError, match="2 of the sequences.*subsample=index"):
        hmm.epoch([(words, lengths, labels)] * 2)
    with pytest.raises(ValueError, match="no batch, expected one at least"):
        hmm.epoch([])
    assert hmm.matrix is before[0] and hmm.values["phi"] is before[1]
