"""Right bodies are taken by every class and read right; the wrong ones beside them are refused.

Each right body stands beside ``cell``, log p(x_t | z_t = k) of one sequence and step by hand, with
scalars. All K^T paths of these give the joint, evidence and ELBO that every class must find.
"""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI
from pyro.optim import Adam
from torch.nn import functional as F

from pyro_ssl import (
    MarkovEM,
    MarkovTransition,
    MeanFieldELBO,
    MeanFieldGuide,
    ParticleFilter,
    ParticleGibbs,
    StochasticEM,
    ssl_transition,
)
from pyro_ssl.errors import EmissionNotLocalError
from pyro_ssl.reading import Program
from pyro_ssl.transitions import LinearGaussianTransition
from tests.faults.digest import nothing_changes

#: K, T, B, D: all alike, where no shape tells one from another, and all different
SIZES = {"alike": (3, 3, 3, 3), "different": (2, 4, 3, 5)}

#: sizes, and whether Pyro validates
SETTINGS = [("alike", True), ("different", True), ("alike", False)]


class World:
    """Parameters and data that bodies take what they need from."""

    def __init__(self, sizes, *, memory=True):
        torch.manual_seed(0)
        self.K, self.T, self.B, self.D = K, T, B, D = SIZES[sizes]
        self.initial = dist.Dirichlet(torch.ones(K)).sample()
        rows = dist.Dirichlet(torch.ones(K, K)).sample()
        self.matrix = rows if memory else self.initial.expand(K, K)
        self.transition = MarkovTransition(K, initial=self.initial, matrix=self.matrix)
        self.x, self.y, self.positive = torch.randn(T, B), torch.randn(T, B, D), torch.rand(T, B)
        self.before = torch.cat([torch.zeros(1, B), self.x[:-1]])
        self.n, self.bits = torch.randint(4, (T, B)), torch.randint(2, (T, B, D)).double()
        self.trials = self.n + torch.randint(3, (T, B))
        self.bag, self.word = torch.randint(3, (T, B, D)), torch.randint(D, (T, B))
        self.shares = dist.Dirichlet(torch.ones(D)).sample((T, B))
        self.covariates, self.season = torch.randn(T, B, D), torch.randn(T)
        self.seen = torch.arange(T * B).reshape(T, B) % 3 != 1
        self.loc, self.spread, self.rows = torch.randn(K), torch.rand(K) + 0.5, torch.randn(K, D)
        self.phi = torch.randn(K, D).softmax(-1)
        self.tril = torch.randn(K, D, D).tril(-1) + torch.eye(D)
        self.slope, self.offset = torch.randn(D), torch.randn(B)
        self.cuts = torch.arange(D - 1.0) - 1.0
        self.decoder = torch.nn.Sequential(torch.nn.Linear(K, 4), torch.nn.Tanh())
        self.decoder.append(torch.nn.Linear(4, D)).append(torch.nn.Dropout()).eval()

    def model(self, body):
        def model():
            with pyro.plate("sequences", self.B):
                for t, z in ssl_transition("z", self.transition, self.T):
                    body(self, t, z)

        return model


def see(fn, value, name="x"):
    pyro.sample(name, fn, obs=value)


def masked(w, t, z):
    with poutine.mask(mask=w.seen[t]):
        see(dist.Normal(w.loc[z], 0.5), w.x.masked_fill(~w.seen, math.nan)[t])


def two_sites(w, t, z):
    see(dist.Poisson(w.spread[z]), w.n.double()[t])
    with poutine.mask(mask=w.seen[t]), poutine.scale(scale=0.3):
        see(dist.Normal(w.rows[z], 0.7).to_event(1), w.y[t], "y")


def scaled(w, t, z):
    with poutine.scale(scale=w.positive[t]):
        see(dist.Normal(w.loc[z], 0.5), w.x[t])


def censored(w, t, z):
    rest = dist.Normal(w.loc[z], 1.0)
    above = (1.0 - rest.cdf(torch.zeros(()))).log()
    pyro.factor("x", torch.where(w.x[t] < 0, rest.log_prob(w.x[t]), above))


