"""Methods of ``regimes.py``: the model, least squares, exact EM and stochastic EM."""

from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.optim import ClippedAdam
from torch import Tensor, nn

from pyro_ssl import MarkovEM, MarkovTransition, StochasticEM, ssl_transition
from pyro_ssl.exact import markov_marginals
from pyro_ssl.steps import lagged
from pyro_ssl.transitions import DiscreteTransition

__all__ = ["D", "Dynamics", "Fitted", "K", "markov", "regimes", "regressions", "stochastic"]

K, D = 3, 2


class Dynamics(NamedTuple):
    """A ``(K, D, D)``, b and R's roots ``(K, D)``."""

    matrix: Tensor
    offset: Tensor
    scale: Tensor

    def mean(self, previous: Tensor, z: Tensor) -> Tensor:
        """E x_t: x_{t-1} ``(..., D)`` and z ``(...)`` to ``(..., D)``."""
        return (self.matrix[z] @ previous.unsqueeze(-1)).squeeze(-1) + self.offset[z]

    def table(self, x: Tensor) -> Tensor:
        """log p(x_t | x_{t-1}, z_t = k), ``(T, B, K)``; 0 at the first step."""
        previous, known = lagged(x)
        mean = self.mean(previous.unsqueeze(-2), torch.arange(len(self.offset)))
        log_p = dist.Normal(mean, self.scale).log_prob(x.unsqueeze(-2)).sum(-1)
        return torch.where(known.all(-1, keepdim=True), log_p, 0.0)


#: regimes' transition, and what each does
Fitted = tuple[nn.Module, Dynamics]


def regressions(x: Tensor, weight: Tensor) -> Dynamics:
    """Least squares of x_t on (x_{t-1}, 1) for each regime, its steps weighed: ``(T, B, K)``."""
    previous, known = lagged(x)
    u = torch.cat([previous, torch.ones_like(previous[..., :1])], -1)
    w = weight * known.all(-1, keepdim=True)
    uu = torch.einsum("tbk,tbi,tbj->kij", w, u, u) + 1e-3 * torch.eye(D + 1)
    found = torch.linalg.solve(uu, torch.einsum("tbk,tbi,tbj->kij", w, u, x)).mT  # (K, D, D + 1)
    error = (x.unsqueeze(-2) - torch.einsum("kij,tbj->tbki", found, u)).square()
    variance = (w.unsqueeze(-1) * error).sum((0, 1)) / w.sum((0, 1)).clamp(min=1.0).unsqueeze(-1)
    return Dynamics(found[..., :D], found[..., D], (variance + 1e-4).sqrt())


def by_pieces(x: Tensor, piece: int = 4, num_steps: int = 30) -> Dynamics:
    """Regressions, and which pieces of a few steps each explains best, in turn."""
    pieces = torch.arange(len(x)) // piece
    z = torch.randint(K, (int(pieces[-1]) + 1, x.shape[1]))
    for _ in range(num_steps):
        dynamics = regressions(x, nn.functional.one_hot(z[pieces], K).to(x.dtype))
        total = torch.zeros(*z.shape, K).index_add_(0, pieces, dynamics.table(x))
        z = total.argmax(-1)
    return dynamics


def regimes(x: Tensor, transition: nn.Module, dynamics: Dynamics | None = None) -> None:
    """The model; its dynamics are parameters unless given."""
    pyro.module("transition", transition)
    law = dynamics or Dynamics(*(pyro.param(name) for name in Dynamics._fields))
    previous, known = lagged(x)
    with pyro.plate("series", x.shape[1]):
        for t, z in ssl_transition("z", transition, len(x)):
            step = dist.Normal(law.mean(previous[t], z), law.scale[z]).to_event(1)
            pyro.sample("x", step.mask(known[t].all(-1)), obs=x[t])


def markov(x: Tensor, num_steps: int) -> tuple[Dynamics, MarkovEM]:
    """Exact EM: the chain and the dynamics in turn, each given what the other makes likely."""
    dynamics = by_pieces(x)
    chain = torch.ones(K) / K, torch.full((K, K), 0.05) + 0.85 * torch.eye(K)
    hmm = MarkovEM(lambda x: regimes(x, MarkovTransition(K), dynamics)).start_from(*chain)
    for _ in range(num_steps):
        hmm.step(x)
        dynamics = regressions(x, markov_marginals(hmm.initial, hmm.matrix, dynamics.table(x)))
    return dynamics, hmm


def stochastic(
    x: Tensor,
    transition: DiscreteTransition,
    start: Dynamics,
    hmm: MarkovEM | None,
    *,
    num_steps: int,
    rate: float,
    num_particles: int,
) -> Fitted:
    """Stochastic EM by particle Gibbs, from what exact EM found if that is given."""
    pyro.clear_param_store()
    for name, value in start._asdict().items():
        positive = name == "scale"
        pyro.param(name, value, dist.constraints.positive if positive else dist.constraints.real)
    optim = ClippedAdam({"lr": rate, "lrd": 0.1 ** (1 / num_steps)})
    em = StochasticEM(lambda x: regimes(x, transition), optim, num_particles=num_particles)
    if hmm is not None:
        em.start_from(hmm, x, transition_steps=100)
    for _ in range(num_steps):
        em.step(x)
    return transition, Dynamics(*(pyro.param(name).detach() for name in Dynamics._fields))
