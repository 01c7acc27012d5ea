r"""Mini SSL: state space LSTMs with particle Gibbs, the whole idea in one file.

.. math:: z_t \sim p(z \mid \mathrm{LSTM}(z_1, \ldots, z_{t-1})), \qquad x_t \sim p(x \mid z_t)

(Zheng et al. 2017, arXiv 1711.11179, eq. 4). What ``minipyro.py`` is to Pyro: the library's names
without its speed, checks and options, for discrete latents and one plate of equally long sequences.
Read it top to bottom; ``python -m pyro_ssl.mini`` runs a demo.

In the library, the transition and its path distribution are in ``transitions/``, the loop in
``primitive.py``, the handler in ``reading/handlers.py``, the sweep in ``smc/sweep.py``,
``smc/ancestors.py`` and ``smc/discrete.py``, and what users call in ``infer/particle_gibbs.py``
and ``infer/stochastic_em.py``.

Letters: T steps, B sequences, P particles, K states, N rows. Paths are ``(B, T)``, data ``(T, B)``.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class LSTMTransition(nn.Module):
    """p(z_t | z_{0:t-1}) = Cat(softmax(W h_t + b)), h_t from an LSTM; z_0 = K starts each path."""

    def __init__(self, num_states, hidden_size):
        super().__init__()
        self.num_states = num_states
        self.cell = nn.LSTMCell(num_states + 1, hidden_size)
        self.head = nn.Linear(hidden_size, num_states)

    def step_logits(self, z_prev, state):
        """Return logits of z_t ``(N, K)`` and s_t = (h, c), from z_{t-1} ``(N,)`` and s_{t-1}."""
        one_hot = nn.functional.one_hot(z_prev, self.num_states + 1).to(self.head.weight.dtype)
        state = self.cell(one_hot, state)
        return self.head(state[0]), state

    def log_prob(self, path, state=None):
        """Return log p(z_i | z_{0:i-1}) ``(N, S)`` for i > t, of a path z_{t:t+S} and s_t."""
        logits = []
        for z_prev in path[:, :-1].unbind(-1):
            logits_t, state = self.step_logits(z_prev, state)
            logits.append(logits_t)
        return dist.Categorical(logits=torch.stack(logits, 1)).log_prob(path[:, 1:])


class PathDistribution(dist.TorchDistribution):
    """p(z_{1:T}), event shape ``(T,)``: one distribution, since the LSTM couples all steps."""

    arg_constraints: dict = {}

    def __init__(self, transition, num_steps, batch_shape=()):
        self.transition = transition
        super().__init__(torch.Size(batch_shape), torch.Size([num_steps]), validate_args=False)

    def expand(self, batch_shape, _instance=None):
        """Return the same distribution over a larger batch, as plates ask for."""
        return PathDistribution(self.transition, self.event_shape[0], batch_shape)

    def log_prob(self, z):
        """Return log p(z_{1:T}), ``(..., T)`` to ``(...)``."""
        path = nn.functional.pad(z.flatten(0, -2), (1, 0), value=self.transition.num_states)
        return self.transition.log_prob(path).sum(-1).view(z.shape[:-1])

    def sample(self, sample_shape=()):
        """Draw paths ``sample_shape + batch_shape + (T,)``: one particle each, which sees no x."""
        shape = torch.Size(sample_shape) + self.batch_shape
        log_emission = self.transition.head.weight.new_zeros(*self.event_shape, shape.numel(), 1)
        path, _ = conditional_smc(self.transition, log_emission, num_particles=1)
        return path.view(shape + self.event_shape)


@pyro.poutine.runtime.effectful(type="ssl_transition")
def ssl_transition(name, transition, num_steps):
    """Loop over time, ``for t, z in ssl_transition(...)``, with a body written as for one step.

    By default the whole path is one sample site, and the body runs once, vectorised over t: so
    all of Pyro can run the model. Handlers may answer otherwise.
    """
    z = pyro.sample(name, PathDistribution(transition, num_steps))  # (B, T)
    with pyro.plate(f"{name}_time", num_steps, dim=-2, device=z.device):
        yield torch.arange(num_steps, device=z.device), z.mT


class StateGrid(pyro.poutine.messenger.Messenger):
    """Puts all K states in place of z: the body becomes a table of log p(x_t | z_t = k)."""

    def _pyro_ssl_transition(self, msg):
        self.name, self.transition, num_steps = msg["args"]
        self.table, device = 0.0, self.transition.head.weight.device
        z = torch.arange(self.transition.num_states, device=device)[:, None, None]  # (K, 1, 1)
        msg["value"], msg["done"] = [(torch.arange(num_steps, device=device), z)], True

    def _pyro_post_sample(self, msg):
        if msg["is_observed"] and len(msg["fn"].batch_shape) == 3:  # it depends on z
            self.table += msg["fn"].log_prob(msg["value"]).permute(1, 2, 0)  # (T, B, K)


@torch.no_grad()
def conditional_smc(transition, log_emission, num_particles, reference=None, ancestor_sampling=0):
    r"""Draw paths ``(B, T)`` in one sweep over the table ``(T, B, K)``; and log evidence ``(B,)``.

    .. math:: \alpha_t = \sum_k p(z_t=k \mid z_{1:t-1}) \, p(x_t \mid z_t=k), \qquad
              \gamma_t(k) = p(z_t=k \mid z_{1:t-1}) \, p(x_t \mid z_t=k) / \alpha_t

    α_t does not depend on z_t: so ancestors are drawn by α_t, then z_t from γ_t of the ancestor,
    and all particles weigh the same; the evidence is then unbiased. A reference ``(B, T)`` is kept
    in slot 0: a sweep from a draw of p(z | x) ends in one, for any P (Andrieu et al. 2010). With
    ancestor sampling its past is redrawn every so many steps (Lindsten et al. 2014).
    """
    (T, B, _), P, K = log_emission.shape, num_particles, transition.num_states
    b = torch.arange(B, device=log_emission.device)[:, None]  # its particles: rows P b to P b + P-1
    path, state, log_evidence = b.new_full((B * P, 1), K), None, 0.0  # z_0 = K
    for t in range(T):
        logits, next_state = transition.step_logits(path[:, -1], state)
        log_joint = logits.log_softmax(-1).view(B, P, K) + log_emission[t, :, None]  # (B, P, K)
        log_alpha = log_joint.logsumexp(-1)  # (B, P)
        log_evidence = log_evidence + log_alpha.logsumexp(-1) - log_alpha.new_tensor(P).log()
        a = log_alpha.softmax(-1).multinomial(P, replacement=True)  # ancestors, (B, P)
        z = log_joint[b, a].softmax(-1).flatten(0, 1).multinomial(1).view(B, P)
        if reference is not None:
            a[:, 0], z[:, 0] = 0, reference[:, t]
            if ancestor_sampling and t and t % ancestor_sampling == 0:
                a[:, 0] = draw_ancestor(transition, path, state, reference[:, t:])
        rows = (P * b + a).flatten()  # (B P,)
        state = tuple(s[rows] for s in next_state)
        path = torch.cat([path[rows], z.view(-1, 1)], -1)
    chosen = P * b + torch.randint(P, (B, 1), device=log_emission.device)
    return path[chosen.flatten(), 1:], log_evidence


def draw_ancestor(transition, path, state, future):
    """Draw which of P paths a reference's future ``(B, T-t)`` goes on from: ∝ p(future | path)."""
    B, P = len(future), len(path) // len(future)
    path = torch.cat([path[:, -1:], future.repeat_interleave(P, 0)], -1)  # (B P, 1+T-t)
    log_w = transition.log_prob(path, state).sum(-1).view(B, P)
    return log_w.softmax(-1).multinomial(1).squeeze(-1)