def registered(w, t, z):
    pyro.module("decoder", w.decoder)
    out = w.decoder(F.one_hot(z, w.K).to(w.x.dtype))
    see(dist.Normal(out, 0.7).to_event(1), w.y[t])


def by_parameter(w, t, z):
    weight = pyro.param("weight", w.rows.clone())
    see(dist.Categorical(logits=weight[z]), w.word[t])


def deterministic(w, t, z):
    rate = pyro.deterministic("rate", w.spread[z])
    see(dist.Poisson(rate), w.n.double()[t])


def normal(value, loc, scale):
    return torch.distributions.Normal(loc, scale).log_prob(value)


def poisson(n, rate):
    return n * rate.log() - rate - math.lgamma(n + 1)


def cdf(x):
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def between(w, k, n, link):
    """P(cut n-1 < x < cut n), the cuts beyond the ends at infinity."""
    edges = [0.0, *link(w.cuts - w.loc[k]), 1.0]
    return (edges[n + 1] - edges[n]).log()


def ordered_probit(w, t, z):
    below = cdf(w.cuts - w.loc[z].unsqueeze(-1))
    edges = F.pad(F.pad(below, (1, 0)), (0, 1), value=1.0)
    see(dist.Categorical(edges.diff(dim=-1)), w.word[t])


def two_normals(w, t, z):
    parts = dist.Normal(w.rows[z], w.spread[z].unsqueeze(-1))
    see(dist.MixtureSameFamily(dist.Categorical(w.phi[z]), parts), w.x[t])


