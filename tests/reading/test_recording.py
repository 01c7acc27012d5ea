"""A sweep whose body was recorded gives the draws of one that asks the body itself."""

import math
import re

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from pyro_ssl import ssl_transition
from pyro_ssl.reading import Program, asks, read_emission, sweep_in_loop
from pyro_ssl.smc import QuadraticEmission, conditional_smc
from pyro_ssl.transitions import GaussianLSTMTransition

T, B, D, P = 9, 4, 2, 6


class World:
    """Data, and a model whose body is given."""

    def __init__(self, dtype=torch.float64, seed=0):
        torch.manual_seed(seed)
        self.transition = GaussianLSTMTransition(D, 5, residual=True, min_scale=0.2).to(dtype)
        self.reference = torch.randn(T, B, D, dtype=dtype)
        self.x = self.reference + 0.3 * torch.randn(T, B, D, dtype=dtype)
        self.n = torch.poisson(self.reference.exp())
        self.symbol = torch.randint(5, (T, B))
        self.seen = torch.rand(T, B) < 0.7
        self.decoder = torch.nn.Sequential(
            torch.nn.Linear(D, 7), torch.nn.LayerNorm(7), torch.nn.Tanh(), torch.nn.Linear(7, D)
        ).to(dtype)
        self.loading = torch.randn(D, 5, dtype=dtype)
        self.lengths, self.met = None, 0

    def model(self, body):
        def model():
            with pyro.plate("sequences", B):
                loop = ssl_transition("z", self.transition, T, lengths=self.lengths)
                for t, z in loop:
                    self.met += 1
                    body(self, t, z)

        return model

    def sweep(self, body, *, chains=1, twisted=False, condition=None):
        model = self.model(body)
        if condition is not None:
            model = pyro.condition(model, {"x": condition})
        run = Program(model).run()
        emission, reference = read_emission(run), self.reference
        if chains > 1:
            emission = emission.beside([emission] * (chains - 1))
            reference = torch.cat([reference + i for i in range(chains)], 1)
        twist = self.twist(chains * B) if twisted else None
        return conditional_smc(self.transition, emission, P, reference, seed=3, twist=twist)

    def twist(self, rows):
        like = self.reference.new_ones
        last = (torch.arange(T) < T - 1).to(self.reference).view(T, 1)
        precision = 0.1 * torch.eye(D, dtype=self.reference.dtype).expand(T, rows, D, D)
        parts = (like(T, rows, D), like(T, rows) * last, 0.2 * like(T, rows, D) * last[..., None])
        return QuadraticEmission(*parts, precision * last[..., None, None])


@pytest.fixture
def asked(monkeypatch):
    """What the sweeps of a test asked, in order."""
    found = []

    class Spy(asks.BodyAsks):
        def __init__(self, *args):
            super().__init__(*args)
            found.append(self)

    monkeypatch.setattr(sweep_in_loop, "BodyAsks", Spy)
    return found


def both(world, body, monkeypatch, **options):
    """A sweep as it is, and one of the same numbers that asks the body at every step."""
    one = world.sweep(body, **options)
    with monkeypatch.context() as patch:
        patch.setattr(asks, "WORTH", 10**9)
        other = world.sweep(body, **options)
    return one, other