class ParticleGibbs:
    """A chain of paths with stationary distribution p(z | x): each sweep starts from the last."""

    def __init__(self, model, num_particles=10, ancestor_sampling=10):
        self.model, self.settings, self.path = model, (num_particles, ancestor_sampling), None

    def sweep(self, *args):
        """Make one step of the chain; return its paths by site, ``{name: (B, T)}``."""
        with StateGrid() as grid:
            self.model(*args)
        P, every = self.settings
        self.path, _ = conditional_smc(grid.transition, grid.table, P, self.path, every)
        return {grid.name: self.path}

    def run(self, *args, num_samples):
        """Return so many draws by site, ``{name: (S, B, T)}``."""
        draws = [self.sweep(*args) for _ in range(num_samples)]
        return {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}


class StochasticEM:
    """E-step: draw z from p(z | x) by a sweep. M-step: a gradient step on log p(z, x)."""

    def __init__(self, model, optim, num_particles=10, ancestor_sampling=10):
        self.gibbs = ParticleGibbs(model, num_particles, ancestor_sampling)
        self.model, self.optim = model, optim

    def step(self, *args):
        """Return -log p(z, x) before the gradient step. With z given, SVI needs no guide."""
        given = pyro.poutine.condition(self.model, self.gibbs.sweep(*args))
        svi = pyro.infer.SVI(given, lambda *args: None, self.optim, pyro.infer.Trace_ELBO())
        return svi.step(*args)


def demo(num_steps=60):
    """Learn 0, 0, 1, 1, 2, 2, 0, ... from noisy x; no Markov chain knows when a state ends."""
    pyro.set_rng_seed(0)
    K, T, B = 3, 30, 40
    truth = (torch.arange(T)[:, None] // 2 + torch.randint(K, (B,))) % K  # (T, B)
    x, transition = truth + 0.5 * torch.randn(T, B), LSTMTransition(K, 16)

    def model(x):
        pyro.module("transition", transition)
        loc = pyro.param("loc", torch.tensor([-0.5, 1.0, 2.5]))
        with pyro.plate("sequences", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x)):
                pyro.sample("x", dist.Normal(loc[z], 0.5), obs=x[t])

    em = StochasticEM(model, pyro.optim.Adam({"lr": 0.05}))
    losses = [em.step(x) for _ in range(num_steps)]
    mode = em.gibbs.run(x, num_samples=15)["z"].mode(0).values.T  # (T, B)
    print(f"-log p(z, x) of the paths drawn: {losses[0]:.0f} at first, {losses[-1]:.0f} at last")
    for name, z in {"rounding x_t": x.round().clamp(0, K - 1), "particle Gibbs": mode}.items():
        print(f"states recovered by {name}: {(z == truth).double().mean():.1%}")
    return losses


if __name__ == "__main__":
    demo()