RIGHT = {
    "covariates": (
        lambda w, t, z: see(dist.Normal(w.loc[z] + w.covariates[t] @ w.slope, 0.5), w.x[t]),
        lambda w, k, t, b: normal(w.x[t, b], w.loc[k] + (w.covariates[t, b] * w.slope).sum(), 0.5),
    ),
    "regression by state": (
        lambda w, t, z: see(dist.Normal((w.rows[z] * w.covariates[t]).sum(-1), 0.5), w.x[t]),
        lambda w, k, t, b: normal(w.x[t, b], w.rows[k] @ w.covariates[t, b], 0.5),
    ),
    "missing": (masked, lambda w, k, t, b: w.seen[t, b] * normal(w.x[t, b], w.loc[k], 0.5)),
    "two sites, one scaled and masked": (
        two_sites,
        lambda w, k, t, b: (
            poisson(w.n[t, b].double(), w.spread[k])
            + 0.3 * w.seen[t, b] * normal(w.y[t, b], w.rows[k], 0.7).sum()
        ),
    ),
    "scaled": (
        scaled,
        lambda w, k, t, b: w.positive[t, b] * normal(w.x[t, b], w.loc[k], 0.5),
    ),
    "Student-t": (
        lambda w, t, z: see(dist.StudentT(4.0, w.loc[z], w.spread[z]), w.x[t]),
        lambda w, k, t, b: (
            math.lgamma(2.5)
            - math.lgamma(2.0)
            - 0.5 * math.log(4 * math.pi)
            - w.spread[k].log()
            - 2.5 * (1 + ((w.x[t, b] - w.loc[k]) / w.spread[k]) ** 2 / 4).log()
        ),
    ),
    "mixture": (
        two_normals,
        lambda w, k, t, b: (w.phi[k].log() + normal(w.x[t, b], w.rows[k], w.spread[k])).logsumexp(
            0
        ),
    ),
    "zero-inflated": (
        lambda w, t, z: see(
            dist.ZeroInflatedPoisson(w.spread[z], gate=w.phi[z][..., 0]), w.n.double()[t]
        ),
        lambda w, k, t, b: (
            (1 - w.phi[k, 0]) * poisson(w.n[t, b].double(), w.spread[k]).exp()
            + w.phi[k, 0] * (w.n[t, b] == 0)
        ).log(),
    ),
    "lagged data": (
        lambda w, t, z: see(dist.Normal(w.loc[z] * w.before[t], 0.5), w.x[t]),
        lambda w, k, t, b: normal(w.x[t, b], w.loc[k] * (w.x[t - 1, b] if t else 0.0), 0.5),
    ),
    "negative binomial": (
        lambda w, t, z: see(dist.NegativeBinomial(2.0, logits=w.loc[z]), w.n.double()[t]),
        lambda w, k, t, b: (
            math.log(w.n[t, b] + 1)
            + 2 * torch.sigmoid(-w.loc[k]).log()
            + w.n[t, b] * torch.sigmoid(w.loc[k]).log()
        ),
    ),
    "binomial of trials at t": (
        lambda w, t, z: see(dist.Binomial(w.trials[t], w.phi[z][..., 0]), w.n.double()[t]),
        lambda w, k, t, b: (
            math.log(math.comb(w.trials[t, b], w.n[t, b]))
            + w.n[t, b] * w.phi[k, 0].log()
            + (w.trials[t, b] - w.n[t, b]) * (1 - w.phi[k, 0]).log()
        ),
    ),
    "correlated": (
        lambda w, t, z: see(dist.MultivariateNormal(w.rows[z], scale_tril=w.tril[z]), w.y[t]),
        lambda w, k, t, b: normal(
            torch.linalg.solve(w.tril[k], w.y[t, b] - w.rows[k]), 0.0, 1.0
        ).sum(),
    ),
    "season": (
        lambda w, t, z: see(dist.Normal(w.loc[z] + w.season[t].unsqueeze(-1), 0.5), w.x[t]),
        lambda w, k, t, b: normal(w.x[t, b], w.loc[k] + w.season[t], 0.5),
    ),
    "number of the step": (
        lambda w, t, z: see(dist.Normal(w.loc[z] * torch.cos(t).unsqueeze(-1), 0.5), w.x[t]),
        lambda w, k, t, b: normal(w.x[t, b], w.loc[k] * math.cos(t), 0.5),
    ),
    "scale of the step": (
        lambda w, t, z: see(dist.Normal(w.loc[z], w.season[t].exp().unsqueeze(-1)), w.x[t]),
        lambda w, k, t, b: normal(w.x[t, b], w.loc[k], w.season[t].exp()),
    ),
    "change point": (
        lambda w, t, z: see(
            dist.Normal(torch.where(t.unsqueeze(-1) < 2, w.loc[z], w.spread[z]), 0.5), w.x[t]
        ),
        lambda w, k, t, b: normal(w.x[t, b], w.loc[k] if t < 2 else w.spread[k], 0.5),
    ),
    "offset of the sequence": (
        lambda w, t, z: see(dist.Normal(w.loc[z] + w.offset, 0.5), w.x[t]),
        lambda w, k, t, b: normal(w.x[t, b], w.loc[k] + w.offset[b], 0.5),
    ),
    "features": (
        lambda w, t, z: see(dist.Bernoulli(w.phi[z]).to_event(1), w.bits[t]),
        lambda w, k, t, b: torch.where(w.bits[t, b] > 0, w.phi[k], 1 - w.phi[k]).log().sum(),
    ),
    "module": (
        registered,
        lambda w, k, t, b: normal(
            w.y[t, b],
            w.decoder[2].weight @ (w.decoder[0].weight[:, k] + w.decoder[0].bias).tanh()
            + w.decoder[2].bias,
            0.7,
        ).sum(),
    ),
    "pyro.param": (
        by_parameter,
        lambda w, k, t, b: w.rows[k, w.word[t, b]] - w.rows[k].exp().sum().log(),
    ),
    "ordered logistic": (
        lambda w, t, z: see(dist.OrderedLogistic(w.loc[z], w.cuts), w.word[t]),
        lambda w, k, t, b: between(w, k, w.word[t, b], torch.sigmoid),
    ),
    "ordered probit": (ordered_probit, lambda w, k, t, b: between(w, k, w.word[t, b], cdf)),
    "truncated count": (
        lambda w, t, z: see(
            dist.Categorical(
                logits=torch.arange(4.0) * w.loc[z].unsqueeze(-1) - torch.arange(1.0, 5.0).lgamma()
            ),
            w.n[t],
        ),
        lambda w, k, t, b: (
            poisson(w.n[t, b].double(), w.loc[k].exp())
            - torch.stack([poisson(n, w.loc[k].exp()) for n in range(4)]).logsumexp(0)
        ),
    ),
    "log-normal": (
        lambda w, t, z: see(dist.LogNormal(w.loc[z], 0.5), w.positive[t]),
        lambda w, k, t, b: normal(w.positive[t, b].log(), w.loc[k], 0.5) - w.positive[t, b].log(),
    ),
    "gamma": (
        lambda w, t, z: see(dist.Gamma(w.spread[z], 2.0), w.positive[t]),
        lambda w, k, t, b: (
            w.spread[k] * math.log(2.0)
            - w.spread[k].lgamma()
            + (w.spread[k] - 1) * w.positive[t, b].log()
            - 2 * w.positive[t, b]
        ),
    ),
    "beta": (
        lambda w, t, z: see(dist.Beta(w.spread[z], 1.0), w.positive[t]),
        lambda w, k, t, b: w.spread[k].log() + (w.spread[k] - 1) * w.positive[t, b].log(),
    ),
    "angle": (
        lambda w, t, z: see(dist.VonMises(w.loc[z], w.spread[z]), w.x[t]),
        lambda w, k, t, b: (
            w.spread[k] * (w.x[t, b] - w.loc[k]).cos()
            - math.log(2 * math.pi)
            - torch.special.i0(w.spread[k]).log()
        ),
    ),
    "bag of words": (
        lambda w, t, z: see(
            dist.Multinomial(probs=w.phi[z], validate_args=False), w.bag.double()[t]
        ),
        lambda w, k, t, b: (
            math.lgamma(w.bag[t, b].sum() + 1)
            + (w.bag[t, b] * w.phi[k].log() - (w.bag[t, b] + 1.0).lgamma()).sum()
        ),
    ),
    "bursty bag of words": (
        lambda w, t, z: see(
            dist.DirichletMultinomial(w.phi[z], w.bag.double()[t].sum(-1)), w.bag.double()[t]
        ),
        lambda w, k, t, b: (
            math.lgamma(w.bag[t, b].sum() + 1)
            - math.lgamma(w.bag[t, b].sum() + 1.0)
            + (
                (w.bag[t, b] + w.phi[k]).lgamma() - w.phi[k].lgamma() - (w.bag[t, b] + 1.0).lgamma()
            ).sum()
        ),
    ),
    "shares": (
        lambda w, t, z: see(dist.Dirichlet(w.phi[z]), w.shares[t]),
        lambda w, k, t, b: ((w.phi[k] - 1) * w.shares[t, b].log() - w.phi[k].lgamma()).sum(),
    ),
    "transformed": (
        lambda w, t, z: see(
            dist.TransformedDistribution(
                dist.Normal(w.loc[z], 1.0), [dist.transforms.AffineTransform(1.0, 2.0)]
            ),
            w.x[t],
        ),
        lambda w, k, t, b: normal(w.x[t, b], 1 + 2 * w.loc[k], 2.0),
    ),
    "censored": (
        censored,
        lambda w, k, t, b: (
            normal(w.x[t, b], w.loc[k], 1.0) if w.x[t, b] < 0 else cdf(w.loc[k]).log()
        ),
    ),
    "deterministic": (
        deterministic,
        lambda w, k, t, b: poisson(w.n[t, b].double(), w.spread[k]),
    ),
    "z as a number": (
        lambda w, t, z: see(dist.Normal(0.7 * z + (z == 1), 0.5), w.x[t]),
        lambda w, k, t, b: normal(w.x[t, b], 0.7 * k + (k == 1), 0.5),
    ),
}


