"""The table over all states that samplers see is the joint that Pyro's trace sees."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.ops.indexing import Vindex
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyro_ssl import LSTMTransition, MarkovEM, MarkovTransition, ssl_transition
from pyro_ssl.errors import EmissionNotLocalError, LatentSiteError
from pyro_ssl.reading.probe import check_emission_is_local
from pyro_ssl.reading.program import Program

K, V, T, B, D = 3, 5, 4, 2, 2


class World:
    """Parameters, data, and a model around a body, for tests to change."""

    def __init__(self, shape=(B,), input_size=0):
        self.shape, self.transition = shape, LSTMTransition(K, 4, input_size=input_size)
        self.phi = dist.Dirichlet(torch.ones(V)).sample((K,)).requires_grad_()
        self.loc = torch.randn(K, D, requires_grad=True)
        self.bias = torch.randn(*shape, V, requires_grad=True)
        self.words = torch.randint(V, (T, *shape))
        self.counts = torch.randint(4, (T, *shape)).double()
        self.bits = torch.randint(2, (T, *shape)).double()
        self.bag = torch.randint(V, (T, *shape, 6))
        self.reals = torch.randn(T, *shape, D)
        self.observed = torch.rand(T, *shape) < 0.6
        self.loop_kwargs = {}

    def parameters(self):
        return [self.phi, self.loc, self.bias, *self.transition.parameters()]

    def model(self, body):
        def model():
            with pyro.plate_stack("plates", self.shape):
                for t, z in ssl_transition("z", self.transition, T, **self.loop_kwargs):
                    body(self, t, z)

        return model


def categorical(w, t, z):
    pyro.sample("x", dist.Categorical(w.phi[z]), obs=w.words[t])


def categorical_by_logits(w, t, z):
    pyro.sample("x", dist.Categorical(logits=w.phi[z]), obs=w.words[t])


def categorical_by_vindex(w, t, z):
    pyro.sample("x", dist.Categorical(Vindex(w.phi)[..., z, :]), obs=w.words[t])


def categorical_of_the_sequence(w, t, z):
    pyro.sample("x", dist.Categorical(logits=w.phi[z] + w.bias), obs=w.words[t])


def categorical_of_time(w, t, z):
    drift = t.reshape((-1,) + (1,) * (len(w.shape) + 1)) * 0.1
    pyro.sample("x", dist.Categorical(logits=w.phi[z] * drift), obs=w.words[t])


def bag_of_words(w, t, z):
    words = dist.Categorical(w.phi[z].unsqueeze(-2)).expand_by([]).expand(z.shape + (6,))
    pyro.sample("x", words.to_event(1), obs=w.bag[t])


def normal(w, t, z):
    pyro.sample("x", dist.Normal(w.loc[z, 0], w.loc[z, 1].exp()), obs=w.reals[t][..., 0])


def normal_vector(w, t, z):
    pyro.sample("x", dist.Normal(w.loc[z], 0.7).to_event(1), obs=w.reals[t])


def poisson(w, t, z):
    pyro.sample("x", dist.Poisson(w.loc[z, 0].exp()), obs=w.counts[t])


def bernoulli(w, t, z):
    pyro.sample("x", dist.Bernoulli(logits=w.loc[z, 0]), obs=w.bits[t])


def arithmetic_of_z(w, t, z):
    pyro.sample("x", dist.Normal(w.loc[0, 0] * z, 1.0), obs=w.reals[t][..., 0])


def several_sites(w, t, z):
    categorical(w, t, z)
    pyro.sample("y", dist.Normal(w.loc[z], 0.7).to_event(1), obs=w.reals[t])
    pyro.sample("all alike", dist.Normal(w.loc[0, 0], 1.0), obs=w.reals[t][..., 1])


def factor(w, t, z):
    pyro.factor("f", -(w.loc[z, 0] - w.reals[t][..., 0]).square())


def deterministic(w, t, z):
    rate = pyro.deterministic("rate", w.loc[z, 0].exp(), event_dim=0)
    pyro.sample("x", dist.Poisson(rate), obs=w.counts[t])


def masked(w, t, z):
    with poutine.mask(mask=w.observed[t]):
        categorical(w, t, z)
        pyro.sample("y", dist.Normal(w.loc[z, 0], 1.0), obs=w.reals[t][..., 0])


def masked_by_bool(w, t, z):
    categorical(w, t, z)
    with poutine.mask(mask=False):
        pyro.sample("y", dist.Normal(w.loc[z, 0], 1.0), obs=w.reals[t][..., 0])


def masked_by_state(w, t, z):
    with poutine.mask(mask=z > 0):
        categorical(w, t, z)


def scaled(w, t, z):
    with poutine.scale(scale=0.3):
        categorical(w, t, z)
        with poutine.scale(scale=w.reals[t][..., 0].exp()):
            pyro.sample("y", dist.Normal(w.loc[z, 0], 1.0), obs=w.reals[t][..., 0])


BODIES = [
    categorical,
    categorical_by_logits,
    categorical_by_vindex,
    categorical_of_the_sequence,
    categorical_of_time,
    bag_of_words,
    normal,
    normal_vector,
    poisson,
    bernoulli,
    arithmetic_of_z,
    several_sites,
    factor,
    deterministic,
    masked,
    masked_by_bool,
    masked_by_state,
    scaled,
]


def assert_same_joint(world, model):
    """The joint by the table, its look-up of a path and its gradients are those of the trace."""
    run = Program(model).run()
    path = torch.randint(K, (T, run.num_sequences))
    if run.grid.lengths is not None:
        path[torch.arange(T)[:, None] >= run.grid.lengths] = 0
    emission = run.grid.path(path)
    torch.testing.assert_close(
        emission, run.grid.table().gather(-1, path.unsqueeze(-1)).squeeze(-1), rtol=0, atol=1e-12
    )
    given = {"z": run.unflatten(path)}
    given |= {n: s["value"] for n, s in run.sites.items() if not s["is_observed"]}
    trace = poutine.trace(poutine.condition(model, given)).get_trace()
    expected = trace.log_prob_sum()
    found = run.log_joint(path)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)

    def gradients(value):
        return torch.autograd.grad(value, world.parameters(), materialize_grads=True)

    for ours, pyros in zip(gradients(found), gradients(expected), strict=True):
        torch.testing.assert_close(ours, pyros, rtol=0, atol=1e-11)
    check_emission_is_local(run, run.grid.table())


@pytest.mark.parametrize("shape", [(B,), (), (2, 3)], ids=["plate", "no plate", "two plates"])
@pytest.mark.parametrize("body", BODIES)
def test_same_joint(body, shape):
    world = World(shape)
    assert_same_joint(world, world.model(body))


@pytest.mark.parametrize("body", [categorical, normal_vector, masked, scaled])
def test_same_joint_ragged_with_inputs(body):
    world = World((2, 3), input_size=2)
    world.loop_kwargs = {
        "lengths": torch.randint(0, T + 1, world.shape),
        "inputs": torch.randn(T, *world.shape, 2),
    }
    assert_same_joint(world, world.model(body))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: poutine.mask(model, mask=torch.tensor([True, False])),
        lambda model: poutine.scale(model, scale=0.5),
        lambda model: poutine.scale(model, scale=torch.tensor([0.5, 2.0]).double()),
    ],
    ids=["mask", "scale", "scale by sequence"],
)
@pytest.mark.parametrize("body", [categorical, several_sites, masked, scaled])
def test_same_joint_masked_and_scaled_outside(body, wrap):
    world = World()
    world.loop_kwargs = {"lengths": torch.tensor([2, T])}
    assert_same_joint(world, wrap(world.model(body)))


@pytest.mark.parametrize("in_plate", [False, True])
def test_same_joint_with_sites_outside_the_loop(in_plate):
    world = World()

    def model():
        if in_plate:
            with pyro.plate("states", K):
                phi = pyro.sample("phi", dist.Dirichlet(torch.ones(V)))
        else:
            phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, V)).to_event(1))
        with pyro.plate("documents", B):
            pyro.sample("label", dist.Normal(world.loc[0, 0], 1.0), obs=torch.zeros(B))
            for t, z in ssl_transition("z", world.transition, T):
                pyro.sample("x", dist.Categorical(phi[z]), obs=world.words[t])

    assert_same_joint(world, model)


def test_same_joint_where_the_body_is_conditioned():
    world = World()

    def model():
        with pyro.plate("documents", B):
            for _, z in ssl_transition("z", world.transition, T):
                pyro.sample("x", dist.Categorical(world.phi[z]))

    assert_same_joint(world, poutine.condition(model, {"x": world.words}))


def test_same_joint_where_the_transition_is_sampled():
    world = World()

    def model():
        rows = pyro.sample("rows", dist.Dirichlet(torch.ones(K + 1, K)).to_event(1))
        chain = MarkovTransition(K, initial=rows[0], matrix=rows[1:])
        with pyro.plate("documents", B):
            for t, z in ssl_transition("z", chain, T):
                categorical(world, t, z)

    world.transition = MarkovTransition(K)
    assert_same_joint(world, model)


def test_padding_by_minus_one_is_not_read():
    world = World()
    world.loop_kwargs = {"lengths": torch.tensor([2, T])}
    expected = Program(world.model(categorical)).run().grid.table()
    world.words = world.words.masked_fill(torch.arange(T)[:, None] >= torch.tensor([2, T]), -1)
    found = Program(world.model(categorical)).run()
    assert torch.equal(found.grid.table(), expected)
    assert torch.equal(found.grid.path(torch.zeros(T, B, dtype=torch.long)), expected[..., 0])


def test_subsampling_does_not_temper_the_posterior():
    world = World((6,))

    def model(subsample_size):
        with pyro.plate("documents", 6, subsample_size=subsample_size) as index:
            for t, z in ssl_transition("z", world.transition, T):
                with poutine.scale(scale=0.3):  # the user's own, which stays
                    pyro.sample("x", dist.Categorical(world.phi[z]), obs=world.words[:, index][t])

    run, full = Program(model, (2,)).run(), Program(model, (None,)).run()
    assert run.subsample_factor == 3.0 and run.grid.transition_scale is None
    index = run.subsamples["documents"]
    torch.testing.assert_close(run.grid.table(), full.grid.table()[:, index])
    again = Program(model, (2,)).run({"documents": index.flip(0)})
    torch.testing.assert_close(again.grid.table(), run.grid.table().flip(1))


# ------------------------------------------------------------------------------------------ memory


class BiggestTensor(TorchDispatchMode):
    """Remembers the number of elements of the biggest storage that any operation gave."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, torch.Tensor):
                size = value.untyped_storage().nbytes() // value.element_size()
                self.numel = max(self.numel, size)
        return out


