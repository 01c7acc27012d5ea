"""The one-file version is exact: against all K^T paths, and against the library."""

import itertools
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.optim import Adam

import pyro_ssl
from pyro_ssl import mini
from pyro_ssl.transitions import PathDistribution
from tests.statistics import ALPHA, by_pairs, chi_square, p_value

K, T = 3, 4
PATHS = torch.tensor(list(itertools.product(range(K), repeat=T)))  # (K^T, T)


def twins(num_states=K, hidden_size=4):
    """The library's transition and mini's, of the same weights; sharp, where wrong sweeps show."""
    library = pyro_ssl.LSTMTransition(num_states, hidden_size)
    for parameter in library.parameters():
        parameter.data.mul_(6.0)
    ours = mini.LSTMTransition(num_states, hidden_size)
    weights = library.state_dict().items()
    ours.load_state_dict({name.replace("lstm.", "").replace("_l0", ""): w for name, w in weights})
    return library, ours


def problem():
    """A transition, its table ``(T, 1, K)``, and log p(z, x) of all paths, by the library."""
    library, ours = twins()
    log_emission = dist.Dirichlet(torch.full((K,), 0.3)).sample((T, 1)).log()
    log_joint = PathDistribution(library, T).log_prob(PATHS).detach()
    for t in range(T):
        log_joint = log_joint + log_emission[t, 0, PATHS[:, t]]
    return ours, log_emission, log_joint


def fit(z, log_p):
    """p-value of paths ``(N, T)`` as draws from the distribution ∝ exp(log_p) over all paths."""
    index = (z * K ** torch.arange(T - 1, -1, -1)).sum(-1)
    return p_value([chi_square(index.bincount(minlength=len(PATHS)), log_p.softmax(-1))])


def body(transition, x, ssl_transition=mini.ssl_transition):
    """A model with a site that does not depend on z, besides the loop."""
    pyro.module("transition", transition)
    loc = pyro.param("loc", torch.tensor([-0.4, 0.3, 1.5]))
    pyro.sample("y", dist.Normal(loc, 1.0).to_event(1), obs=torch.ones(3))
    with pyro.plate("sequences", x.shape[1]):
        for t, z in ssl_transition("z", transition, len(x)):
            pyro.sample("x", dist.Normal(loc[z], 0.5), obs=x[t])


@pytest.mark.stage("system")
@pytest.mark.parametrize(
    "seed, num_particles, ancestor_sampling", by_pairs(range(3), (2, 3), (0, 1))
)
def test_a_sweep_leaves_the_posterior_as_it_is(seed, num_particles, ancestor_sampling):
    pyro.set_rng_seed(seed)
    transition, table, log_joint = problem()
    n = 20_000
    reference = PATHS[log_joint.softmax(-1).multinomial(n, replacement=True)]
    table = table.expand(-1, n, -1)
    z, _ = mini.conditional_smc(transition, table, num_particles, reference, ancestor_sampling)
    assert fit(z, log_joint) > ALPHA
    assert (z != reference).any(-1).double().mean() > 0.02


@pytest.mark.parametrize("ancestor_sampling", [0, 1])
def test_one_particle_returns_the_reference(ancestor_sampling):
    transition, table, _ = problem()
    reference = torch.randint(K, (50, T))
    z, _ = mini.conditional_smc(
        transition, table.expand(-1, 50, -1), 1, reference, ancestor_sampling
    )
    assert z.equal(reference)


def test_ancestor_sampling_moves_the_early_steps():
    transition, table = mini.LSTMTransition(K, 4), torch.zeros(20, 300, K)
    reference = torch.randint(K, (300, 20))
    without, every = (
        mini.conditional_smc(transition, table, 2, reference, n)[0][:, :5] != reference[:, :5]
        for n in (0, 1)
    )
    assert every.double().mean() > 0.2 > 5 * without.double().mean()


@pytest.mark.stage("system")
@pytest.mark.parametrize("num_particles", [1, 2, 5])
def test_the_evidence_is_unbiased(num_particles):
    transition, table, log_joint = problem()
    n = 20_000
    _, log_evidence = mini.conditional_smc(transition, table.expand(-1, n, -1), num_particles)
    ratio = (log_evidence - log_joint.logsumexp(-1)).exp()
    # |z| > 5.5 is seen by chance once in 26 million runs
    assert abs(ratio.mean() - 1.0) < 5.5 * ratio.std() / n**0.5


