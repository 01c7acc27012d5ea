"""Any sizes, dtypes, masks, lengths, plates and scales against sums over all paths, exactly.

Where particles are few the evidence is exact too if none of them matters: at T = 1, and where z_t
does not depend on what came before. So nothing here is compared up to noise.
"""

import itertools
import math
from contextlib import ExitStack
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyro import poutine
from pyro.infer import SVI
from pyro.optim import Adam

from pyro_ssl import (
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
from pyro_ssl.reading import Program
from pyro_ssl.transitions import LinearGaussianTransition
from tests.faults.digest import nothing_changes

EMISSIONS = ("categorical", "dirichlet", "bernoulli", "normal", "poisson", "two sites")


@dataclass(frozen=True)
class Case:
    """What is drawn: sizes and kinds. ``plates`` are their sizes, ``taken`` how many of the first
    are subsampled (``None``: not); with a ``gap`` no plate stands at dimension -1."""

    T: int
    K: int
    V: int
    P: int
    D: int
    plates: tuple[int, ...]
    taken: int | None
    gap: bool
    transition: str
    emission: str
    mask: str
    scale: str
    ragged: bool
    dtype: torch.dtype
    seed: int

    @property
    def full(self):
        """Batch shape over all sequences."""
        return self.plates + (1,) * self.gap


@st.composite
def cases(draw):
    size = st.integers(1, 3)
    plates = draw(st.sampled_from([(), (1,), (2,), (3,), (1, 2), (2, 2), (3, 1), (2, 1, 2)]))
    kind = draw(st.sampled_from(["chain", "no memory", "lstm", "lstm with inputs"]))
    return Case(
        T=draw(st.integers(1, 4)),
        K=draw(size),
        V=draw(size),
        P=draw(size),
        D=draw(st.integers(1, 2)) if kind == "lstm with inputs" else 0,
        plates=plates,
        taken=draw(st.one_of(st.none(), st.integers(1, 3))) if plates else None,
        gap=draw(st.booleans()) if plates else False,
        transition=kind,
        emission=draw(st.sampled_from(EMISSIONS)),
        mask=draw(st.sampled_from(["none", "step", "sequence", "all", "state"])),
        scale=draw(st.sampled_from(["none", "number", "step", "model", "sequence"])),
        ragged=draw(st.booleans()),
        dtype=draw(st.sampled_from([torch.float64, torch.float32])),
        seed=draw(st.integers(0, 3)),
    )


class World:
    """A model of a case, and by hand what it says."""

    def __init__(self, case):
        self.case = case
        torch.set_default_dtype(case.dtype)
        pyro.clear_param_store()
        pyro.set_rng_seed(case.seed)
        T, K, V, shape = case.T, case.K, case.V, case.full
        if case.transition.startswith("lstm"):
            self.transition = LSTMTransition(K, 2, input_size=case.D)
            for parameter in self.transition.parameters():
                parameter.data.mul_(3.0)
        else:
            self.initial = dist.Dirichlet(torch.ones(K)).sample()
            rows = dist.Dirichlet(torch.ones(K, K)).sample()
            self.matrix = rows if case.transition == "chain" else self.initial.expand(K, K)
            self.transition = MarkovTransition(K, initial=self.initial, matrix=self.matrix)
        self.inputs = torch.randn(T, *shape, case.D) if case.D else None
        self.phi = dist.Dirichlet(torch.ones(K, V)).sample()
        self.loc, self.p = torch.randn(K), torch.rand(K) * 0.8 + 0.1
        self.words, self.x = torch.randint(V, (T, *shape)), torch.randn(T, *shape)
        self.n, self.bits = torch.randint(4, (T, *shape)), torch.randint(2, (T, *shape))
        self.steps, self.some = torch.rand(T, *shape) < 0.6, torch.rand(shape) < 0.6
        self.weight = torch.rand(T, *shape) + 0.5
        self.whole = torch.ones(shape)  # weight of a sequence, its path and its data
        if case.scale in ("model", "sequence"):
            self.whole = (
                torch.rand(shape if case.scale == "sequence" else ()).add(0.3).expand(shape)
            )
        self.lengths = torch.randint(0, T + 1, shape) if case.ragged else None
        self.take = None
        if case.taken is not None:
            self.take = torch.randperm(shape[0])[: case.taken]

    def of(self, data, batch_dim=1):
        """The sequences that a subsample takes."""
        return (
            data if data is None or self.take is None else data.index_select(batch_dim, self.take)
        )

    @property
    def shape(self):
        """Of the plates, as taken."""
        return self.of(torch.zeros(self.case.full), 0).shape

    @property
    def factor(self):
        B = math.prod(self.shape)
        return math.prod(self.case.plates) / B if B else 1.0

    def model(self):
        case = self.case
        phi = self.phi
        if case.transition.startswith("lstm"):
            pyro.module("transition", self.transition)
        if case.emission == "dirichlet":
            phi = pyro.sample("phi", dist.Dirichlet(torch.ones(case.K, case.V)).to_event(1))
        plates = []
        for i, size in enumerate(case.plates):
            index = self.take if i == 0 else None
            plates.append(pyro.plate(f"plate {i}", size, subsample=index, dim=i - len(case.full)))
        lengths, inputs = self.of(self.lengths, 0), self.of(self.inputs)
        with ExitStack() as stack:
            for plate in plates:
                stack.enter_context(plate)
            if case.scale in ("model", "sequence"):
                whole = self.of(self.whole, 0)
                number = whole.reshape(-1)[0].item()
                stack.enter_context(poutine.scale(scale=number if case.scale == "model" else whole))
            for t, z in ssl_transition(
                "z", self.transition, case.T, lengths=lengths, inputs=inputs
            ):
                self.body(phi, t, z)

    def body(self, phi, t, z):
        case = self.case
        mask = {
            "none": True,
            "all": False,
            "step": self.of(self.steps)[t],
            "sequence": self.of(self.some, 0),
            "state": z != 1,
        }[case.mask]
        scale = {"number": 0.7, "step": self.of(self.weight)[t]}.get(case.scale, 1.0)
        with poutine.mask(mask=mask), poutine.scale(scale=scale):
            if case.emission in ("categorical", "dirichlet", "two sites"):
                pyro.sample("word", dist.Categorical(phi[z]), obs=self.of(self.words)[t])
            if case.emission == "bernoulli":
                bits = self.of(self.bits)[t].to(case.dtype)
                pyro.sample("bit", dist.Bernoulli(self.p[z]), obs=bits)
            if case.emission in ("normal", "two sites"):
                pyro.sample("x", dist.Normal(self.loc[z], self.p[z]), obs=self.of(self.x)[t])
            if case.emission == "poisson":
                rate = self.loc[z].exp()
                pyro.sample("n", dist.Poisson(rate), obs=self.of(self.n)[t].to(case.dtype))

    # ------------------------------------------------------------------------------------- by hand

    def cells(self, phi):
        """log p(x_t | z_t = k) of the sequences taken, ``(T, B, K)``, in float64."""
        case, B = self.case, math.prod(self.shape)
        flat = {
            name: self.of(getattr(self, name)).reshape(case.T, -1).tolist()
            for name in ("words", "x", "n", "bits", "steps", "weight")
        }
        some, phi = self.of(self.some, 0).reshape(-1).tolist(), phi.double()
        loc, p = self.loc.double().tolist(), self.p.double().tolist()
        out = torch.zeros(case.T, B, case.K, dtype=torch.float64)
        for t, b, k in itertools.product(range(case.T), range(B), range(case.K)):
            mask = {"all": False, "step": flat["steps"][t][b], "sequence": some[b]}
            if not mask.get(case.mask, True) or (case.mask == "state" and k == 1):
                continue
            total = 0.0
            if case.emission in ("categorical", "dirichlet", "two sites"):
                total += phi[k, flat["words"][t][b]].log()
            if case.emission == "bernoulli":
                total += math.log(p[k] if flat["bits"][t][b] else 1 - p[k])
            if case.emission in ("normal", "two sites"):
                x = (flat["x"][t][b] - loc[k]) / p[k]
                total += -0.5 * x * x - math.log(p[k]) - 0.5 * math.log(2 * math.pi)
            if case.emission == "poisson":
                n = flat["n"][t][b]
                total += n * loc[k] - math.exp(loc[k]) - math.lgamma(n + 1)
            scale = {"number": 0.7, "step": flat["weight"][t][b]}
            out[t, b, k] = total * scale.get(case.scale, 1.0) * self.wholes[b]
        return out

    @property
    def wholes(self):
        """Weights of the sequences taken."""
        return self.of(self.whole, 0).reshape(-1).double()

    @property
    def ends(self):
        """Lengths of the sequences taken."""
        full = [self.case.T] * math.prod(self.shape)
        return full if self.lengths is None else self.of(self.lengths, 0).reshape(-1).tolist()

    def prior(self, paths):
        """log p(z_t | z_{1:t-1}) of each path and sequence, ``(N, T, B)``, step by step."""
        case, B = self.case, math.prod(self.shape)
        out, state, before = [], self.transition.initial_state((len(paths), B)), None
        inputs = self.of(self.inputs)
        for t in range(case.T):
            u = None
            if inputs is not None:
                u = inputs[t].reshape(1, B, case.D).expand(len(paths), B, case.D)
            z = paths[:, t, None].expand(-1, B)
            with torch.no_grad():
                logits, state = self.transition.step_logits(before, state, u)
            log_p = logits.expand(len(paths), B, case.K).double().log_softmax(-1)
            out.append(log_p.gather(-1, z.unsqueeze(-1)).squeeze(-1))
            before = z
        return torch.stack(out, 1)

    def joint(self, phi):
        """All paths that are 0 past the lengths, and log p(z, x): a list for each sequence."""
        case, cells = self.case, self.cells(phi)
        paths = torch.tensor(list(itertools.product(range(case.K), repeat=case.T)))
        prior = self.prior(paths) * self.wholes
        found = []
        for b, end in enumerate(self.ends):
            right = (paths[:, end:] == 0).all(-1)
            seen = sum(
                (cells[t, b, paths[:, t]] for t in range(end)), torch.zeros(len(paths)).double()
            )
            joint = prior[:, :end, b].sum(1) + seen
            found.append(dict(zip(map(tuple, paths[right].tolist()), joint[right], strict=True)))
        return found


def close(found, expected, case):
    found = torch.as_tensor(found).detach().double()
    expected = torch.as_tensor(expected).detach().double()
    wide = case.dtype == torch.float64
    torch.testing.assert_close(
        found, expected, rtol=1e-9 if wide else 1e-4, atol=1e-9 if wide else 1e-4
    )


def check_reading(w, model, joint):
    """The table, and what the run says of paths."""
    case, B = w.case, math.prod(w.shape)
    run = Program(model).run()
    cells = w.cells(w.phi)
    for b, end in enumerate(w.ends):
        cells[end:, b] = 0.0
    table = run.grid.table()
    assert table.dtype == case.dtype and run.subsample_factor == w.factor
    close(table, cells, case)
    rows = [list(paths) for paths in joint]
    for i in range(5):
        picked = [paths[(7 * i + b) % len(paths)] for b, paths in enumerate(rows)]
        z = torch.tensor(picked, dtype=torch.long).reshape(B, case.T).T
        found = run.log_transition(z) + run.log_emission(z)
        close(found, of_paths(joint, z.T), case)


def of_paths(joint, paths):
    """log p(z, x), ``(B,)``, of paths ``(B, T)``; a path of probability 0 is none of those."""
    found = [joint[b][tuple(z)] for b, z in enumerate(paths.tolist())]
    return torch.stack(found) if found else torch.zeros(0)


def check_evidence(w, model, joint):
    case, shape = w.case, w.shape
    right = torch.tensor([torch.stack(list(j.values())).logsumexp(0) for j in joint])
    log_p = ParticleFilter(model, case.P).log_likelihood()
    assert log_p.shape == (case.T, *shape) and log_p.dtype == torch.float64
    assert log_p.isfinite().all()
    log_p = log_p.reshape(case.T, -1)
    for b, end in enumerate(w.ends):
        assert not log_p[end:, b].any()
        if end <= 1 or case.K == 1 or case.transition == "no memory":
            close(log_p[:, b].sum(), right[b], case)
    if not case.transition.startswith("lstm"):
        hmm = MarkovEM(model).start_from(w.initial, w.matrix)
        found = hmm.log_likelihood()
        assert found.shape == (case.T, *shape)
        close(found.sum(0).reshape(-1), right, case)
        in_support(hmm.sample_paths(), w, joint)
        close(-hmm.step(), right.sum() * w.factor, case)


def in_support(paths, w, joint):
    """Paths ``(...) + plates + (T,)``, of integers, are among those of positive probability."""
    case = w.case
    assert paths.dtype == torch.long and paths.shape[paths.dim() - len(w.shape) - 1 :] == (
        *w.shape,
        case.T,
    )
    for z in paths.reshape(-1, math.prod(w.shape), case.T):
        assert of_paths(joint, z).isfinite().all()


def check_paths(w, model, joint):
    case, B = w.case, math.prod(w.shape)
    start = torch.tensor([list(j)[-1] for j in joint], dtype=torch.long)
    start = start.reshape(*w.shape, case.T)
    assert torch.equal(ParticleGibbs(model, 1).sweep(start), start)
    sampler = ParticleGibbs(model, case.P, ancestor_sampling=2)
    in_support(sampler.sweep(start), w, joint)
    in_support(sampler.sweep(None), w, joint)
    if w.factor == 1.0:
        sampler.run(num_samples=2, num_chains=2, disable_progbar=True)
        in_support(sampler.get_samples()["z"], w, joint)
    assert B == len(joint)


def check_learning(w):
    case = w.case
    em = StochasticEM(w.model, Adam({"lr": 0.0}), case.P)
    em.step()
    phi = em.values.get("phi", w.phi)
    loss = em.step()
    joint, paths = w.joint(phi), em.paths if w.take is None else em.paths[w.take]
    in_support(paths, w, joint)
    flat = paths.reshape(-1, case.T)
    close(-loss, of_paths(joint, flat).sum() * w.factor, case)
    if case.emission == "dirichlet" and case.V > 1:  # of a single symbol counts are not known
        close(em.counts["phi"], counts_by_hand(w, flat) * w.factor, case)


def counts_by_hand(w, paths):
    """Of the words in paths ``(B, T)``: the gradient of the joint in log phi."""
    log_phi = torch.zeros(w.case.K, w.case.V, dtype=torch.float64).requires_grad_()
    cells = w.cells(log_phi.exp())
    total = sum(
        (cells[t, b, paths[b, t]] for b, end in enumerate(w.ends) for t in range(end)),
        0.0 * log_phi.sum(),
    )
    return torch.autograd.grad(total, log_phi)[0]


def check_mean_field(w, model, joint):
    case = w.case
    guide = MeanFieldGuide(model)
    loss = SVI(model, guide, Adam({"lr": 0.0}), loss=MeanFieldELBO()).step()
    q = guide.marginals()
    assert q.shape == (case.T, *w.shape, case.K) and math.isfinite(loss)
    close(q.sum(-1), torch.ones(q.shape[:-1]), case)
    if case.transition != "no memory" and case.T > 1:
        return  # draws enter
    q, elbo = q.double().reshape(case.T, -1, case.K), torch.zeros((), dtype=torch.float64)
    for b, end in enumerate(w.ends):
        elbo = elbo - (q[:end, b] * q[:end, b].log()).sum()
        for z, log_p in joint[b].items():
            elbo = elbo + math.prod(q[t, b, z[t]] for t in range(end)) * log_p
    elbo = elbo * w.factor
    if case.emission == "dirichlet":  # which is given here, and the density of what is given counts
        elbo = elbo + math.lgamma(case.V) * case.K
    close(-loss, elbo, case)


def check(case):
    w = World(case)
    model = poutine.condition(w.model, {"phi": w.phi})
    joint = w.joint(w.phi)
    check_reading(w, model, joint)
    check_evidence(w, model, joint)
    check_paths(w, model, joint)
    check_mean_field(w, model, joint)
    check_learning(w)


@given(cases())
@settings(max_examples=40)
def test_any_sizes(case):
    check(case)


@pytest.mark.stage("nightly")
@given(cases())
@settings(max_examples=3_000)
def test_any_sizes_at_length(case):
    """With its like over vectors about ten minutes."""
    check(case)


# ------------------------------------------------------------------------------------- over vectors


@dataclass(frozen=True)
class VectorCase:
    """As :class:`Case`, of latents ``(D,)`` and E sensors."""

    T: int
    D: int
    E: int
    P: int
    plates: tuple[int, ...]
    taken: int | None
    memory: bool
    counts: bool
    mask: str
    ragged: bool
    dtype: torch.dtype
    seed: int

    @property
    def full(self):
        return self.plates


@st.composite
def vector_cases(draw):
    size, flag = st.integers(1, 3), st.booleans()
    plates = draw(st.sampled_from([(), (1,), (3,), (1, 2), (2, 2)]))
    return VectorCase(
        T=draw(size),
        D=draw(size),
        E=draw(size),
        P=draw(size),
        plates=plates,
        taken=draw(st.one_of(st.none(), size)) if plates else None,
        memory=draw(flag),
        counts=draw(flag),
        mask=draw(st.sampled_from(["none", "step", "all"])),
        ragged=draw(flag),
        dtype=draw(st.sampled_from([torch.float64, torch.float32])),
        seed=draw(st.integers(0, 3)),
    )


class VectorWorld(World):
    """x_t = C z_t + d + noise, or counts of rate exp(C z_t / 3 + d); by hand as dense Gaussians."""

    def __init__(self, case):
        self.case = case
        torch.set_default_dtype(case.dtype)
        pyro.clear_param_store()
        pyro.set_rng_seed(case.seed)
        T, D, E, shape = case.T, case.D, case.E, case.plates
        self.matrix = 0.5 * torch.randn(D, D) * case.memory
        self.first, self.sd = (torch.randn(D), torch.rand(D) + 0.5), torch.rand(D) + 0.5
        self.push = torch.randn(D)
        self.transition = LinearGaussianTransition(
            D,
            matrix=self.matrix,
            offset=self.push,
            scale=self.sd,
            initial_mean=self.first[0],
            initial_scale=self.first[1],
        )
        self.loading, self.offset = torch.randn(E, D), torch.randn(E)
        self.noise = torch.rand(E) + 0.5
        self.x, self.n = torch.randn(T, *shape, E), torch.randint(3, (T, *shape, E))
        self.steps = torch.rand(T, *shape) < (0.0 if case.mask == "all" else 0.6)
        self.steps = self.steps | (case.mask == "none")
        self.lengths = torch.randint(0, T + 1, shape) if case.ragged else None
        self.take = None if case.taken is None else torch.randperm(shape[0])[: case.taken]

    def model(self):
        case = self.case
        with ExitStack() as stack:
            for i, size in enumerate(case.plates):
                index, dim = self.take if i == 0 else None, i - len(case.plates)
                stack.enter_context(pyro.plate(f"plate {i}", size, subsample=index, dim=dim))
            lengths = self.of(self.lengths, 0)
            for t, z in ssl_transition("z", self.transition, case.T, lengths=lengths):
                with poutine.mask(mask=self.of(self.steps)[t]):
                    loc = z @ self.loading.T + self.offset
                    if case.counts:
                        fn, x = dist.Poisson((loc / 3).exp()), self.of(self.n).to(case.dtype)[t]
                    else:
                        fn, x = dist.Normal(loc, self.noise), self.of(self.x)[t]
                    pyro.sample("x", fn.to_event(1), obs=x)

    def log_joint(self, path):
        """log p(z, x) of a path ``(B, T, D)``, ``(B,)``, in float64, number by number."""
        case, path = self.case, path.double()
        x, n = (self.of(v).reshape(case.T, -1, case.E).double() for v in (self.x, self.n))
        steps = self.of(self.steps).reshape(case.T, -1)
        found = torch.zeros(len(path), dtype=torch.float64)
        for b, end in enumerate(self.ends):
            for t in range(end):
                z = path[b, t]
                mean, sd = self.first
                if t:
                    mean = self.matrix.double() @ path[b, t - 1] + self.push
                    sd = self.sd
                total = log_normal(z, mean.double(), sd.double()).sum()
                loc = self.loading.double() @ z + self.offset.double()
                if steps[t, b] and case.counts:
                    total += (n[t, b] * loc / 3 - (loc / 3).exp() - (n[t, b] + 1).lgamma()).sum()
                elif steps[t, b]:
                    total += log_normal(x[t, b], loc, self.noise.double()).sum()
                found[b] += total
        return found

    def log_evidence(self):
        """log p(x) where z_t does not depend on z_{t-1}: each step on its own, ``(B,)``."""
        case = self.case
        x, steps = self.of(self.x).reshape(case.T, -1, case.E), self.of(self.steps)
        steps, C = steps.reshape(case.T, -1), self.loading.double()
        found = torch.zeros(x.shape[1], dtype=torch.float64)
        for b, end in enumerate(self.ends):
            for t in range(end):
                mean, sd = self.first if t == 0 else (self.push, self.sd)
                cov = C @ sd.double().square().diag() @ C.T + self.noise.double().square().diag()
                apart = x[t, b].double() - C @ mean.double() - self.offset.double()
                log_det = torch.logdet(2 * math.pi * cov)
                log_p = -0.5 * (apart @ torch.linalg.solve(cov, apart) + log_det)
                found[b] += log_p * steps[t, b]
        return found


def log_normal(x, mean, sd):
    return -0.5 * ((x - mean) / sd) ** 2 - sd.log() - 0.5 * math.log(2 * math.pi)


def check_vectors(case):
    w = VectorWorld(case)
    shape, model = (*w.shape, case.T, case.D), w.model
    em = StochasticEM(model, Adam({"lr": 0.0}), case.P)
    losses = [em.step() for _ in range(2)]
    paths = em.paths if w.take is None else em.paths[w.take]
    assert paths.shape == shape and paths.dtype == case.dtype
    flat = paths.reshape(-1, case.T, case.D)
    close(-losses[1], w.log_joint(flat).sum() * w.factor, case)
    sampler = ParticleGibbs(model, case.P, ancestor_sampling=2)
    drawn = [
        flat,
        sampler.sweep(None).reshape(flat.shape),
        sampler.sweep(paths).reshape(flat.shape),
    ]
    if w.factor == 1.0:
        sampler.run(num_samples=2, num_chains=2, disable_progbar=True)
        drawn += list(sampler.get_samples()["z"].reshape(-1, *flat.shape))
    run = Program(model).run()
    for path in drawn:
        z = path.transpose(0, 1)
        close(run.log_transition(z) + run.log_emission(z), w.log_joint(path), case)
        assert all(not path[b, end:].any() for b, end in enumerate(w.ends))
    assert torch.equal(ParticleGibbs(model, 1).sweep(paths), paths)
    log_p = ParticleFilter(model, case.P).log_likelihood()
    assert log_p.shape == (case.T, *w.shape) and log_p.dtype == torch.float64
    assert log_p.isfinite().all()
    log_p = log_p.reshape(case.T, -1)
    for b, (end, right) in enumerate(zip(w.ends, w.log_evidence(), strict=True)):
        assert not log_p[end:, b].any()
        if not case.counts and (end <= 1 or not case.memory):
            close(log_p[:, b].sum(), right, case)


#: one sensor of two dimensions, whose precision is singular but for rounding
SINGULAR = VectorCase(2, 2, 1, 1, (), None, False, False, "none", False, torch.float64, 0)


@given(vector_cases())
@example(SINGULAR)
@settings(max_examples=15)
def test_any_sizes_over_vectors(case):
    check_vectors(case)


@pytest.mark.stage("nightly")
@given(vector_cases())
@settings(max_examples=800)
def test_any_sizes_over_vectors_at_length(case):
    check_vectors(case)


# ----------------------------------------------------------------------------- nothing, and no size


def a_model(*, T=2, B=2, K=2, V=2, index=None, lengths=None):
    transition = MarkovTransition(K, initial=torch.ones(K) / K, matrix=torch.ones(K, K) / K)
    words, phi = torch.zeros(max(int(T), 1), B, dtype=torch.long), torch.ones(K, V) / V

    def model():
        with pyro.plate("sequences", B, subsample=index):
            for t, z in ssl_transition("z", transition, T, lengths=lengths):
                x = words if index is None else words[:, index]
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    return model


def calls(model):
    """Every class's first run of a model, by name."""
    em, hmm, pf = StochasticEM(model, Adam({}), 2), MarkovEM(model), ParticleFilter(model, 2)
    guide, sampler = MeanFieldGuide(model), ParticleGibbs(model, 2)
    svi = SVI(model, MeanFieldGuide(model), Adam({}), loss=MeanFieldELBO())
    return {
        "StochasticEM": em.step,
        "warm start": lambda: em.warm_start(num_steps=1, transition_steps=1),
        "MarkovEM": hmm.step,
        "MarkovEM.log_likelihood": hmm.log_likelihood,
        "MarkovEM.sample_paths": hmm.sample_paths,
        "MarkovEM.perplexity": hmm.perplexity,
        "ParticleFilter": pf.log_likelihood,
        "ParticleFilter.perplexity": pf.perplexity,
        "ParticleFilter.forecast": lambda: pf.forecast(start=0),
        "MeanFieldGuide": guide.marginals,
        "MeanFieldELBO": svi.step,
        "ParticleGibbs": lambda: sampler.run(num_samples=1, disable_progbar=True),
        "ParticleGibbs.sweep": lambda: sampler.sweep(None),
    }


@pytest.mark.parametrize("call", calls(None))
@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"T": 0}, 'Site "z": num_steps is 0, expected at least 1; drop empty sequences'),
        (
            {"B": 0},
            "The model has a plate that is empty, or a subsample .*leave an empty batch out",
        ),
        ({"index": []}, "a plate that is empty, or a subsample .*leave an empty batch out"),
        ({"V": 0}, r"Expected parameter probs .*of shape \(2, 1, 1, 0\)"),
    ],
)
def test_nothing_is_refused_by_name(call, wrong, message):
    if "index" in wrong:
        wrong = {"index": torch.zeros(0, dtype=torch.long)}
    with nothing_changes(), pytest.raises(ValueError, match=message):
        calls(a_model(**wrong))[call]()


@pytest.mark.parametrize("call", calls(None))
def test_sequences_of_no_length_have_evidence_one(call):
    found = calls(a_model(lengths=torch.zeros(2, dtype=torch.long)))
    if call.endswith("perplexity"):
        with pytest.raises(ValueError, match='Site "z": no step from start=0 on was observed'):
            found[call]()
    elif call == "warm start":
        found[call]()
    else:
        value = found[call]()
        value = value[0] if isinstance(value, tuple) else value
        if call not in ("ParticleGibbs", "MeanFieldGuide"):
            assert not torch.as_tensor(value).any()


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize(
    "make, name",
    [
        (MarkovTransition, "num_states"),
        (lambda n: LSTMTransition(n, 2), "num_states"),
        (lambda n: LSTMTransition(2, n), "hidden_size"),
        (lambda n: ParticleGibbs(None, n), "num_particles"),
        (lambda n: ParticleFilter(None, n), "num_particles"),
        (lambda n: StochasticEM(None, Adam({"lr": 0.1}), n), "num_particles"),
        (lambda n: MeanFieldELBO(n), "num_particles"),
    ],
)
def test_no_size_is_refused_by_name(make, name, size):
    with pytest.raises(ValueError, match=f"{name} is {size}, expected"):
        make(size)