class ByHand:
    """What follows from the cells by sums over all paths, step by step."""

    def __init__(self, w, cell):
        K, T, B = w.K, w.T, w.B
        self.paths = list(itertools.product(range(K), repeat=T))
        self.cells = torch.zeros(T, B, K)
        for t, b, k in itertools.product(range(T), range(B), range(K)):
            self.cells[t, b, k] = float(cell(w, k, t, b).detach())
        moves = [w.initial, *[w.matrix] * (T - 1)]
        prior = [
            math.fsum((p if not t else p[z[t - 1]])[z[t]].log() for t, p in enumerate(moves))
            for z in self.paths
        ]
        self.prior = torch.tensor(prior)
        self.seen = torch.stack(
            [sum(self.cells[t, :, k] for t, k in enumerate(z)) for z in self.paths]
        )  # (N, B)
        self.joint = self.prior.unsqueeze(-1) + self.seen
        self.evidence = self.joint.logsumexp(0)

    def of(self, path):
        """log p(z, x) of paths ``(B, T)``."""
        return sum(self.joint[self.paths.index(tuple(z.tolist())), b] for b, z in enumerate(path))

    def elbo(self, q):
        """Of marginals ``(T, B, K)``."""
        total = -(q * q.log()).sum()
        for z, joint in zip(self.paths, self.joint, strict=True):
            total = total + (math.prod(q[t, :, k] for t, k in enumerate(z)) * joint).sum()
        return total