def test_paths_are_drawn_from_their_distribution():
    library, ours = twins()
    z = mini.PathDistribution(ours, T).expand((100, 2)).sample((100,))
    assert z.shape == (100, 100, 2, T)
    assert fit(z.flatten(0, -2), PathDistribution(library, T).log_prob(PATHS).detach()) > ALPHA


@pytest.mark.stage("system")
def test_a_chain_reaches_the_posterior():
    library, ours = twins()
    x = torch.tensor([0.2, 0.9, -0.3, 0.7])
    loc = torch.tensor([-0.4, 0.3, 1.5])
    gibbs = mini.ParticleGibbs(body, num_particles=5, ancestor_sampling=1)
    z = gibbs.run(ours, x[:, None].expand(-1, 2000), num_samples=12)["z"]
    assert z.shape == (12, 2000, T)
    log_p = PathDistribution(library, T).log_prob(PATHS).detach()
    assert fit(z[-1], log_p + dist.Normal(loc[PATHS], 0.5).log_prob(x).sum(-1)) > ALPHA


def test_a_chain_starts_each_sweep_from_the_last():
    z = mini.ParticleGibbs(body, num_particles=1).run(twins()[1], torch.randn(T, 50), num_samples=3)
    assert (z["z"] == z["z"][0]).all()


def test_the_joint_of_a_trace_is_that_of_the_loop_by_hand():
    _, transition = twins()
    x = torch.randn(6, 2)
    trace = poutine.trace(body).get_trace(transition, x)
    z, loc = trace.nodes["z"]["value"], pyro.param("loc")
    assert z.shape == (2, 6)
    expected = dist.Normal(loc, 1.0).log_prob(torch.ones(3)).sum()
    for b in range(2):
        state = torch.zeros(4), torch.zeros(4)
        z_prev = K
        for t in range(6):
            state = transition.cell(torch.eye(K + 1)[z_prev], state)
            z_prev = z[b, t]
            expected = expected + transition.head(state[0]).log_softmax(-1)[z_prev]
            expected = expected + dist.Normal(loc[z_prev], 0.5).log_prob(x[t, b])
    torch.testing.assert_close(trace.log_prob_sum(), expected, rtol=0.0, atol=1e-12)


def test_the_table_is_the_log_prob_of_the_emission():
    x = torch.randn(6, 2)
    with mini.StateGrid() as grid:
        body(twins()[1], x)
    expected = dist.Normal(pyro.param("loc"), 0.5).log_prob(x[..., None])  # (T, B, K)
    torch.testing.assert_close(grid.table, expected, rtol=0.0, atol=1e-12)


def test_the_library_means_the_same():
    library, ours = twins()
    z, x = torch.randint(K, (5, 6)), torch.randn(6, 5)
    expected = PathDistribution(library, 6).log_prob(z)
    torch.testing.assert_close(mini.PathDistribution(ours, 6).log_prob(z), expected)
    given = poutine.trace(poutine.condition(body, {"z": z}))
    joint = given.get_trace(ours, x).log_prob_sum()
    pyro.clear_param_store()
    expected = given.get_trace(library, x, pyro_ssl.ssl_transition).log_prob_sum()
    torch.testing.assert_close(joint, expected)


def test_the_loss_of_em_is_that_of_the_paths_drawn():
    _, transition = twins()
    x = torch.randn(6, 5)
    em = mini.StochasticEM(body, Adam({"lr": 0.0}))
    losses = [em.step(transition, x) for _ in range(2)]
    given = poutine.condition(body, {"z": em.gibbs.path})
    expected = -poutine.trace(given).get_trace(transition, x).log_prob_sum().item()
    assert losses[-1] == pytest.approx(expected, abs=1e-9)


@pytest.mark.stage("system")
def test_the_demo_learns(capsys):
    losses = mini.demo(num_steps=16)
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    assert "states recovered by particle Gibbs" in capsys.readouterr().out


def test_it_is_one_short_file():
    lines = Path(mini.__file__).read_text().splitlines()
    assert len(lines) < 200
    imports = [line for line in lines if line.lstrip().startswith(("import ", "from "))]
    assert imports and not any("pyro_ssl" in line or "from ." in line for line in imports)
