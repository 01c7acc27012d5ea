"""A Dirichlet site counts what it is the table of, and is refused where it is none, at any call."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_ssl import LSTMTransition, MarkovEM, ssl_transition
from pyro_ssl.errors import LatentSiteError
from tests.faults.digest import nothing_changes
from tests.faults.test_numbers import B, K, T, V, words_model
from tests.infer.test_refusals import CALLS

#: calls that know Dirichlet sites in closed form alone
ESTIMATE = ("MarkovEM.step", "MeanFieldELBO")

NO_TABLE = {
    "squared": words_model(use=lambda phi: phi**2),
    "softmax": words_model(use=lambda phi: phi.softmax(-1)),
    "rows mixed": words_model(use=lambda phi: 0.5 * phi + 0.5 * phi.flip(-2)),
    "floored": words_model(use=lambda phi: phi + 0.1),
    "a Bernoulli's, by one entry": words_model(
        torch.ones(K, 2), emission=lambda phi, z: dist.Bernoulli(phi[z][..., 1] ** 2)
    ),
}


@pytest.mark.parametrize("how", NO_TABLE)
@pytest.mark.parametrize("call", [name for name in CALLS if name.startswith(ESTIMATE)])
def test_a_dirichlet_that_is_no_table_is_refused(how, call):
    words = torch.randint(2, (T, B))
    for _ in range(2):
        with (
            nothing_changes(),
            pytest.raises(LatentSiteError, match='Site "phi": (Dirichlet, but|latent)'),
        ):
            CALLS[call](NO_TABLE[how], words.double() if "Bernoulli" in how else words)


def test_a_refused_dirichlet_stays_refused_and_counts_nothing():
    em = MarkovEM(NO_TABLE["squared"])
    for _ in range(3):
        with pytest.raises(LatentSiteError, match='Site "phi": Dirichlet, but it does not enter'):
            em.step(torch.randint(V, (T, B)))
        assert not em.counts


@pytest.mark.stage("system")
@pytest.mark.parametrize("how", NO_TABLE)
@pytest.mark.parametrize("call", [n for n in CALLS if n.startswith(("Particle", "Stochastic"))])
def test_elsewhere_it_is_a_site_like_any_other(how, call):
    words = torch.randint(2, (T, B))
    CALLS[call](NO_TABLE[how], words.double() if "Bernoulli" in how else words)


def test_a_dirichlet_of_two_entries_as_a_bernoullis():
    """Right, or refused: phi comes near the shares .9 and .1 that each state has."""
    state = (torch.arange(30)[:, None] // 5 + torch.arange(40)) % 2
    shares = torch.tensor([[0.9] * 3 + [0.1] * 3, [0.1] * 3 + [0.9] * 3])
    x = torch.bernoulli(shares[state])
    transition = LSTMTransition(2, 4)

    def model():
        pyro.module("transition", transition)
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(2, 6, 2)).to_event(2))
        with pyro.plate("sequences", 40):
            for t, z in ssl_transition("z", transition, 30):
                pyro.sample("x", dist.Bernoulli(phi[z][..., 1]).to_event(1), obs=x[t])

    em = MarkovEM(model)
    try:
        for _ in range(15):
            em.step()
    except LatentSiteError as error:
        assert 'Site "phi": Dirichlet, but it does not enter' in str(error)
    else:
        found = em.values["phi"][..., 1].sort(0).values
        assert torch.allclose(found, torch.tensor([[0.1], [0.9]]), atol=0.06)
        assert em.counts["phi"].sum().item() == pytest.approx(x.numel(), rel=1e-6)
