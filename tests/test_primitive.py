"""``ssl_transition`` means the joint written by hand, under all of Pyro's own inference."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
)
from pyro.infer.inspect import get_dependencies
from pyro.nn import PyroModule, PyroParam
from pyro.ops.indexing import Vindex
from pyro.poutine.runtime import _DIM_ALLOCATOR, _PYRO_STACK

from pyro_ssl import LSTMTransition, ssl_transition
from pyro_ssl.reading.program import Program

K, V, T, B = 3, 5, 4, 2


@pytest.fixture
def transition():
    return LSTMTransition(K, 4)


@pytest.fixture
def phi():
    return dist.Dirichlet(torch.ones(V)).sample((K,))


@pytest.fixture
def words():
    return torch.randint(V, (T, B))


@pytest.fixture
def model(transition, phi):
    def model(words=None, num_steps=T, num_sequences=B, lengths=None, inputs=None):
        with pyro.plate("documents", num_sequences):
            for t, z in ssl_transition("z", transition, num_steps, lengths=lengths, inputs=inputs):
                obs = None if words is None else words[t]
                pyro.sample("x", dist.Categorical(phi[z]), obs=obs)

    return model


def by_hand(transition, phi, z, words, lengths=None, inputs=None):
    """log p(z_t | z_{1:t-1}) and log p(x_t | z_t), ``(2, T, B)``, step by step."""
    state, z_prev, out = transition.initial_state(z.shape[:-1]), None, []
    for t in range(z.shape[-1]):
        p, state = transition.step(z_prev, state, None if inputs is None else inputs[t])
        z_prev = z[..., t]
        terms = torch.stack([p.log_prob(z_prev), phi[z_prev, words[t]].log()])
        out.append(terms if lengths is None else torch.where(t < lengths, terms, 0.0))
    return torch.stack(out, 1)


def trace_of(model, *args, **kwargs):
    trace = poutine.trace(model).get_trace(*args, **kwargs)
    trace.compute_log_prob()
    return trace


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-12)


# ------------------------------------------------------------------------------------ the joint


def test_joint_and_shapes(model, transition, phi, words):
    trace = trace_of(model, words)
    z, site = trace.nodes["z"]["value"], trace.nodes["z"]
    assert z.shape == (B, T) and z.dtype == torch.long
    assert site["fn"].batch_shape == (B,) and site["fn"].event_shape == (T,)
    expected = by_hand(transition, phi, z, words)
    assert_equal(site["log_prob"], expected[0].sum(0))
    assert trace.nodes["x"]["fn"].batch_shape == (T, B)
    assert_equal(trace.nodes["x"]["log_prob"], expected[1])
    assert_equal(trace.log_prob_sum(), expected.sum())


def test_body_runs_once_with_all_steps(transition):
    seen = list(ssl_transition("z", transition, T))
    assert len(seen) == 1
    t, z = seen[0]
    assert torch.equal(t, torch.arange(T)) and z.shape == (T,)


def test_paths_are_drawn_from_the_transition():
    transition = LSTMTransition(2, 3)
    with torch.no_grad():
        for parameter in transition.parameters():
            parameter *= 4

    def model():
        with pyro.plate("sequences", 20_000):
            for _ in ssl_transition("z", transition, 3):
                pass

    z = trace_of(model).nodes["z"]["value"]
    paths = torch.cartesian_prod(*[torch.arange(2)] * 3)
    expected = transition.log_prob(paths).sum(-1).exp()
    found = (z[:, None] == paths).all(-1).double().mean(0)
    assert ((found - expected).abs() < 5 * (expected * (1 - expected) / len(z)).sqrt()).all()


def test_condition(model, transition, phi, words):
    z = torch.randint(K, (B, T))
    trace = trace_of(poutine.condition(model, {"z": z}), words)
    assert trace.nodes["z"]["is_observed"]
    assert_equal(trace.log_prob_sum(), by_hand(transition, phi, z, words).sum())


def test_condition_on_what_the_body_samples(model, transition, phi, words):
    trace = trace_of(poutine.condition(model, {"x": words}))
    z = trace.nodes["z"]["value"]
    assert_equal(trace.log_prob_sum(), by_hand(transition, phi, z, words).sum())


def test_replay(model, transition, phi, words):
    trace = trace_of(model, words)
    again = trace_of(poutine.replay(model, trace=trace), words)
    assert torch.equal(again.nodes["z"]["value"], trace.nodes["z"]["value"])
    assert_equal(again.log_prob_sum(), trace.log_prob_sum())


def test_block(model, transition, phi, words):
    given = poutine.condition(model, {"z": torch.randint(K, (B, T))})
    trace = trace_of(poutine.block(given, hide=["z"]), words)
    assert "z" not in trace.nodes and "x" in trace.nodes
    assert "x" not in trace_of(poutine.block(given, hide_types=["observe"]), words).nodes


def test_mask_per_sequence(model, transition, phi, words):
    mask = torch.tensor([True, False])
    trace = trace_of(poutine.mask(model, mask=mask), words)
    expected = by_hand(transition, phi, trace.nodes["z"]["value"], words)
    assert_equal(trace.log_prob_sum(), expected[..., 0].sum())


@pytest.mark.parametrize("scale", [0.5, torch.tensor([0.5, 2.0], dtype=torch.float64)])
def test_scale_outside(model, transition, phi, words, scale):
    trace = trace_of(poutine.scale(model, scale=scale), words)
    expected = by_hand(transition, phi, trace.nodes["z"]["value"], words)
    assert_equal(trace.log_prob_sum(), (expected * scale).sum())


def test_mask_and_scale_in_the_body(transition, phi, words):
    mask = torch.rand(T, B) < 0.5

    def model():
        with pyro.plate("documents", B):
            for t, z in ssl_transition("z", transition, T):
                with poutine.mask(mask=mask[t]), poutine.scale(scale=0.3):
                    pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    trace = trace_of(model)
    prior, emission = by_hand(transition, phi, trace.nodes["z"]["value"], words)
    assert_equal(trace.log_prob_sum(), prior.sum() + 0.3 * (emission * mask).sum())


# ------------------------------------------------------------------------------------ the plates


def test_no_plate(transition, phi):
    words = torch.randint(V, (T,))

    def model():
        for t, z in ssl_transition("z", transition, T):
            pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    trace = trace_of(model)
    z = trace.nodes["z"]["value"]
    assert z.shape == (T,)
    assert_equal(trace.log_prob_sum(), by_hand(transition, phi, z, words).sum())


@pytest.mark.parametrize("dims", [(-1, -2), (-3, -1)])
def test_two_plates(phi, dims):
    transition = LSTMTransition(K, 4, input_size=2)
    sizes = {-1: 2, -2: 1, -3: 1, dims[0]: 2, dims[1]: 3}
    shape = tuple(sizes[d] for d in range(min(dims), 0))
    words, inputs = torch.randint(V, (T, *shape)), torch.randn(T, *shape, 2)
    lengths = torch.randint(1, T + 1, shape)

    def model():
        with pyro.plate("a", 2, dim=dims[0]), pyro.plate("b", 3, dim=dims[1]):
            for t, z in ssl_transition("z", transition, T, lengths=lengths, inputs=inputs):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    trace = trace_of(model)
    z = trace.nodes["z"]["value"]
    assert z.shape == (*shape, T)
    expected = by_hand(transition, phi, z, words, lengths, inputs)
    assert_equal(trace.log_prob_sum(), expected.sum())


def test_sequential_plate(transition, phi, words):
    def model():
        for b in pyro.plate("documents", B):
            for t, z in ssl_transition(f"z_{b}", transition, T):
                pyro.sample(f"x_{b}", dist.Categorical(phi[z]), obs=words[t, b])

    trace = trace_of(model)
    z = torch.stack([trace.nodes[f"z_{b}"]["value"] for b in range(B)])
    assert_equal(trace.log_prob_sum(), by_hand(transition, phi, z, words).sum())


def test_subsampling(transition, phi):
    words = torch.randint(V, (T, 6))

    def model():
        with pyro.plate("documents", 6, subsample_size=2) as index:
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[:, index][t])

    trace = trace_of(model)
    index, z = trace.nodes["documents"]["value"], trace.nodes["z"]["value"]
    assert z.shape == (2, T)
    assert_equal(trace.log_prob_sum(), 3 * by_hand(transition, phi, z, words[:, index]).sum())


# -------------------------------------------------------------------- ragged batches, and inputs


def test_ragged_equals_truncated(model, transition, phi, words):
    lengths = torch.tensor([2, T])
    trace = trace_of(model, words, lengths=lengths)
    z = trace.nodes["z"]["value"]
    assert not z[0, 2:].any()
    alone = []
    for b, n in enumerate(lengths.tolist()):
        given = poutine.condition(model, {"z": z[b : b + 1, :n]})
        alone.append(trace_of(given, words[:n, b : b + 1], n, 1).log_prob_sum())
    assert_equal(trace.log_prob_sum(), sum(alone))
    padded = words.masked_fill(torch.arange(T)[:, None] >= lengths, 0)
    again = trace_of(poutine.condition(model, {"z": z}), padded, lengths=lengths)
    assert_equal(again.log_prob_sum(), trace.log_prob_sum())


def test_empty_sequence_adds_nothing(model, words):
    z = torch.randint(K, (B, T))
    model = poutine.condition(model, {"z": z})
    trace = trace_of(model, words, lengths=torch.tensor([0, T]))
    assert trace.nodes["z"]["log_prob"][0] == 0 and not trace.nodes["x"]["log_prob"][:, 0].any()


@pytest.mark.parametrize("shape", [(T, B, 2), (T, 1, 2), (T, 2)])
def test_inputs(phi, words, shape):
    transition, inputs = LSTMTransition(K, 4, input_size=2), torch.randn(shape)

    def model():
        with pyro.plate("documents", B):
            for t, z in ssl_transition("z", transition, T, inputs=inputs):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    trace = trace_of(model)
    expanded = inputs.unsqueeze(1).expand(T, B, 2) if inputs.dim() == 2 else inputs.expand(T, B, 2)
    expected = by_hand(transition, phi, trace.nodes["z"]["value"], words, inputs=expanded)
    assert_equal(trace.log_prob_sum(), expected.sum())


# ---------------------------------------------------------------------------- Pyro's own inference

ELBOS = [
    Trace_ELBO(),
    Trace_ELBO(num_particles=3),
    Trace_ELBO(num_particles=3, vectorize_particles=True),
    Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=4),
    TraceGraph_ELBO(),
    TraceGraph_ELBO(num_particles=3, vectorize_particles=True),
    TraceEnum_ELBO(strict_enumeration_warning=False),
]


@pytest.mark.parametrize("elbo", ELBOS, ids=lambda elbo: type(elbo).__name__)
@pytest.mark.parametrize("T, B", [(T, B), (1, B), (T, 1), (1, 1)])
def test_every_elbo_is_the_same(model, transition, phi, elbo, T, B):
    words, z = torch.randint(V, (T, B)), torch.randint(K, (B, T))

    def guide(words, num_steps, num_sequences):
        logits = 200.0 * torch.nn.functional.one_hot(z, K)  # certain to draw z
        with pyro.plate("documents", num_sequences):
            pyro.sample("z", dist.Categorical(logits=logits.double()).to_event(1))

    loss = elbo.loss(model, guide, words, T, B)
    assert loss == pytest.approx(-by_hand(transition, phi, z, words).sum().item(), abs=1e-10)


@pytest.mark.stage("system")
@pytest.mark.parametrize("ELBO", [Trace_ELBO, TraceGraph_ELBO])
def test_gradient_is_unbiased(ELBO):
    """Score-function gradients against the exact ones, by enumeration."""
    T, transition = 3, LSTMTransition(2, 3)
    with torch.no_grad():
        for parameter in transition.parameters():
            parameter *= 4
    phi = dist.Dirichlet(torch.ones(4)).sample((2,)).requires_grad_()
    logits = torch.randn(B, T, 2, requires_grad=True)
    words = torch.randint(4, (T, B))

    def model():
        with pyro.plate("documents", B):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    def guide():
        with pyro.plate("documents", B):
            pyro.sample("z", dist.Categorical(logits=logits).to_event(1))

    parameters = [logits, phi, *transition.parameters()]
    paths = torch.cartesian_prod(*[torch.arange(2)] * T)
    z = paths.expand(B, -1, -1)  # (B, N, T)
    log_q = logits.log_softmax(-1).unsqueeze(1).expand(-1, len(paths), -1, -1)
    log_q = log_q.gather(-1, z.unsqueeze(-1)).squeeze(-1).sum(-1)
    log_x = (phi / phi.sum(-1, keepdim=True)).log()[z, words.T.unsqueeze(1)].sum(-1)
    log_p = transition.log_prob(paths).sum(-1) + log_x
    exact = torch.autograd.grad(-(log_q.exp() * (log_p - log_q)).sum(), parameters)

    elbo = ELBO(num_particles=500, vectorize_particles=True, max_plate_nesting=2)
    draws = []
    for _ in range(40):
        loss = elbo.differentiable_loss if ELBO is Trace_ELBO else elbo.loss_and_grads
        value = loss(model, guide)
        if ELBO is Trace_ELBO:
            draws.append(torch.autograd.grad(value, parameters))
        else:
            draws.append([p.grad.clone() for p in parameters])
            for parameter in parameters:
                parameter.grad = None
    for estimates, expected in zip(zip(*draws, strict=True), exact, strict=True):
        estimates = torch.stack(estimates)
        error = (estimates.mean(0) - expected).abs()
        assert (error <= 5 * estimates.std(0) / len(estimates) ** 0.5 + 1e-10).all()


def test_vectorised_particles_beside_a_latent_emission(transition, words):
    """``Vindex`` lets each particle have its own phi, as everywhere in Pyro."""
    drawn, z = [], torch.randint(K, (B, T))

    def model():
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, V)).to_event(1))
        with pyro.plate("documents", B):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(Vindex(phi)[..., z, :]), obs=words[t])

    def guide():
        drawn.append(pyro.sample("phi", dist.Dirichlet(torch.ones(K, V)).to_event(1)))
        logits = 200.0 * torch.nn.functional.one_hot(z, K).double()
        with pyro.plate("documents", B):
            pyro.sample("z", dist.Categorical(logits=logits).to_event(1))

    elbo = Trace_ELBO(num_particles=5, vectorize_particles=True, max_plate_nesting=2)
    loss = elbo.loss(model, guide)
    phis = drawn[-1].reshape(5, K, V)
    expected = torch.stack([by_hand(transition, phi, z, words).sum() for phi in phis]).mean()
    assert loss == pytest.approx(-expected.item(), abs=1e-10)


@pytest.mark.stage("system")
def test_svi_learns(transition):
    truth = torch.eye(K, V) * 0.9 + 0.1 / V
    words = torch.multinomial(truth[torch.arange(T) % K], 30, replacement=True)

    def model(words):
        pyro.module("transition", transition)
        phi = pyro.param("phi", torch.full((K, V), 1 / V), constraint=dist.constraints.simplex)
        with pyro.plate("documents", words.shape[1]):
            for t, z in ssl_transition("z", transition, len(words)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    def guide(words):
        logits = pyro.param("logits", torch.randn(words.shape[1], T, K))
        with pyro.plate("documents", words.shape[1]):
            pyro.sample("z", dist.Categorical(logits=logits).to_event(1))

    elbo = Trace_ELBO(num_particles=8, vectorize_particles=True)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), elbo)
    before = [p.detach().clone() for p in transition.parameters()]
    losses = [svi.step(words) for _ in range(60)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    after = transition.parameters()
    assert all(not torch.equal(p, q) for p, q in zip(before, after, strict=True))


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("T, B", [(T, B), (1, B), (T, 1), (1, 1)])
def test_predictive(model, phi, parallel, T, B):
    phi.copy_(torch.eye(K, V))  # so that x determines z
    sites = ("x", "z")
    prior = Predictive(model, num_samples=7, parallel=parallel, return_sites=sites)(None, T, B)
    assert prior["x"].shape == (7, T, B)
    assert torch.equal(prior["x"], prior["z"].reshape(7, B, T).mT)
    z = torch.randint(K, (7, B, T))
    x = Predictive(model, {"z": z}, parallel=parallel)(None, T, B)["x"]
    assert torch.equal(x, z.mT)


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_beside_deeper_plates(model, phi, parallel):
    phi.copy_(torch.eye(K, V))

    def deeper():
        with pyro.plate("elsewhere", 2, dim=-4):
            pyro.sample("w", dist.Normal(0.0, 1.0))
        return model()

    z, w = torch.randint(K, (7, B, T)), torch.randn(7, 2, 1, 1, 1)
    x = Predictive(deeper, {"z": z, "w": w}, parallel=parallel)()["x"]
    assert torch.equal(x.reshape(7, T, B), z.mT)


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_without_a_plate(transition, parallel):
    def model():
        for _, z in ssl_transition("z", transition, T):
            pyro.sample("x", dist.Categorical(torch.eye(K)[z]))

    z = torch.randint(K, (7, T))
    assert torch.equal(Predictive(model, {"z": z}, parallel=parallel)()["x"], z)


def test_pyro_module(transition, phi, words):
    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.transition = transition
            self.phi = PyroParam(phi, constraint=dist.constraints.simplex)

        def forward(self, words):
            with pyro.plate("documents", words.shape[1]):
                for t, z in ssl_transition("z", self.transition, len(words)):
                    pyro.sample("x", dist.Categorical(self.phi[z]), obs=words[t])

    trace = trace_of(Model(), words)
    expected = by_hand(transition, phi, trace.nodes["z"]["value"], words)
    assert_equal(trace.log_prob_sum(), expected.sum())
    names = {name for name, node in trace.nodes.items() if node["type"] == "param"}
    assert {"phi", "transition$$$cell.lstm.weight_ih_l0", "transition$$$head.bias"} <= names


def test_render_model(model, words):
    pytest.importorskip("graphviz")
    source = pyro.render_model(model, (words,)).source
    assert "z -> x" in source and "cluster_documents" in source and "cluster_z_time" in source


def test_get_dependencies(model, words):
    assert get_dependencies(model, (words,)) == {
        "prior_dependencies": {"z": {"z": set()}, "x": {"x": set(), "z": set()}},
        "posterior_dependencies": {"z": {"z": set(), "x": set()}},
    }


# -------------------------------------------------------------------------- leaving the body early


@pytest.mark.parametrize("run", [trace_of, lambda m: Program(m).run()], ids=["trace", "grid"])
@pytest.mark.parametrize("way", ["break", "return", "raise"])
def test_handlers_are_unwound(transition, phi, words, run, way):
    def model():
        with pyro.plate("documents", B):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
                if way == "break":
                    break
                if way == "return":
                    return
                raise KeyError("from the body")
            pyro.sample("after", dist.Normal(0.0, 1.0), obs=torch.zeros(B))

    if way == "raise":
        with pytest.raises(KeyError, match="from the body") as kept:  # and all of its frames
            run(model)
        assert kept
    else:
        run(model)
    assert not _PYRO_STACK and not _DIM_ALLOCATOR._stack


@pytest.mark.parametrize("run", [trace_of, lambda m: Program(m).run()], ids=["trace", "grid"])
def test_python_branch_on_time_fails_loudly(transition, run):
    def model():
        for t, _ in ssl_transition("z", transition, T):
            if t == 0:
                pass

    with pytest.raises(RuntimeError, match="ambiguous"):
        run(model)
    assert not _PYRO_STACK and not _DIM_ALLOCATOR._stack


# ----------------------------------------------------------------------------------------- errors


def run_loop(transition, num_steps=T, **kwargs):
    with pyro.plate("documents", B):
        for _ in ssl_transition("z", transition, num_steps, **kwargs):
            pass


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"num_steps": 0}, "num_steps is 0, expected at least 1; drop empty sequences"),
        ({"lengths": torch.ones(B)}, "dtype torch.float.., expected integers.*lengths.long()"),
        ({"lengths": torch.ones(B, dtype=torch.bool)}, "dtype torch.bool, expected integers"),
        ({"lengths": torch.tensor([1, 2, 3])}, r"shape \(3,\), expected \(2,\), one per sequence"),
        ({"lengths": torch.tensor([1, 9])}, "from 1 to 9, expected 0 to num_steps=4; write"),
        ({"lengths": torch.tensor([-1, 2])}, "from -1 to 2, expected 0 to"),
        (
            {"inputs": torch.zeros(T, B, 3).double()},
            r"shape \(4, 2, 3\), expected \(4, 2, 2\), time first",
        ),
        (
            {"inputs": torch.zeros(B, T, 2).double()},
            r"shape \(2, 4, 2\), expected \(4, 2, 2\), time first",
        ),
        ({"inputs": None}, "reads input_size=2 inputs, but inputs were not given; write ssl_"),
    ],
)
def test_errors(kwargs, message):
    transition = LSTMTransition(K, 4, input_size=2)
    kwargs = {"inputs": torch.zeros(T, 2), **kwargs}
    with pytest.raises(ValueError, match=f'Site "z": .*{message}'):
        run_loop(transition, **kwargs)
    assert not _PYRO_STACK and not _DIM_ALLOCATOR._stack


def test_error_on_inputs_that_nobody_reads(transition):
    with pytest.raises(ValueError, match="input_size=0 inputs, but inputs were given"):
        run_loop(transition, inputs=torch.zeros(T, 2))


def test_error_on_something_that_is_no_transition():
    message = r'Site "z": transition is a LSTM, expected a pyro_ssl Transition; write ssl_trans'
    with pytest.raises(TypeError, match=message):
        run_loop(torch.nn.LSTM(3, 3))


def test_error_on_a_path_of_another_length(transition):
    z = torch.zeros(B, T + 1, dtype=torch.long)
    with pytest.raises(ValueError, match=r'Site "z": a path of shape \(2, 5\).*expected \(2, 4\)'):
        poutine.condition(run_loop, {"z": z})(transition)
