"""Bad input raises a named error before anything has changed; small input works."""

from contextlib import contextmanager

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.optim import Adam

from pyro_ssl import (
    LSTMTransition,
    MarkovTransition,
    ParticleFilter,
    ParticleGibbs,
    StochasticEM,
    ssl_transition,
)
from pyro_ssl.errors import NonFiniteError, SMCFailed

K, V, T, B = 3, 5, 4, 2


class World:
    """A model of words and reals with parameters to learn, and data to spoil."""

    def __init__(self):
        self.transition = LSTMTransition(K, 4)
        self.phi = dist.Dirichlet(torch.ones(V)).sample((K,))
        self.words, self.lengths = torch.randint(V, (T, B)), None
        self.factor = torch.zeros(K, T, B)
        self.inputs = None

    def __call__(self):
        T, B = self.words.shape
        pyro.module("transition", self.transition)
        pyro.param("scale", torch.ones(()))
        with pyro.plate("documents", B):
            for t, z in ssl_transition(
                "z", self.transition, T, lengths=self.lengths, inputs=self.inputs
            ):
                pyro.sample("x", dist.Categorical(self.phi[z]), obs=self.words[t])
                b = torch.arange(B)
                pyro.factor("f", self.factor[z, t.unsqueeze(-1), b])


def gibbs(model, **settings):
    pg = ParticleGibbs(model, **{"num_particles": 3, **settings})
    pg.run(num_samples=2, disable_progbar=True)
    return pg.get_samples()["z"]


def sweep(model, **settings):
    return ParticleGibbs(model, **{"num_particles": 3, **settings}).sweep(None)


def em(model, **settings):
    return StochasticEM(model, Adam({"lr": 0.1}), **{"num_particles": 3, **settings}).step()


def particle_filter(model, num_particles=3):
    return ParticleFilter(model, num_particles).log_likelihood()


ALL = [gibbs, sweep, em, particle_filter]
every_class = pytest.mark.parametrize("use", ALL)


@contextmanager
def nothing_changes(world, generators=True):
    """The block leaves every parameter, and the generators, as they were."""
    pyro.module("transition", world.transition)
    pyro.param("scale", torch.ones(()))
    store = {name: value.clone() for name, value in pyro.get_param_store().items()}
    state = torch.get_rng_state()
    yield
    now = dict(pyro.get_param_store().items())
    assert now.keys() == store.keys()
    assert all(torch.equal(now[name], store[name]) for name in store)
    if generators:
        assert torch.equal(torch.get_rng_state(), state)


# ----------------------------------------------------------------------------------------- the data


@every_class
@pytest.mark.parametrize("symbol", [V, 10**6, -1])
def test_symbol_outside_the_vocabulary(use, symbol):
    world = World()
    world.words[2, 1] = symbol
    message = (
        f'Site "x": the value at step 2 of sequence 1 is {symbol}, expected an integer from 0 to '
        r"4; encode the data with the vocabulary of the model \(V=5\), and leave padding out by "
        "lengths="
    )
    with nothing_changes(world), pytest.raises(ValueError, match=message):
        use(world)


@every_class
def test_padding_is_never_read(use):
    world = World()
    world.lengths = torch.tensor([2, T])
    results = []
    for padding in (0, -1, 10**6):
        world.words[2:, 0] = padding
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        world.transition.load_state_dict(LSTMTransition(K, 4).state_dict())
        results.append(torch.as_tensor(use(world)))
    assert all(torch.equal(result, results[0]) for result in results)


@every_class
def test_empty_document(use):
    world = World()
    world.lengths = torch.tensor([0, T])
    result = use(world)
    if use in (gibbs, sweep):
        assert not result[..., 0, :].any()
    if use is particle_filter:
        assert not result[:, 0].any()


@every_class
@pytest.mark.parametrize("lengths", [[1, T + 1], [-1, T]])
def test_lengths_out_of_range(use, lengths):
    world = World()
    world.lengths = torch.tensor(lengths)
    message = f'Site "z": lengths run from {lengths[0]} to {lengths[1]}, expected 0 to num_steps=4'
    with nothing_changes(world), pytest.raises(ValueError, match=message):
        use(world)


@every_class
def test_no_steps(use):
    world = World()
    world.words = world.words[:0]
    message = 'Site "z": num_steps is 0, expected at least 1; drop empty sequences before the model'
    with nothing_changes(world), pytest.raises(ValueError, match=message):
        use(world)


# ------------------------------------------------------------------------------------ the densities


