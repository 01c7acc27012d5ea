"""The sweep against the algorithm written out: in logarithms, one particle after the other.

Both draw the same uniforms, so that paths, ancestors and evidence are the same numbers.
"""

import math

import pytest
import torch

from pyro_ssl.smc import TableEmission, conditional_smc, future
from pyro_ssl.smc.randomness import ANCESTORS, FINAL, LATENTS, REDRAWS, Randomness
from pyro_ssl.transitions import MarkovTransition
from tests.smc.test_future import Leaky
from tests.statistics import random_problem


def draw(log_w, u):
    """The first index at which the cumulative weights exceed u of the total, of a list."""
    w = [math.exp(x - max(log_w)) for x in log_w]
    point, total = u * sum(w), 0.0
    for i, weight in enumerate(w):
        total += weight
        if total > point:
            return i
    return max(i for i, weight in enumerate(w) if weight)


def resampled(log_w, first, u, systematic):
    if not systematic:
        return [draw(log_w, x) if i or first is None else first for i, x in enumerate(u)]
    w, P = [math.exp(x - max(log_w)) for x in log_w], len(log_w)
    u0 = u[0] if first is None else (sum(w[:first]) + u[0] * w[first]) / sum(w)
    return [draw(log_w, (u0 + i / P) % 1.0) if i or first is None else first for i in range(P)]


class Plain:
    """One sweep; arguments as those of :func:`conditional_smc`."""

    def __init__(self, problem, P, path, systematic, every, lag, move, seed):
        self.seed = seed
        self.problem, self.P, self.path = problem, P, path
        self.systematic, self.every, self.lag, self.move = systematic, every, lag, move
        self.table = problem.log_emission
        self.twist = torch.zeros_like(self.table)
        if problem.log_twist is not None:
            self.twist = problem.log_twist

    def log_prior(self, prefix, b):
        """log p(z_t = k | prefix)^s, a list."""
        prefix = torch.tensor([*prefix, 0])
        u = self.problem.inputs
        logits = self.problem.transition.path_logits(
            prefix, None if u is None else u[: len(prefix), b]
        )
        scale = self.problem.transition_scale
        log_p = logits[-1].log_softmax(-1) * (1.0 if scale is None else scale[b])
        return log_p.tolist()

    def log_future(self, prefix, b, start, stop):
        """log p(ref_{start:stop} | prefix and what stands between)."""
        path = [*prefix, *self.path[len(prefix) :, b].tolist()]
        return sum(self.log_prior(path[:s], b)[path[s]] for s in range(start, min(stop, self.end)))

    def run(self):
        T, B, K = self.table.shape
        numbers = Randomness(self.seed, torch.arange(B))
        u_z = numbers.uniform(LATENTS, T, self.P, torch.float64).tolist()
        redraws = []
        if self.path is not None and self.P > 1 and self.every:
            redraws = range(numbers.phase(self.every) or self.every, T, self.every)
        width = 1 if self.systematic else self.P
        u = numbers.uniform(ANCESTORS, T, width, torch.float64).tolist()
        u_redraw = numbers.uniform(REDRAWS, T, 2, torch.float64).mT.tolist()
        u_redraw = {t: u_redraw[t] for t in redraws}
        u_final = numbers.uniform(FINAL, 1, 2, torch.float64)[0].T.tolist()
        lengths = [T] * B if self.problem.lengths is None else self.problem.lengths.tolist()
        prefixes = [[[] for _ in range(self.P)] for _ in range(B)]
        log_w = [[0.0] * self.P for _ in range(B)]
        ancestors, log_z = torch.empty(T, B, self.P).long(), torch.zeros(T, B)
        for t in range(T):
            for b in range(B):
                self.end = lengths[b]
                prefixes[b], log_w[b], a, log_z[t, b] = self.step(
                    t,
                    b,
                    prefixes[b],
                    log_w[b],
                    u_z[t][b],
                    u[t][b],
                    u_redraw.get(t),
                )
                ancestors[t, b] = torch.tensor(a)
        slots = self.final_slots(B, log_w, u_final)
        path = torch.tensor([prefixes[b][slots[b]] for b in range(B)]).T
        for b in range(B):
            path[lengths[b] :, b] = 0
        return path, ancestors, log_z

    def step(self, t, b, prefixes, log_w, u_z, u, u_redraw):
        log_joint = [
            (torch.tensor(self.log_prior(z, b)) + self.table[t, b] + self.twist[t, b]).tolist()
            for z in prefixes
        ]
        log_alpha = [float(torch.tensor(row).logsumexp(0)) for row in log_joint]
        chosen_by = [x + w for x, w in zip(log_alpha, log_w, strict=True)]
        first = None if self.path is None else 0
        if u_redraw is not None:
            first = self.redrawn(t, b, prefixes, log_w, u_redraw[0][b], u_redraw[1][b])
        if t < self.end:
            a = resampled(chosen_by, first, u, self.systematic)
        else:
            a = list(range(self.P))
        z = [draw(log_joint[a[i]], u_z[i]) for i in range(self.P)]
        if self.path is not None:
            z[0] = int(self.path[t, b])
        log_z = float(torch.tensor(chosen_by).logsumexp(0)) - math.log(self.P)
        prefixes = [[*prefixes[a[i]], z[i]] for i in range(self.P)]
        if t >= self.end:
            return prefixes, log_w, a, 0.0
        log_w = torch.tensor([-float(self.twist[t, b, k]) for k in z])
        log_mean = log_w.logsumexp(0) - math.log(self.P)
        return prefixes, (log_w - log_mean).tolist(), a, log_z + float(log_mean)

    def redrawn(self, t, b, prefixes, log_w, u_proposed, u_accepted):
        middle = min(t + self.lag, len(self.table))
        near = [self.log_future(z, b, t, middle) + w for z, w in zip(prefixes, log_w, strict=True)]
        proposed = draw(near, u_proposed)
        far = [self.log_future(prefixes[p], b, middle, len(self.table)) for p in (proposed, 0)]
        return proposed if math.log(u_accepted) < far[0] - far[1] else 0

    def final_slots(self, B, log_w, u):
        move = self.move and self.path is not None and self.P > 1
        if self.problem.log_twist is None:
            return [move + int(u[0][b] * (self.P - move)) for b in range(B)]
        if not move:
            return [draw(log_w[b], u[0][b]) for b in range(B)]
        slots = [1 + draw(log_w[b][1:], u[0][b]) for b in range(B)]
        w = torch.tensor(log_w).exp()
        others = w[:, 1:].sum(-1)
        return [
            slots[b] if u[1][b] * (w[b].sum() - w[b, slots[b]]) < others[b] else 0 for b in range(B)
        ]


