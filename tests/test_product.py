"""Kinds of latents x other latent sites x parameters or none x lengths x masks, in one world.

What is the same for all is asserted for all: the joint is that of Pyro's own trace, every inference
class runs, what is padded or masked adds nothing, counts are those of the paths, chains move.
"""

import itertools
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI
from pyro.optim import Adam

from pyro_ssl import (
    GaussianLSTMTransition,
    LSTMTransition,
    MarkovEM,
    MarkovTransition,
    MeanFieldELBO,
    MeanFieldGuide,
    ParticleFilter,
    ParticleGibbs,
    StochasticEM,
    ssl_transition,
)
from pyro_ssl.exact import enumerate_paths
from pyro_ssl.reading import Program
from pyro_ssl.steps import steps_within
from pyro_ssl.transitions import GaussianTransition, LinearGaussianTransition, Moments

T, B, K, V, D = 5, 3, 2, 4, 2


class Walk(GaussianTransition):
    """A standard random walk: no parameter, no buffer."""

    def initial_state(self, batch_shape):
        return ()

    def step_moments(self, z_prev, state, inputs=None):
        one = torch.ones(self.dim, dtype=self.like.dtype, device=self.like.device)
        return Moments(0.0 * one if z_prev is None else z_prev, one), state


def given_walk():
    return LinearGaussianTransition(
        D,
        matrix=0.9 * torch.eye(D),
        offset=torch.zeros(D),
        scale=torch.ones(D),
        initial_mean=torch.zeros(D),
        initial_scale=torch.ones(D),
    )


STATES = {
    "parameters": lambda: LSTMTransition(K, 4),
    "buffers": lambda: MarkovTransition(
        K, initial=torch.ones(K) / K, matrix=torch.tensor([[0.8, 0.2], [0.3, 0.7]])
    ),
}
VECTORS = {
    "parameters": lambda: GaussianLSTMTransition(D, 4),
    "buffers": given_walk,
    "nothing": lambda: Walk(D),
}
SITES = ("none", "beside", "emission", "transition")
LENGTHS = {"none": None, "ragged": torch.tensor([5, 2, 0], device="cpu")}
MASKS = ("none", "step", "sequence")


def worlds():
    """All combinations that there are."""
    for kind in ("states", "linear", "counts"):
        owned = STATES if kind == "states" else VECTORS
        for names in itertools.product(owned, SITES, LENGTHS, MASKS):
            if kind != "states" and names[1] in ("emission", "transition"):
                continue  # a vector is no index
            if names[1] == "transition" and names[0] != "buffers":
                continue  # sampled rows take the place of parameters
            yield (kind, *names)


class World:
    """One model of the product, with its data."""

    def __init__(self, kind, owned, site, lengths, mask):
        torch.manual_seed(0)
        self.kind, self.site, self.lengths = kind, site, LENGTHS[lengths]
        self.transition = (STATES if kind == "states" else VECTORS)[owned]()
        self.words, self.x = torch.randint(V, (T, B)), torch.randn(T, B)
        self.x_count = torch.randint(3, (T, B)).double()
        self.rows = torch.rand(K, V) + 0.1
        self.mask = {
            "none": None,
            "step": torch.arange(T * B).reshape(T, B) % 3 != 0,
            "sequence": torch.tensor([False, True, True]),
        }[mask]

    def observed(self):
        """Cells within the lengths and not masked, ``(T, B)``."""
        seen = torch.ones(T, B, dtype=torch.bool)
        if self.lengths is not None:
            seen = seen & steps_within(self.lengths, T)
        return seen if self.mask is None else seen & self.mask

    def model(self):
        transition = self.transition
        if self.site == "transition":
            rows = pyro.sample("rows", dist.Dirichlet(torch.ones(K, K)).to_event(1))
            transition = MarkovTransition(K, initial=torch.ones(K) / K, matrix=rows)
        elif any(True for _ in transition.parameters()):
            pyro.module("transition", transition)
        if self.site in ("beside", "emission"):
            shape = (K, V) if self.site == "emission" else (V,)
            phi = pyro.sample("phi", dist.Dirichlet(torch.ones(shape)).to_event(len(shape) - 1))
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", transition, T, lengths=self.lengths):
                mask = self.mask
                if mask is not None and mask.dim() == 2:
                    mask = mask[t]
                with poutine.mask(mask=True if mask is None else mask):
                    if self.kind == "states":
                        rows = phi if self.site == "emission" else self.rows
                        pyro.sample("x", dist.Categorical(rows[z]), obs=self.words[t])
                    elif self.kind == "linear":
                        pyro.sample("x", dist.Normal(z.sum(-1), 0.5), obs=self.x[t])
                    else:
                        rate = z.sum(-1).clamp(max=5.0).exp()
                        pyro.sample("x", dist.Poisson(rate), obs=self.x_count[t])
                    if self.site == "beside":
                        pyro.sample("y", dist.Categorical(phi), obs=self.words[t])

    def counts(self, paths):
        """Counts that the Dirichlet site has in paths ``(B, T)``."""
        seen = self.observed()
        if self.site == "beside":
            return {"phi": self.words[seen].bincount(minlength=V).double()}
        if self.site == "emission":
            cells = (paths.T * V + self.words)[seen]
            return {"phi": cells.bincount(minlength=K * V).reshape(K, V).double()}
        within = self.observed() if self.lengths is None else steps_within(self.lengths, T)
        within = torch.ones(T, B, dtype=torch.bool) if self.lengths is None else within
        moves = (paths.T[:-1] * K + paths.T[1:])[within[1:]]
        return {"rows": moves.bincount(minlength=K * K).reshape(K, K).double()}