@pytest.mark.parametrize("given_as", ["probs", "logits"])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("latent", [False, True])
def test_no_tensor_over_states_steps_sequences_and_symbols(given_as, ragged, latent):
    T, B, V = 6, 8, 1000
    words = torch.randint(V, (T, B))
    lengths = torch.randint(1, T, (B,)) if ragged else None
    phi = torch.rand(K, V, requires_grad=True)
    transition = LSTMTransition(K, 4)

    def model():
        if latent:
            with pyro.plate("states", K):
                emission = pyro.sample("phi", dist.Dirichlet(torch.ones(V)))
        else:
            emission = phi
        with pyro.plate("documents", B):
            for t, z in ssl_transition("z", transition, T, lengths=lengths):
                pyro.sample("x", dist.Categorical(**{given_as: emission[z]}), obs=words[t])

    with BiggestTensor() as seen:
        run = Program(model).run()
        total = run.grid.table().sum() + run.log_emission(torch.zeros_like(words)).sum()
        if not latent:
            total.backward()
    assert seen.numel <= K * V < T * B * V


# ------------------------------------------------------------------------------------------ errors


def table_of(world, body):
    model = world.model(body)
    run = Program(model).run()
    check_emission_is_local(run, run.grid.table())


def latent(w, t, z):
    pyro.sample("noise", dist.Normal(0.0, 1.0))


