"""The semi-Markov transition: the contract, and stays of given durations, by three oracles."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import LSTMTransition, MarkovTransition, ParticleGibbs, ssl_transition
from pyro_ssl.belief import to_hmm
from pyro_ssl.exact import enumerate_paths, markov_log_likelihood, markov_marginals
from pyro_ssl.testing import TransitionContract
from pyro_ssl.transitions import ProductTransition, SemiMarkovTransition
from tests.statistics import ALPHA, Problem, one_sweep_p_value


def learnable(num_states=3, max_duration=3):
    chain = SemiMarkovTransition(num_states, max_duration)
    for parameter in chain.parameters():
        torch.nn.init.normal_(parameter, std=1.5)
    return chain


def of_durations(num_states=3, max_duration=4, longest=None):
    rows = dist.Dirichlet(torch.ones(num_states)).sample((num_states + 1,))
    jumps = rows[1:].clone().fill_diagonal_(0.0)
    durations = dist.Dirichlet(torch.ones(max_duration)).sample((num_states,))
    if longest is not None:
        durations[:, longest:] = 0.0
        durations /= durations.sum(-1, keepdim=True)
    return SemiMarkovTransition(
        num_states, max_duration, initial=rows[0], jumps=jumps, durations=durations
    )


class TestSemiMarkov(TransitionContract):
    def make(self, num_states=3):
        return learnable(num_states)


class TestSemiMarkovOfOneHazard(TransitionContract):
    def make(self, num_states=3):
        return learnable(num_states, 1)


class TestSemiMarkovOfGivenDurations(TransitionContract):
    """No path of five steps is cut short by a longest stay of six, so that none is impossible."""

    def make(self, num_states=3):
        return of_durations(num_states, 6)


class TestSemiMarkovInAProduct(TransitionContract):
    def make(self, num_states=3):
        parts = [learnable(num_states), MarkovTransition(min(num_states, 2))]
        return ProductTransition(parts[: 2 if num_states > 1 else 1])


def by_stays(path, initial, jumps, durations):
    """p(z_{1:T}) from stays: their durations and jumps, the last of them cut off."""
    stays = [(z, len(list(group))) for z, group in itertools.groupby(path)]
    p = initial[stays[0][0]]
    for (z, d), (after, _) in itertools.pairwise(stays):
        p = p * durations[z, d - 1] * jumps[z, after] if d <= durations.shape[1] else p * 0.0
    z, d = stays[-1]
    return p * durations[z, d - 1 :].sum()


@pytest.mark.parametrize("K, D, longest", [(2, 1, 1), (2, 3, 3), (3, 2, 2), (3, 4, 4), (2, 4, 2)])
def test_paths_have_the_probability_of_their_stays(K, D, longest):
    chain = of_durations(K, D, longest)
    initial, jumps = chain.initial_logits.exp(), chain.jump_logits.exp()
    jumps = jumps / jumps.sum(-1, keepdim=True)
    durations = chain.log_durations.exp()
    paths = torch.cartesian_prod(*[torch.arange(K)] * 5)
    expected = torch.stack([by_stays(path, initial, jumps, durations) for path in paths.tolist()])
    found = chain.log_prob(paths).cumsum(-1)[:, -1].exp()  # NaN would show
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-12)
    assert (found == 0).any()  # of a stay that is too long


def test_a_tail_is_geometric():
    """Hazards go on past D with the last of them."""
    chain, longer = learnable(2, 3), learnable(2, 7)
    with torch.no_grad():
        for name in ("initial_logits", "jump_logits"):
            getattr(longer, name).copy_(getattr(chain, name))
        longer.hazard_logits[:, :3] = chain.hazard_logits
        longer.hazard_logits[:, 3:] = chain.hazard_logits[:, 2:]
    z = torch.randint(2, (40, 15)).sort(-1).values
    torch.testing.assert_close(chain.log_prob(z), longer.log_prob(z))


def test_of_one_hazard_it_is_a_markov_chain():
    chain = learnable(3, 1)
    ends = chain.hazard_logits.sigmoid()
    matrix = ends * chain.jump_logits.clone().fill_diagonal_(-torch.inf).softmax(-1)
    matrix = (matrix + torch.diag(1.0 - ends.squeeze(-1))).detach()
    markov = MarkovTransition(3, initial=chain.initial_logits.softmax(-1).detach(), matrix=matrix)
    z = torch.randint(3, (20, 9))
    torch.testing.assert_close(chain.log_prob(z), markov.log_prob(z))


@pytest.mark.parametrize("make", [learnable, of_durations])
@pytest.mark.parametrize("K, D", [(1, 2), (2, 3), (3, 2)])
def test_the_expanded_chain_gives_the_evidence_of_enumeration(make, K, D):
    """The forward algorithm over (z, elapsed) and the sum over all K^T paths."""
    chain, T, B = make(K, D), 6, 4
    log_emission, expanded = torch.randn(T, B, K), chain.expanded()
    rows = log_emission.repeat_interleave(D, -1)
    initial, matrix = expanded.initial_logits.exp(), expanded.transition_logits.exp()
    torch.testing.assert_close(matrix.sum(-1), torch.ones(K * D))
    found = markov_log_likelihood(initial.detach(), matrix.detach(), rows).sum(0)
    exact = enumerate_paths(chain, log_emission)
    torch.testing.assert_close(found, exact.log_evidence.detach(), rtol=0, atol=1e-11)

    hmm = to_hmm(chain, emission=dist.Dirichlet(torch.ones(K, 4)).sample())
    x = torch.randint(4, (T, B))
    exact = enumerate_paths(chain, hmm.emission[::D].T.log()[x])
    torch.testing.assert_close(hmm.log_prob(x), exact.log_evidence, rtol=0, atol=1e-11)


def test_a_product_of_chains_becomes_one_hmm():
    """Factorial: the symbols are tuples of states, or any table over them."""
    both = ProductTransition([learnable(2, 2), MarkovTransition(3)])
    z = torch.randint(6, (7, 5))
    shown = to_hmm(both)
    assert shown.num_states == 4 * 3 and shown.num_symbols == 6
    expected = both.log_prob(z.T).sum(-1).detach()
    torch.testing.assert_close(shown.log_prob(z), expected, rtol=0, atol=1e-12)
    table = dist.Dirichlet(torch.ones(6, 4)).sample()
    x = torch.randint(4, (5, 3))
    exact = enumerate_paths(both, table.T.log()[x]).log_evidence
    found = to_hmm(both, emission=table).log_prob(x)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-11)


def problem_of(chain, T, B=64):
    log_emission = 2.0 * torch.randn(T, B, chain.num_states)
    return Problem(chain, log_emission, None, None, None)


@pytest.mark.parametrize("K, T, P", [(2, 5, 2), (3, 4, 3)])
def test_sweeps_leave_the_posterior(K, T, P):
    """Each of 2 p-values above ALPHA."""
    problem = problem_of(learnable(K, 2), T)
    for ancestor_sampling in (0, 1):
        how = {"ancestor_sampling": ancestor_sampling}
        assert one_sweep_p_value(problem, 20_000, P, **how) > ALPHA


def test_particle_gibbs_finds_the_exact_marginals():
    """Stays of exactly three steps, of which the data tell where one of two begins."""
    durations = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    start = torch.tensor([0.5, 0.5])
    jumps = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    chain = SemiMarkovTransition(2, 3, initial=start, jumps=jumps, durations=durations)
    x = torch.tensor([0.3, -0.2, 0.4, 0.1, -0.3, 0.2, 0.5])[:, None].repeat(1, 200)

    def model(x):
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", chain, len(x)):
                pyro.sample("x", dist.Normal(2.0 * z - 1.0, 2.0), obs=x[t])

    pyro.set_rng_seed(1)
    pg = ParticleGibbs(model, num_particles=10)
    pg.run(x, num_samples=40, warmup_steps=5, disable_progbar=True)
    found = pg.get_samples()["z"].double().mean((0, 1))  # (T,)
    rows = dist.Normal(torch.tensor([-1.0, 1.0]), 2.0).log_prob(x[:, :1, None])
    one = chain.expanded()
    hmm = one.initial_logits.exp(), one.transition_logits.exp(), rows.repeat_interleave(3, -1)
    exact = markov_marginals(*hmm)[:, 0].view(-1, 2, 3).sum(-1)[:, 1]
    assert torch.equal(found[:3], found[:1].expand(3)) and torch.allclose(found[3], 1 - found[0])
    # Two paths are possible; 8,000 draws, of which a fourth at least are as good as independent.
    assert (found - exact).abs().max() < 4.5 * (0.25 / 2000) ** 0.5  # fails once in 10^5


def test_learns_how_long_states_last():
    """Stays of 4 steps, by gradients on paths: nearly certain to end at 4, and not before."""
    z = (torch.arange(40) // 4 % 2)[None].repeat(2, 1)
    chain = SemiMarkovTransition(2, 6)
    optim = torch.optim.Adam(chain.parameters(), lr=0.2)
    for _ in range(100):
        optim.zero_grad()
        (-chain.log_prob(z).sum()).backward()
        optim.step()
    hazards = chain.hazard_logits.detach().sigmoid()
    assert (hazards[:, :3] < 0.05).all() and (hazards[:, 3] > 0.95).all()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"initial": torch.ones(2)}, r"initial has shape \(2,\), expected \(3,\); write Semi"),
        ({"durations": torch.ones(3, 4)}, r"durations has shape \(3, 4\), expected \(3, 5\)"),
        ({"durations": -torch.ones(3, 5)}, "durations has a least entry of -1"),
        ({"jumps": torch.ones(3, 3)}, r"numbers on its diagonal, .*fill_diagonal_\(0.0\)"),
    ],
)
def test_refuses(given, message):
    with pytest.raises(ValueError, match=message):
        SemiMarkovTransition(3, 5, **given)


def test_refuses_other_sizes():
    with pytest.raises(ValueError, match="max_duration is 0, expected a whole number of 1"):
        SemiMarkovTransition(3, 0)
    with pytest.raises(ValueError, match="input_size=0 inputs, but inputs were given"):
        learnable().log_prob(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, 1))


def test_to_hmm_refuses_what_is_no_chain():
    with pytest.raises(TypeError, match="one of several chains is a LSTMTransition, expected"):
        to_hmm(ProductTransition([learnable(), LSTMTransition(2, hidden_size=2)]))
    with pytest.raises(ValueError, match="2 inputs per step, so it has no one matrix"):
        to_hmm(ProductTransition([learnable(), MarkovTransition(2, input_size=2)]))
    with pytest.raises(ValueError, match=r"emission has shape \(9, 4\), expected \(3, V\)"):
        to_hmm(learnable(3, 3), emission=torch.full((9, 4), 0.25))