DATA = {
    "lstm": {},
    "ragged, inputs": {"ragged": True, "inputs": True},
    "scaled": {"scaled": True, "kind": "mlstm"},
    "twisted": {"twist": "noise", "ragged": True},
    "all at once": {"ragged": True, "inputs": True, "scaled": True, "twist": "chain"},
    "long memory": {"kind": "echo", "concentration": 1.0},
    "chain": {"kind": "markov", "twist": "noise"},
}
SETTINGS = {
    "unconditional": {"path": False},
    "conditional": {},
    "multinomial, free": {"systematic": False, "move": False},
    "ancestors": {"every": 1, "lag": 1},
    "ancestors, later": {"every": 3, "lag": 2, "systematic": False},
    "one particle": {"P": 1, "every": 1},
}


def check(problem, T, P=4, path=True, systematic=True, every=0, lag=4, move=True):
    S = problem.log_emission.shape[1]
    path = torch.randint(3, (T, S)) if path else None
    seed = torch.initial_seed() + 1
    with torch.no_grad():
        expected = Plain(problem, P, path, systematic, every, lag, move, seed).run()
    found = conditional_smc(
        **problem.repeat(1),
        num_particles=P,
        reference=path,
        resampling="systematic" if systematic else "multinomial",
        ancestor_sampling=every,
        proposal_lag=lag,
        forced_move=move,
        seed=seed,
    )
    assert found.path.equal(expected[0]) and found.ancestors.equal(expected[1])
    torch.testing.assert_close(found.log_likelihood, expected[2], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_same_draws_as_written_out(data, settings, T=8):
    check(random_problem(3, T, sharpness=3.0, **data), T, **settings)


@pytest.mark.stage("system")
@pytest.mark.parametrize("marks", [1, 2, 3])
@pytest.mark.parametrize("forget", [1.0, 0.5, 0.0])
def test_same_draws_where_a_transition_may_forget(forget, marks, monkeypatch, T=10):
    """Ancestors redrawn at each step, and prefixes compared after each few."""
    monkeypatch.setattr(future, "MARKS", marks)
    for seed in range(2):
        torch.manual_seed(seed)
        problem = random_problem(3, T, ragged=True, concentration=2.0)
        check(problem._replace(transition=Leaky(forget)), T, every=1, lag=1, move=False)


@pytest.mark.stage("system")
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_where_the_product_underflows(settings, T=8):
    """Data that only states explain which no particle expects: e^-400 of prior and of emission."""
    for seed in range(3):
        torch.manual_seed(seed)
        problem = random_problem(3, T, sharpness=3.0, ragged=True, inputs=True)
        problem.transition.head.weight.data.mul_(400.0)
        table = 400.0 * torch.randn(T, 2, 3)
        table[torch.rand(table.shape) < 0.3] = -torch.inf
        table[..., 0].nan_to_num_(neginf=-900.0)
        check(problem._replace(log_emission=table), T, **settings)


# ----------------------------------------------------------------------------- single precision


def surprised(dtype, expected=0):
    """A state that is expected but for e^-150, and x_t that are unlikely under it by e^-300."""
    chain = MarkovTransition(3).to(dtype).requires_grad_(False)
    for logits in (chain.initial_logits, chain.transition_logits):
        logits.copy_(torch.full((3,), -150.0).index_fill(0, torch.tensor(expected), 0.0))
    table = torch.full((4, 3, 3), -300.0, dtype=dtype)
    table[:, :, 1], table[:, 2] = 0.0, torch.tensor([0.0, -1.0, -2.0], dtype=dtype)
    table[2:, 1] = -torch.inf
    table[2:, 1, 2] = -80.0
    return chain, TableEmission(table)


@pytest.mark.parametrize("conditional", [False, True])
def test_underflow_in_single_precision(conditional):
    """All of it is known: latents are independent, so no weight and no estimate varies."""
    reference = torch.ones(4, 3).long() if conditional else None
    for expected in range(3):
        chain, emission = surprised(torch.float32, expected)
        log_prior = chain.initial_logits.double().log_softmax(-1)
        table = emission.table.double()
        exact = (log_prior + table).logsumexp(-1)
        sweep = conditional_smc(chain, emission, 5, reference, ancestor_sampling=1)
        torch.testing.assert_close(sweep.log_likelihood, exact, rtol=1e-5, atol=1e-5)
        assert torch.allclose(sweep.effective_size, torch.tensor(5.0))
        certain = (log_prior + table).softmax(-1) > 1 - 1e-9
        drawn = sweep.z[:, :, 1:].unsqueeze(-1) == torch.arange(3)
        assert drawn[certain.unsqueeze(2).expand_as(drawn)].all() and certain.any()


def test_no_sequence_depends_on_those_beside_it():
    """Where one has to be summed in logarithms, the figures of the others stay the same bits."""
    chain, emission = surprised(torch.float32)
    alone = conditional_smc(chain, TableEmission(emission.table[:, 2:]), 5)
    beside = conditional_smc(chain, emission, 5)
    assert beside.log_likelihood[:, 2:].equal(alone.log_likelihood)
    assert beside.chosen_by[:, 2:].equal(alone.chosen_by)


def test_a_table_of_any_strides():
    problem = random_problem(3, 5)
    table = torch.randn(3, 5, 4)
    for strided in (table.permute(1, 2, 0), table[:, :, :1].permute(1, 2, 0).expand(5, 4, 3)):
        sweeps = []
        for each in (strided, strided.contiguous()):
            torch.manual_seed(1)
            sweeps.append(conditional_smc(problem.transition, TableEmission(each), 3))
        assert sweeps[0].path.equal(sweeps[1].path)
        assert sweeps[0].log_likelihood.equal(sweeps[1].log_likelihood)