def settings_of(bodies):
    """Each body with its own settings: different sizes, and by turns one of the two others."""
    later = pytest.mark.stage("nightly")
    return [
        pytest.param(body, *settings, marks=() if j in (1, 2 * (i % 2)) else later)
        for i, body in enumerate(bodies)
        for j, settings in enumerate(SETTINGS)
    ]


def close(found, expected):
    found = torch.as_tensor(found).detach().double()
    torch.testing.assert_close(found, expected.detach().double(), rtol=0, atol=1e-6)


@pytest.mark.stage("system")
@pytest.mark.parametrize("name, sizes, validate", settings_of(RIGHT))
def test_a_right_body_is_taken_by_every_class_and_read_right(name, sizes, validate):
    body, cell = RIGHT[name]
    pyro.enable_validation(validate)
    w = World(sizes)
    model, right = w.model(body), ByHand(w, cell)
    close(Program(model).run().grid.table(), right.cells)

    hmm = MarkovEM(model, smoothing=0.0).start_from(w.initial, w.matrix)
    close(hmm.log_likelihood().sum(0), right.evidence)
    close(-hmm.step(), right.evidence.sum())
    em = StochasticEM(model, Adam({"lr": 0.0}), 3)
    for _ in range(2):
        close(-em.step(), right.of(em.paths))
    sampler = ParticleGibbs(model, 2)
    sampler.run(num_samples=2, disable_progbar=True)
    for z in sampler.get_samples()["z"]:
        assert right.of(z).isfinite()

    # Without memory all particles weigh the same, and nothing of the ELBO is estimated.
    w = World(sizes, memory=False)
    model, right = w.model(body), ByHand(w, cell)
    close(ParticleFilter(model, 2).log_evidence(), right.evidence)
    guide = MeanFieldGuide(model)
    loss = SVI(model, guide, Adam({"lr": 0.0}), loss=MeanFieldELBO()).step()
    close(-loss, right.elbo(guide.marginals()))


# ------------------------------------------------------------------------------------- over vectors


def linear(w, t, z):
    see(dist.Normal(z @ w.slope + w.offset, 0.5), w.x[t])


def counts(w, t, z):
    see(dist.Poisson((0.3 * z).exp()).to_event(1), w.bag.double()[t])


def heavy(w, t, z):
    with poutine.mask(mask=w.seen[t]):
        see(dist.StudentT(4.0, z[..., 0] + w.season[t].unsqueeze(-1), 1.0), w.x[t])


def vector_of_lags(w, t, z):
    see(dist.Normal((z * w.covariates[t]).sum(-1) * w.before[t], 0.5), w.x[t])


def correlated(w, t, z):
    see(dist.MultivariateNormal(z @ w.tril[0].T, torch.eye(w.D)), w.y[t])