def partly_observed(w, t, z):
    words = dist.Categorical(w.phi[z].detach())
    pyro.sample("x", words, obs=w.words[t], obs_mask=w.observed[t])


def plate_in_body(w, t, z):
    with pyro.plate("tokens", 6):
        pyro.sample("x", dist.Categorical(w.phi[z]), obs=w.bag[t].movedim(-1, 0))


def nothing(w, t, z):
    pass


def no_dependence(w, t, z):
    pyro.sample("x", dist.Categorical(w.phi[0]), obs=w.words[t])


def batch_first(w, t, z):
    pyro.sample("x", dist.Categorical(w.phi[z]), obs=w.words.mT)


def one_row(w, t, z):
    pyro.sample("x", dist.Categorical(w.phi[z[:2]]), obs=w.words[t])


@pytest.mark.parametrize(
    "body, error, message",
    [
        (latent, LatentSiteError, 'Site "noise": latent, inside the loop of "z".*give obs='),
        (partly_observed, LatentSiteError, "latent, inside the loop.*by poutine.mask"),
        (plate_in_body, EmissionNotLocalError, 'Site "x": inside plate "tokens".*fn.to_event'),
        (nothing, EmissionNotLocalError, 'Site "z": its loop observed nothing; write pyro.samp'),
        (no_dependence, EmissionNotLocalError, 'Site "x":.*does not vary over the K=3 states'),
        (
            batch_first,
            EmissionNotLocalError,
            r'Site "x": .*value \(2, 4\), which do not broadcast to \(K, T, B\) = \(3, 4, 2\); '
            r".*z of shape \(3, 1, 1\): index by the whole of z, as in phi\[z\], and keep data",
        ),
        (one_row, EmissionNotLocalError, r"batch shape \(2, 1, 1\).*do not broadcast to"),
    ],
)
def test_errors_in_the_body(body, error, message):
    with pytest.raises(error, match=message):
        table_of(World(), body)