@every_class
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_emission_that_is_not_finite(use, value):
    pyro.enable_validation(False)  # Pyro's own would refuse NaN first
    world = World()
    world.factor[2, 3, 1] = value
    message = rf'Site "f": log p\(x_t \| z_t=2\) is {value} at step 3 of sequence 1, expected'
    with nothing_changes(world), pytest.raises(NonFiniteError, match=message):
        use(world)


@every_class
def test_observation_that_no_state_explains(use):
    world = World()
    world.factor[:, 3, 1] = -torch.inf
    message = (
        'Site "x", "f": the observation at step 3 of sequence 1 has probability 0 under each of '
        "the 3 states, expected a positive one; smooth the emission"
    )
    with nothing_changes(world), pytest.raises(SMCFailed, match=message):
        use(world)


@every_class
def test_observation_that_some_states_explain(use):
    world = World()
    world.factor[1:, 3, 1] = -torch.inf
    result = use(world)
    if use in (gibbs, sweep):
        assert not result[..., 1, 3].any()


@every_class
def test_path_that_the_transition_forbids(use):
    """Every row of the table is fine, but no path through it has positive probability."""
    world = World()
    world.transition = MarkovTransition(K, initial=torch.eye(K)[0], matrix=torch.eye(K))
    world.factor[0, 3, 1] = -torch.inf
    message = 'Site "z": all 3 particles of sequence 1 have weight zero at step 3 .*Nothing was upd'
    with nothing_changes(world, generators=False), pytest.raises(SMCFailed, match=message):
        use(world)


@every_class
def test_transition_that_is_nan(use):
    world = World()
    world.transition.head.bias.data[:] = torch.nan
    with pytest.raises(
        NonFiniteError, match=r'Site "z": log p\(z_t \| z_{1:t-1}\) is NaN at step 0'
    ):
        use(world)


# --------------------------------------------------------------------------------- dtype and device


@every_class
def test_mixed_dtypes(use):
    world = World()
    world.phi, world.factor = world.phi.float(), world.factor.float()
    message = 'Site "x": its log-density is torch.float32, but .* has torch.float64 parameters'
    with nothing_changes(world), pytest.raises(ValueError, match=message):
        use(world)


@every_class
def test_inputs_of_another_dtype(use):
    world = World()
    world.transition = LSTMTransition(K, 4, input_size=2)
    world.inputs = torch.zeros(T, B, 2, dtype=torch.float32)
    message = 'Site "z": inputs are torch.float32, but the transition has torch.float64 parameters'
    with nothing_changes(world), pytest.raises(ValueError, match=message):
        use(world)


@every_class
@pytest.mark.parametrize("what", ["phi", "words", "lengths", "inputs"])
def test_mixed_devices(use, what):
    """The meta device stands for a second one; it needs no hardware."""
    pyro.enable_validation(False)  # validation reads values, and meta tensors have none
    world = World()
    if what == "inputs":
        world.transition = LSTMTransition(K, 4, input_size=2)
        world.inputs = torch.zeros(T, B, 2, device="meta")
    elif what == "lengths":
        world.lengths = torch.ones(B, dtype=torch.long, device="meta")
    else:
        setattr(world, what, getattr(world, what).to("meta"))
    found = f"{what} are" if what in ("inputs", "lengths") else "its distribution or value is"
    message = f"{found} on meta, but the transition .*is on cpu; expected one device: write"
    with nothing_changes(world), pytest.raises(ValueError, match=message):
        use(world)


# ------------------------------------------------------------------------------------- the settings


@every_class
def test_no_particles(use):
    world = World()
    with nothing_changes(world), pytest.raises(ValueError, match="num_particles is 0, expected at"):
        use(world, num_particles=0)


@pytest.mark.parametrize("use", [gibbs, sweep, em])
@pytest.mark.parametrize(
    "settings, message",
    [
        ({"resampling": "stratified"}, r"resampling is \"stratified\", expected one of \['multin"),
        ({"ancestor_sampling": -1}, r"ancestor_sampling is -1, expected 0 \(never\) or"),
    ],
)
def test_wrong_settings(use, settings, message):
    world = World()
    with nothing_changes(world), pytest.raises(ValueError, match=message):
        use(world, **settings)


@every_class
@pytest.mark.parametrize("K, T, B", [(1, T, B), (K, 1, B), (K, T, 1), (1, 1, 1)])
def test_smallest_sizes(use, K, T, B):
    world = World()
    world.transition, world.phi = LSTMTransition(K, 4), world.phi[:K]
    world.words, world.factor = world.words[:T, :B], world.factor[:K, :T, :B]
    use(world, num_particles=1)
    use(world, num_particles=2)