def some_and_all():
    """Every fifth combination is among the unit tests; no axis has five values, or a multiple."""
    later = pytest.mark.stage("statistical")
    return [
        pytest.param(names, marks=later if i % 5 else (), id="-".join(names))
        for i, names in enumerate(worlds())
    ]


@pytest.fixture(params=some_and_all())
def world(request):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield World(*request.param)


def test_joint_is_that_of_the_trace(world):
    run = Program(world.model).run()
    path = run.any_path()
    if world.lengths is not None:
        past = ~steps_within(world.lengths, T)
        path = path.masked_fill(past.reshape(past.shape + (1,) * (path.dim() - 2)), 0)
    given = {n: s["value"] for n, s in run.sites.items() if not s["is_observed"]}
    given["z"] = run.unflatten(path)
    trace = poutine.trace(poutine.condition(world.model, given)).get_trace()
    found, expected = run.log_joint(path), trace.log_prob_sum().double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.stage("system")
def test_every_class_runs_and_counts_what_it_saw(world):
    em = StochasticEM(world.model, Adam({"lr": 0.01}), 4, ancestor_sampling=2)
    for _ in range(2):
        assert torch.tensor(em.step()).isfinite()
    path = em.paths
    event = world.transition.event_shape
    assert path.shape == (B, T, *event)
    if world.lengths is not None:
        assert not path[~steps_within(world.lengths, T, time_first=False)].any()
    if world.site != "none":
        for name, n in world.counts(path).items():
            torch.testing.assert_close(em.counts[name], n, rtol=0, atol=1e-6)

    log_p = ParticleFilter(em.fitted_model, 5).log_likelihood()
    assert log_p.shape == (T, B) and log_p.isfinite().all()
    if world.site != "beside":  # y is scored wherever it is seen; x alone adds what z explains
        assert (log_p[~world.observed()].abs() < 1e-9).all()

    sampler = ParticleGibbs(world.model, 4, ancestor_sampling=2)
    sampler.run(num_samples=3, num_chains=2, disable_progbar=True)
    draws = sampler.get_samples(group_by_chain=True)
    z = draws.pop("z")
    assert z.shape == (2, 3, B, T, *event) and (z[:, 0] != z[:, -1]).any()
    for value in draws.values():
        torch.testing.assert_close(value.sum(-1), torch.ones(value.shape[:-1]))
    fixed = poutine.condition(world.model, {name: value[0, -1] for name, value in draws.items()})
    assert ParticleGibbs(fixed, 3).sweep(z[0, -1]).shape == (B, T, *event)


@pytest.mark.parametrize(
    "names", [w for w in worlds() if w[0] == "states" and w[2] != "transition"][::2], ids="-".join
)
def test_baselines_over_states(names):
    world = World(*names)
    hmm, guide = MarkovEM(world.model, smoothing=0.0), MeanFieldGuide(world.model)
    losses = [hmm.step() for _ in range(2)]
    assert world.site != "none" or losses[1] <= losses[0] + 1e-6  # else the prior counts too
    log_p = hmm.log_likelihood()
    assert log_p.shape == (T, B) and log_p.isfinite().all()
    svi = SVI(world.model, guide, Adam({"lr": 0.05}), loss=MeanFieldELBO(2))
    assert torch.tensor([svi.step() for _ in range(2)]).isfinite().all()
    assert guide.marginals().shape == (T, B, K)


@pytest.mark.parametrize("names", [w for w in worlds() if w[:3:2] == ("states", "none")])
def test_evidence_is_enumerations(names):
    """The mean of Ẑ over 4,000 filters: |z| < 5, a false alarm once in 1.7 million."""
    world = World(*names)
    run = Program(world.model).run()
    exact = enumerate_paths(run.transition, run.grid.table(), lengths=run.grid.lengths)
    wide = World(*names)
    n = 4_000
    wide.words = wide.words.repeat(1, n)
    wide.lengths = None if wide.lengths is None else wide.lengths.repeat(n)
    wide.mask = None if wide.mask is None else wide.mask.repeat(*(1,) * (wide.mask.dim() - 1), n)
    wide.transition = world.transition

    def model():
        with pyro.plate("sequences", B * n):
            for t, z in ssl_transition("z", wide.transition, T, lengths=wide.lengths):
                mask = wide.mask[t] if wide.mask is not None and wide.mask.dim() == 2 else wide.mask
                with poutine.mask(mask=True if mask is None else mask):
                    pyro.sample("x", dist.Categorical(wide.rows[z]), obs=wide.words[t])

    ratio = ParticleFilter(model, 3).log_evidence().reshape(n, B) - exact.log_evidence
    ratio = ratio.exp()
    error = ratio.std(0) / n**0.5
    assert ((ratio.mean(0) - 1.0).abs() <= 5 * error + 1e-9).all()