@pytest.mark.parametrize(
    "mix",
    [
        lambda z: (z == z.max()).long(),
        lambda z: z.cumsum(0).clamp(max=1),
        lambda z: z.roll(1, 0),
        lambda z: z.flip(0),
        lambda z: (z == z[-1]).long(),
    ],
    ids=["max", "cumsum", "roll", "flip", "last"],
)
@pytest.mark.parametrize("num_states", [2, 3])
def test_error_where_states_are_mixed(mix, num_states):
    world = World()
    world.transition = LSTMTransition(num_states, 4)

    def body(w, t, z):
        pyro.sample("x", dist.Categorical(w.phi[mix(z)]), obs=w.words[t])

    message = 'Site "x": .*loop of "z", depends on the states that stand beside k.*use z elem'
    with pytest.raises(EmissionNotLocalError, match=message):
        table_of(world, body)


def test_error_where_there_is_nothing_to_draw():
    world = World()
    for model in (
        lambda: None,
        poutine.condition(world.model(categorical), {"z": torch.zeros(B, T).long()}),
        poutine.block(world.model(categorical), hide=["z"]),
    ):
        with pytest.raises(LatentSiteError, match="no ssl_transition whose path is still to be"):
            Program(model).run()


def test_two_loops():
    world = World()

    def model():
        with pyro.plate("documents", B):
            for t, z in ssl_transition("first", world.transition, T):
                pyro.sample("x", dist.Categorical(world.phi[z]), obs=world.words[t])
            for t, z in ssl_transition("second", world.transition, T):
                pyro.sample("y", dist.Categorical(world.phi[z]), obs=world.words[t])

    message = 'Site "second": a second ssl_transition.*"first"\\), expected one.*{"second": path}'
    with pytest.raises(LatentSiteError, match=message):
        Program(model).run()
    for given, drawn in (("first", "second"), ("second", "first")):
        path = torch.zeros(B, T, dtype=torch.long)
        run = Program(poutine.condition(model, {given: path})).run()
        assert run.loop.name == drawn and run.grid.table().shape == (T, B, K)


# -------------------------------------------------------------------------- latent sites elsewhere


def with_prior(prior, use, V=V):
    """A model of fixed data whose emission is ``use(phi, z)``, with ``phi`` from ``prior``."""
    words, transition = torch.randint(V, (T, B)), LSTMTransition(K, 4)

    def model():
        phi = pyro.sample("phi", prior) if isinstance(prior, dist.Distribution) else prior()
        with pyro.plate("documents", B):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Categorical(use(phi, z)), obs=words[t])

    return model


def rows(V=V):
    return dist.Dirichlet(torch.ones(K, V)).to_event(1)


def setup(model):
    """Only Dirichlet sites in closed form may be latent."""
    MarkovEM(model).step()


def test_latent_site_that_is_no_dirichlet():
    model = with_prior(
        dist.Normal(0.0, 1.0).expand([K, V]).to_event(2), lambda phi, z: phi[z].exp()
    )
    message = 'Site "phi": latent, of distribution Normal, which MarkovEM cannot draw; .*condition'
    with pytest.raises(LatentSiteError, match=message):
        setup(model)
    setup(poutine.condition(model, {"phi": torch.zeros(K, V)}))


@pytest.mark.parametrize("V", [2, 3, 6])
@pytest.mark.parametrize(
    "use",
    [
        lambda phi, z: phi[z] ** 2,
        lambda phi, z: 0.5 * (phi[z] + phi[(z + 1) % K]),
        lambda phi, z: 0.9 * phi[z] + 0.1 / phi.shape[-1],
    ],
    ids=["power", "mixture of rows", "mixture with a constant"],
)
def test_dirichlet_that_is_not_conjugate(use, V):
    model = with_prior(rows(V), use, V)
    with pytest.raises(LatentSiteError, match='Site "phi": Dirichlet, but it does not enter the'):
        setup(model)
    setup(poutine.condition(model, {"phi": torch.ones(K, V) / V}))


def test_mixture_of_two_dirichlet_sites_is_not_conjugate():
    def prior():
        background = pyro.sample("background", dist.Dirichlet(torch.ones(V)))
        return 0.5 * (pyro.sample("phi", rows()) + background)

    with pytest.raises(LatentSiteError, match="Dirichlet, but it does not enter the likelihood"):
        setup(with_prior(prior, lambda phi, z: phi[z]))


def test_dirichlet_whose_prior_is_latent():
    def prior():
        mean = pyro.sample("mean", dist.Dirichlet(torch.ones(V)))
        return pyro.sample("phi", dist.Dirichlet(10 * mean.expand(K, V)).to_event(1))

    model = with_prior(prior, lambda phi, z: phi[z])
    with pytest.raises(
        LatentSiteError, match='Site "mean": Dirichlet, but the concentration of "phi"'
    ):
        setup(model)
    setup(poutine.condition(model, {"mean": torch.full((V,), 1 / V)}))