@pytest.mark.parametrize(
    "body, sizes, validate", settings_of([linear, counts, heavy, vector_of_lags, correlated])
)
def test_a_right_body_over_vectors(body, sizes, validate):
    pyro.enable_validation(validate)
    w = World(sizes)
    w.transition = LinearGaussianTransition(w.D).requires_grad_(False)
    model = w.model(body)
    em = StochasticEM(model, Adam({"lr": 0.0}), 3)
    loss = em.step()
    sampler = ParticleGibbs(model, 2)
    sampler.run(num_samples=2, disable_progbar=True)
    run = Program(model).run()
    for z in (em.paths, *sampler.get_samples()["z"]):
        given = poutine.condition(model, {"z": z})
        close(run.log_joint(run.flatten(z)), poutine.trace(given).get_trace().log_prob_sum())
    close(-loss, run.log_joint(run.flatten(em.paths)))
    assert ParticleFilter(model, 5).log_evidence().isfinite().all()


# ------------------------------------------------------------------------------ wrong, right beside


def carried(of):
    """A body that keeps ``of(w, t, z)`` for the next step."""

    def body(w, t, z):
        # the list is made anew by each run of the model, as a local variable would be
        near = z[..., 0] if z.is_floating_point() else w.loc[z]
        see(dist.Normal(near + w.kept[-1], 0.5), w.x[t])
        w.kept.append(of(w, t, z))

    return body


def x_given(of):
    """A body whose x_t is Normal around ``of(w, t, z)``."""
    return lambda w, t, z: see(dist.Normal(of(w, t, z), 0.5), w.x[t])


def data(of):
    """A body that observes ``of(x[t])``."""
    return lambda w, t, z: see(dist.Normal(w.loc[z], 0.5), of(w.x[t]))


def left_early(w, t, z):
    see(dist.Normal(w.loc[z], 0.5), w.x[t])
    raise StopIteration  # what the model below takes for break


def batch_norm(w, t, z):
    out = F.batch_norm(w.rows[z].reshape(-1, w.D), None, None, training=True)
    see(dist.Normal(out.reshape(*z.shape, w.D), 0.7).to_event(1), w.y[t])


def batch_norm_of_data(w, t, z):
    x = F.batch_norm(w.y[t].reshape(-1, w.D), None, None, training=True).reshape(w.y[t].shape)
    see(dist.Normal(w.rows[z], 0.7).to_event(1), x)


WRONG = {
    "season on the sequences": x_given(lambda w, t, z: w.loc[z] + w.season[t]),
    "t on the sequences": x_given(lambda w, t, z: w.loc[z] + 0.1 * t),
    "scale on the sequences": lambda w, t, z: see(dist.Normal(w.loc[z], w.season[t].exp()), w.x[t]),
    "x carried": carried(lambda w, t, z: w.x[t]),
    "z carried": carried(lambda w, t, z: z),
    "steps counted": carried(lambda w, t, z: len(w.kept)),
    "cumsum of z": x_given(lambda w, t, z: w.loc[z].cumsum(-2)),
    "z before": x_given(lambda w, t, z: w.loc[z.roll(1, -2)]),
    "z after": x_given(lambda w, t, z: w.loc[z.flip(-2)]),
    "mean of z over steps": x_given(lambda w, t, z: w.loc[z] - w.loc[z].mean(-2, keepdim=True)),
    "mean of z over sequences": x_given(lambda w, t, z: w.loc[z] - w.loc[z].mean(-1, keepdim=True)),
    "sequences rolled": x_given(lambda w, t, z: w.loc[z.roll(1, -1)]),
    "sequences sorted": x_given(lambda w, t, z: w.loc[z.sort(-1).values]),
    "cumsum of x": data(lambda x: x.cumsum(0)),
    "x centred": data(lambda x: x - x.mean(0)),
    "x over its maximum": data(lambda x: x / x.amax(0)),
    "softmax over steps": data(lambda x: x.softmax(0)),
    "ranks of x": data(lambda x: x.argsort(0).argsort(0).double()),
    "softmax over states": x_given(lambda w, t, z: w.loc[z].softmax(0)),
    "states centred": x_given(lambda w, t, z: w.loc[z] - w.loc[z].mean(0)),
    "states rolled": x_given(lambda w, t, z: w.loc[z.roll(1, 0)]),
    "dropout": x_given(lambda w, t, z: F.dropout(w.rows[z], 0.5).sum(-1)),
    "noise": x_given(lambda w, t, z: w.loc[z] + torch.randn(())),
    "batch norm": batch_norm,
    "batch norm of data": batch_norm_of_data,
    "break": left_early,
}