def same(one, other):
    assert torch.equal(one.ancestors, other.ancestors)
    tolerance = 1e-4 if one.z.dtype == torch.float32 else 1e-9
    torch.testing.assert_close(one.z, other.z, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(
        one.log_likelihood, other.log_likelihood, rtol=tolerance, atol=tolerance
    )


def see(fn, value, name="x"):
    pyro.sample(name, fn, obs=value)


class Cube(torch.autograd.Function):
    """A function of the user's own, that cannot be vectorised."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z**3

    @staticmethod
    def backward(ctx, grad):
        (z,) = ctx.saved_tensors
        return 3.0 * z**2 * grad


def scaled(w, t, z):
    with poutine.scale(scale=0.5):
        see(dist.Poisson(z.exp()).to_event(1), w.n[t])


def branching(w, t, z):
    if bool((z > -100.0).all()):
        see(dist.Poisson(z.exp()).to_event(1), w.n[t])


def mixture(w, t, z):
    spread = torch.stack([0.2 + 0 * z, 1.0 + 0 * z], -1)
    weights = dist.Categorical(torch.tensor([0.6, 0.4], dtype=z.dtype))
    parts = dist.Normal(z.unsqueeze(-1), spread)
    see(dist.MixtureSameFamily(weights, parts).to_event(1), w.x[t])


BODIES = {
    "counts": lambda w, t, z: see(dist.Poisson(z.exp()).to_event(1), w.n[t]),
    "signs": lambda w, t, z: see(dist.Bernoulli(logits=z).to_event(1), (w.x[t] > 0).to(z.dtype)),
    "chances": lambda w, t, z: see(
        dist.Bernoulli(z.sigmoid()).to_event(1), (w.x[t] > 0).to(z.dtype)
    ),
    "outliers": lambda w, t, z: see(dist.StudentT(3.0, z, 0.3).to_event(1), w.x[t]),
    "words": lambda w, t, z: see(dist.Categorical(logits=z @ w.loading), w.symbol[t]),
    "decoder": lambda w, t, z: see(dist.Normal(w.decoder(z), 0.5).to_event(1), w.x[t]),
    "failures": lambda w, t, z: see(dist.NegativeBinomial(4.0, logits=z).to_event(1), w.n[t]),
    "sizes": lambda w, t, z: see(dist.Gamma(2.0, z.exp()).to_event(1), w.x[t].abs() + 0.1),
    "correlated": lambda w, t, z: see(
        dist.MultivariateNormal(z.sin(), torch.eye(D, dtype=z.dtype) + 0.3), w.x[t]
    ),
    "missing": lambda w, t, z: see(dist.Poisson(z.exp()).to_event(1).mask(w.seen[t]), w.n[t]),
    "two sites": lambda w, t, z: (
        see(dist.Poisson(z.exp()).to_event(1), w.n[t]),
        see(dist.Normal(z.sin(), 0.5).to_event(1), w.x[t], "y"),
    ),
    "two steps": lambda w, t, z: see(
        dist.StudentT(3.0, z + 0.1 * w.x[(t - 1).clamp(min=0)], 0.5).to_event(1), w.x[t]
    ),
    "a number of the step": lambda w, t, z: see(
        dist.Poisson((z * (1 + t.view(-1, 1, 1))).div(T).exp()).to_event(1), w.n[t]
    ),
    "scaled": scaled,
    "a branch that holds": branching,
    "mixture": mixture,
    "own function": lambda w, t, z: see(dist.Normal(Cube.apply(z), 1.0).to_event(1), w.x[t]),
}


@pytest.mark.stage("system")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", BODIES)
def test_same_draws_as_the_body_itself(name, dtype, asked, monkeypatch):
    world = World(dtype)
    same(*both(world, BODIES[name], monkeypatch))
    assert [a.refused for a in asked] == [None, "few steps"]


@pytest.mark.parametrize(
    "options", [{"chains": 3}, {"twisted": True}, {"chains": 2, "twisted": True}], ids=str
)
@pytest.mark.parametrize("ragged", [False, True])
def test_same_draws_of_chains_and_twists(options, ragged, asked, monkeypatch):
    world = World()
    if ragged:
        world.lengths = torch.tensor([T, 3, 1, 5])
    same(*both(world, BODIES["counts"], monkeypatch, **options))
    assert asked[0].refused is None


def test_same_draws_of_values_from_outside(asked, monkeypatch):
    world = World()

    def body(w, t, z):
        pyro.sample("x", dist.Poisson(z.exp()).to_event(1))

    same(*both(world, body, monkeypatch, condition=world.n))
    assert asked[0].refused is None


def test_the_body_runs_once():
    world = World()
    world.sweep(BODIES["counts"])
    assert world.met == 2  # to be read, and to be recorded


# -------------------------------------------------------------- what cannot be played again


def in_place(w, t, z):
    rate = torch.zeros_like(z)
    rate[..., 0] = z[..., 0]
    rate[..., 1] = z[..., 1]
    see(dist.Poisson(rate.exp()).to_event(1), w.n[t])


def through_a_view(w, t, z):
    rate = torch.zeros_like(w.x[:1])
    seen = rate[0]
    rate.add_(z.detach().mean() * 0.0)
    see(dist.Poisson((z + seen).exp()).to_event(1), w.n[t])


def by_numpy(w, t, z):
    rate = np.exp(z.detach().numpy())
    see(dist.Poisson(torch.as_tensor(rate)).to_event(1), w.n[t])


def by_lists(w, t, z):
    rate = torch.tensor([math.exp(v) for v in z.flatten().tolist()], dtype=z.dtype)
    see(dist.Poisson(rate.view(z.shape)).to_event(1), w.n[t])


def by_number(w, t, z):
    """Right, for it adds nothing but zero, and not to be told from what is wrong."""
    see(dist.Poisson((z + 0.0 * z.max().item()).exp()).to_event(1), w.n[t])


def by_mask(w, t, z):
    log_rate = torch.zeros_like(z).masked_scatter(z < 50.0, z[z < 50.0])
    see(dist.Poisson(log_rate.exp()).to_event(1), w.n[t])


def at_random(w, t, z):
    """Noise that changes nothing, and not to be told from what does."""
    noise = torch.rand((), dtype=z.dtype, generator=torch.Generator().manual_seed(1))
    see(dist.Poisson((z + 0.0 * noise).exp()).to_event(1), w.n[t])


REFUSED = {
    "in place": (in_place, "in place"),
    "through a view": (through_a_view, "in place"),
    "numpy": (by_numpy, "not seen to depend|out of torch"),
    "lists": (by_lists, "not seen to depend|out of torch"),
    "a number": (by_number, "returns a number"),
    "a mask": (by_mask, "depends on numbers"),
    "random": (at_random, "random numbers"),
}


@pytest.mark.filterwarnings("ignore:.*no finite first and second derivative")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_asks_the_body(name, asked, monkeypatch):
    body, why = REFUSED[name]
    world = World()
    one, other = both(world, body, monkeypatch)
    same(one, other)
    assert asked[0].replay is None and re.search(why, asked[0].refused)


def test_what_was_another_function_before_the_sweep_is_refused(asked, monkeypatch):
    """A branch by Python's own state: as the body answers, so it is."""
    world = World()

    def body(w, t, z):
        power = 1.0 if t.numel() == T else 0.5
        see(dist.Poisson((power * z).exp()).to_event(1), w.n[t])

    same(*both(world, body, monkeypatch))
    assert asked[0].refused == "a replay differs from the body"


def clamped(w, t, z):
    see(dist.Poisson(z.clamp(-1.0, 1.0).exp()).to_event(1), w.n[t])


def clamped_where_needed(w, t, z):
    """The same law, by control flow on numbers."""
    log_rate = z.clamp(-1.0, 1.0) if bool((z.abs() > 1.0).any()) else z
    see(dist.Poisson(log_rate.exp()).to_event(1), w.n[t])


def large_counts_apart(w, t, z):
    """The same, by control flow on the data."""
    if bool((w.n[t] > 3.0).any()):
        clamped(w, t, z)
    else:
        see(dist.Poisson(z.clamp(-1.0, 1.0).exp()).to_event(1), w.n[t])


@pytest.mark.parametrize("body", [clamped_where_needed, large_counts_apart])
@pytest.mark.parametrize("shift", [-3.0, 0.0])
def test_control_flow_on_numbers_is_met_as_it_is(body, shift, monkeypatch):
    world = World()
    world.reference = 0.1 * world.reference + shift
    one = world.sweep(body)
    monkeypatch.setattr(asks, "WORTH", 10**9)
    same(one, world.sweep(clamped))


def test_arguments_that_become_invalid_raise_as_without_a_recording(asked, monkeypatch):
    world = World()
    world.transition.initial_mean.data.fill_(0.0)
    world.reference[4:] += 100.0

    def body(w, t, z):
        see(dist.StudentT(4.0, z, 6.0 - z.mean(-1, keepdim=True)).to_event(1), w.x[t])

    for worth in (1, 10**9):
        monkeypatch.setattr(asks, "WORTH", worth)
        with pytest.raises(ValueError, match="scale"):
            world.sweep(body)
    assert asked[0].replay is not None


@pytest.mark.parametrize("when", [2, 3])
def test_an_error_in_the_body_leaves_torch_as_it_was(when):
    world = World()

    def body(w, t, z):
        if w.met == when:
            raise OverflowError("mine")
        by_lists(w, t, z)

    with pytest.raises(OverflowError) as kept:
        world.sweep(body)
    assert kept.tb is not None  # it keeps the body's frames
    assert not _get_current_dispatch_mode_stack()
    assert not _get_current_function_mode_stack()
    assert torch.is_grad_enabled()


def test_derivatives_that_were_not_seen_are_refused(asked, monkeypatch):
    """A recording must not take them for constants."""
    right = asks.derivatives

    def unseen(values, point, *, at_once=False):
        value, *others = right(values, point, at_once=at_once)
        return asks.Expansion(value, *(torch.zeros_like(v).fill_(2.0) for v in others))

    monkeypatch.setattr(asks, "derivatives", unseen)
    World().sweep(BODIES["counts"])
    assert asked[0].replay is None and asked[0].refused is not None