def use_all(model):
    """A class, ready for its first run, by name."""
    em, hmm, pf = StochasticEM(model, Adam({}), 2), MarkovEM(model), ParticleFilter(model, 2)
    guide, sampler = MeanFieldGuide(model), ParticleGibbs(model, 2)
    svi = SVI(model, MeanFieldGuide(model), Adam({}), loss=MeanFieldELBO())
    return {
        "StochasticEM": em.step,
        "MarkovEM": hmm.step,
        "MarkovEM.log_likelihood": hmm.log_likelihood,
        "ParticleFilter": pf.log_evidence,
        "ParticleFilter.forecast": lambda: pf.forecast(start=1),
        "MeanFieldGuide": guide.marginals,
        "MeanFieldELBO": svi.step,
        "ParticleGibbs": lambda: sampler.run(num_samples=1, disable_progbar=True),
        "ParticleGibbs.sweep": lambda: sampler.sweep(None),
    }


@pytest.mark.parametrize("num_steps", [2, pytest.param(5, marks=pytest.mark.stage("nightly"))])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_body_is_refused_by_every_class_at_every_run(name, num_steps):
    w = World("alike")
    B = num_steps if "on the sequences" in name else 2  # where shapes cannot tell
    w.B, w.T = B, num_steps
    w.x, w.y, w.season = torch.randn(w.T, B), torch.randn(w.T, B, w.D), torch.randn(w.T)

    def model():
        w.kept = [torch.zeros(B)]
        with pyro.plate("sequences", B):
            for t, z in ssl_transition("z", w.transition, w.T):
                try:
                    WRONG[name](w, t, z)
                except StopIteration:
                    break

    for use, call in use_all(model).items():
        for _ in range(2):
            with nothing_changes(), pytest.raises(EmissionNotLocalError, match='Site ".*loop'):
                call()
                pytest.fail(f"{use} took it")


WRONG_VECTORS = {
    "z carried": carried(lambda w, t, z: z[..., 0]),
    "x centred": lambda w, t, z: see(dist.Normal(z[..., 0], 0.5), w.x[t] - w.x[t].mean(0)),
    "z before": x_given(lambda w, t, z: z.roll(1, -3)[..., 0]),
    "sequences mixed": x_given(lambda w, t, z: z[..., 0] - z.mean(-2)[..., :1]),
    "particles mixed": x_given(lambda w, t, z: z[..., 0].softmax(0)),
    "season on the sequences": x_given(lambda w, t, z: z[..., 0] + w.season[t]),
}


@pytest.mark.parametrize("name", WRONG_VECTORS)
def test_a_wrong_body_over_vectors_is_refused(name):
    w = World("alike")
    w.transition = LinearGaussianTransition(w.D).requires_grad_(False)

    def model():
        w.kept = [torch.zeros(w.B)]
        w.model(WRONG_VECTORS[name])()

    calls = use_all(model)
    for use in ("StochasticEM", "ParticleFilter", "ParticleGibbs", "ParticleGibbs.sweep"):
        for _ in range(2):
            with nothing_changes(), pytest.raises(EmissionNotLocalError, match='Site ".*loop'):
                calls[use]()


def test_a_body_that_takes_sizes_from_the_whole_data_is_told_so():
    w = World("different")
    w.T, w.x = 7, torch.randn(7, w.B)

    def body(w, t, z):
        see(dist.Normal(w.loc[z], 0.5), w.x[t].reshape(w.T, w.B))

    with pytest.raises(
        EmissionNotLocalError, match=r"failed where .*shape.*take sizes from x\[t\]"
    ):
        ParticleFilter(w.model(body), 2).log_evidence()
