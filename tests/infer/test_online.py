"""Filtering as observations come is the filter on all of them, whatever the parts.

Nothing here is a matter of chance: two filters of one seed are the same to the last bit, or not.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_ssl import GaussianLSTMTransition, LSTMTransition, ParticleFilter, ssl_transition
from pyro_ssl.errors import CheckpointError, EmissionNotLocalError, SMCFailed
from pyro_ssl.infer import FilterState
from pyro_ssl.reading.emission import read_emission
from pyro_ssl.reading.program import Program
from pyro_ssl.smc.roll_out import even
from tests.faults.digest import digest_of_generators
from tests.faults.disk import damage
from tests.statistics import by_pairs

T, B, P = 12, 3, 6
SIZES = {"T": T, "B": B}


def world(kind, inputs=False):
    """A model of (x, u, seen, lengths), and its data."""
    torch.manual_seed(2)
    made = LSTMTransition if kind == "states" else GaussianLSTMTransition
    transition = made(3 if kind == "states" else 2, 4, input_size=2 if inputs else 0)
    with torch.no_grad():
        for parameter in transition.parameters():
            parameter.normal_()
    loc, loading = torch.randn(3, 4), torch.randn(4, 2)

    def emission(z):
        if kind == "states":
            return dist.Normal(loc[z], 1.0).to_event(1)
        mean = z @ loading.T
        if kind == "linear":
            return dist.Normal(mean, 0.5).to_event(1)
        if kind == "counts":
            return dist.Poisson(mean.clamp(max=3.0).exp()).to_event(1)
        return dist.StudentT(3.0, mean, 0.5).to_event(1)

    def model(x, u=None, seen=None, lengths=None):
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x), inputs=u, lengths=lengths):
                with poutine.mask(mask=True if seen is None else seen[t]):
                    pyro.sample("x", emission(z), obs=x[t])

    x = torch.randn(T, B, 4)
    return model, x.abs().round() if kind == "counts" else x


def options(which):
    return {
        "plain": {},
        "inputs": {"u": torch.randn(T, B, 2)},
        "missing": {"seen": (torch.rand(T, B) < 0.6).index_fill(0, torch.tensor([0]), True)},
        "ragged": {"lengths": torch.tensor([T, 5, 2])},
    }[which]


def part(x, given, first, last):
    """The arguments of some steps."""
    now = {name: value[first:last] for name, value in given.items() if name != "lengths"}
    if "lengths" in given:
        now["lengths"] = (given["lengths"] - first).clamp(0, last - first)
    return (x[first:last],), now


def in_parts(pf, x, given, size):
    states = []
    for first in range(0, T, size):
        args, kwargs = part(x, given, first, min(first + size, T))
        if states:
            states.append(pf.update(states[-1], *args, **kwargs))
        else:
            states.append(pf.start(*args, **kwargs))
    return states


@pytest.mark.stage("system")
@pytest.mark.parametrize(
    "kind, which, dtype",
    by_pairs(
        ["states", "linear", "counts", "heavy tails"],
        ["plain", "inputs", "missing", "ragged"],
        [torch.float32, torch.float64],
    ),
)
def test_parts_are_the_whole(kind, which, dtype):
    torch.set_default_dtype(dtype)
    model, x = world(kind, inputs=which == "inputs")
    given = options(which)
    pf = ParticleFilter(model, P, seed=5)
    whole = pf.log_likelihood(x, **given)
    without = ParticleFilter(model, P, seed=5, store_history=False)
    assert torch.equal(without.log_likelihood(x, **given), whole)
    totals = []
    for size in (1, 5):
        states = in_parts(pf, x, given, size)
        assert torch.equal(torch.cat([s.log_likelihood for s in states]), whole)
        assert states[-1].num_steps == T and states[-1].num_particles == P
        totals.append(states[-1].log_evidence)
    torch.testing.assert_close(totals[0], whole.sum(0))
    assert torch.equal(*totals)


@pytest.mark.parametrize(
    "kind, resampling, twist",
    by_pairs(["states", "linear", "counts"], ["systematic", "multinomial"], [None, "markov"]),
)
def test_scores_without_a_history_are_the_same(kind, resampling, twist, always_twisted):
    model, x = world(kind)
    how = {"resampling": resampling, "twist": twist, "seed": 1}
    with_it, without = (ParticleFilter(model, P, store_history=s, **how) for s in (True, False))
    for score in ("log_evidence", "log_likelihood"):
        found = []
        for pf in (with_it, without):
            pyro.set_rng_seed(0)
            found.append(getattr(pf, score)(x))
        assert torch.equal(*found)
    if kind != "counts":
        found = []
        for pf in (with_it, without):
            pyro.set_rng_seed(0)
            found.append(pf.perplexity(x, start=3))
        assert found[0] == found[1]


def test_one_sequence_without_a_plate():
    transition = LSTMTransition(3, 4)

    def model(x):
        for t, z in ssl_transition("z", transition, len(x)):
            pyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=x[t])

    x, pf = torch.randn(7), ParticleFilter(model, P, seed=0)
    state = pf.update(pf.start(x[:1]), x[1:])
    assert torch.equal(state.log_likelihood, pf.log_likelihood(x)[1:])
    assert state.log_evidence.shape == ()


def test_several_chains_and_posterior_samples():
    chains = {"a": LSTMTransition(2, 4), "b": LSTMTransition(3, 4)}

    def model(x):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
        with pyro.plate("series", x.shape[1]):
            for t, (a, b) in ssl_transition(chains, len(x)):
                pyro.sample("x", dist.Normal(loc[a, b], 1.0), obs=x[t])

    x, samples = torch.randn(T, B), {"loc": torch.randn(4, 2, 3)}
    pf = ParticleFilter(model, P, seed=3, posterior_samples=samples)
    whole, states = pf.log_likelihood(x), in_parts(pf, x, {}, 5)
    found = torch.cat([state.log_likelihood for state in states])
    assert torch.equal(found[:5], whole[:5])
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)
    ahead = pf.forecast_from(states[0], x[5:7], horizon=2)
    assert ahead.log_prob.shape == (2, B) and ahead.samples.shape == (P, B)
    assert {name: z.shape for name, z in ahead.paths.items()} == dict.fromkeys("ab", (P, B, 4))


@pytest.mark.parametrize("kind", ["states", "linear"])
@pytest.mark.parametrize("inputs", [False, True])
def test_a_forecast_is_that_of_the_filter_on_all(kind, inputs):
    model, x = world(kind, inputs)
    given = options("inputs") if inputs else {}
    future = torch.randn(3, B, 2) if inputs else None
    pf = ParticleFilter(model, P, twist=None, seed=2)
    args, kwargs = part(x, given, 0, 8)
    state = pf.start(*args, **kwargs)
    pyro.set_rng_seed(1)
    whole = pf.forecast(x, start=8, horizon=3, future_inputs=future, **given)
    args, kwargs = part(x, given, 8, T)
    pyro.set_rng_seed(1)
    found = pf.forecast_from(state, *args, horizon=3, future_inputs=future, **kwargs)
    assert torch.equal(found.log_prob, whole.log_prob) and torch.equal(found.paths, whole.paths)
    assert found.paths.shape[:3] == (P, B, T - 8 + 3)


def test_a_forecast_of_counts_weighs_its_particles():
    """Particles of an emission that is not quadratic have weights, by which paths are drawn."""
    model, x = world("counts")
    pf = ParticleFilter(model, 40, seed=0)
    state = pf.start(x[:5])
    (track,) = state.tracks
    assert track.weights is not None and track.weights.std() > 0.1
    standing = track.standing(Program(model, (x,)).run().transition)
    drawn = even(standing)
    places = (drawn.z.unsqueeze(2) == standing.z.unsqueeze(1)).all(-1).sum(1)  # (B, P)
    assert ((places - track.weights).abs() <= 1.0 + 1e-9).all(), "systematic: n w, up to one"
    ahead = pf.forecast_from(state, x[5:7])
    assert ahead.log_prob.isfinite().all() and ahead.state_probs is None


def test_the_body_scores_forecasts_as_the_quadratic_function_does():
    model, x = world("linear")
    run = Program(model, (x,)).run()
    paths = torch.randn(T, B, P, 2)
    exact, body = (read_emission(run, expanded=e).log_predictive(paths, None) for e in (0, 1))
    torch.testing.assert_close(body, exact)


def test_a_state_that_is_saved_goes_on_as_if_it_had_not_been(tmp_path):
    for kind in ("states", "linear", "counts"):
        model, x = world(kind)
        pf = ParticleFilter(model, P)
        state = pf.start(x[:5])
        state.save(tmp_path / kind)
        pyro.set_rng_seed(9)  # nothing is drawn from it
        before = digest_of_generators()
        again = ParticleFilter(model, P).update(FilterState.load(tmp_path / kind), x[5:])
        assert digest_of_generators() == before
        there = pf.update(state, x[5:])
        assert torch.equal(again.log_likelihood, there.log_likelihood)
        assert torch.equal(again.log_evidence, there.log_evidence)
        assert torch.equal(again.tracks[0].z, there.tracks[0].z)


@pytest.mark.parametrize("how", ["flip", "cut"])
def test_a_damaged_state_is_told(tmp_path, how):
    model, x = world("states")
    ParticleFilter(model, P).start(x).save(tmp_path)
    damage(next(tmp_path.glob("*.safetensors")), how)
    with pytest.raises(CheckpointError, match="damaged|bytes"):
        FilterState.load(tmp_path)


def test_what_a_sweep_needs_is_told():
    model, x = world("states")
    with pytest.raises(ValueError, match=r"keeps no history.*Write ParticleFilter\(model"):
        ParticleFilter(model, P, store_history=False).sweep(x)
    with pytest.raises(TypeError, match="store_history is 0, expected True or False"):
        ParticleFilter(model, P, store_history=0)


def test_steps_of_others_are_told():
    model, x = world("states")
    pf = ParticleFilter(model, P)
    state = pf.start(x[:5])
    with pytest.raises(ValueError, match=r"of sequences \(2,\), expected \(3,\)"):
        pf.update(state, x[5:, :2])
    with pytest.raises(
        ValueError, match="the filter has num_particles 7, expected num_particles 6"
    ):
        ParticleFilter(model, 7).update(state, x[5:])
    with pytest.raises(ValueError, match="the filter has transition GaussianLSTM"):
        ParticleFilter(world("linear")[0], P).update(state, x[5:])
    with pytest.raises(TypeError, match="state is a Tensor.*write state = pf.start"):
        pf.update(x[:5], x[5:])
    with pytest.raises(TypeError, match="state is a Tensor"):
        pf.forecast_from(x[:5], x[5:])
    ended = pf.start(x[:5], lengths=torch.tensor([5, 2, 5]))
    with pytest.raises(ValueError, match="sequence 1 has new steps, expected none"):
        pf.update(ended, x[5:], lengths=torch.tensor([7, 7, 7]))
    with pytest.raises(ValueError, match=r"expected lengths of 0 for sequences \[1\]"):
        pf.update(ended, x[5:])


def test_another_transition_is_told():
    def model(x, size):
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", LSTMTransition(3, size), len(x)):
                pyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=x[t])

    x, pf = torch.randn(T, B), ParticleFilter(model, P)
    with pytest.raises(ValueError, match=r"states of shapes .* expected .*pf.start\(x\)"):
        pf.update(pf.start(x[:5], 4), x[5:], 8)


def test_a_step_that_nothing_explains_is_told_with_its_number():
    transition = LSTMTransition(2, 4)
    with torch.no_grad():
        transition.head.weight.zero_()
        transition.head.bias.copy_(torch.tensor([0.0, -torch.inf]))

    def model(x):
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x)):
                probs = torch.eye(2)[z]
                pyro.sample("x", dist.Categorical(probs), obs=x[t])

    x = torch.zeros(6, 2, dtype=torch.long)
    pf = ParticleFilter(model, 3)
    state = pf.start(x)
    with pytest.raises(SMCFailed, match="weight zero at step 7"):
        pf.update(state, torch.tensor([[0, 0], [0, 1]]))


def looks_at_the_clock(x):
    return x * 0.0 + torch.arange(len(x)).view(-1, 1)


def looks_back(x):
    return torch.cat([torch.zeros_like(x[:1]), x[:-1]])


@pytest.mark.parametrize("beside", [looks_at_the_clock, looks_back])
@pytest.mark.parametrize("num_steps", [1, 4])
def test_a_model_of_more_than_the_step_is_told(beside, num_steps):
    transition = LSTMTransition(2, 4)

    def model(x):
        other = beside(x)
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x)):
                pyro.sample("x", dist.Normal(z + other[t], 1.0), obs=x[t])

    with pytest.raises(EmissionNotLocalError, match="Make it an argument beside the data"):
        ParticleFilter(model, P).start(torch.randn(num_steps, B))


def test_inputs_that_count_steps_and_a_loop_of_fixed_size_are_told():
    reads, reads_not = LSTMTransition(2, 4, input_size=1), LSTMTransition(2, 4)

    def model(x, fixed):
        u = torch.arange(1.0 * len(x)).view(-1, 1, 1).expand(-1, x.shape[1], 1)
        transition, u = (reads_not, None) if fixed else (reads, u)
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", transition, 4 if fixed else len(x), inputs=u):
                pyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=x[t])

    x = torch.randn(4, B)
    with pytest.raises(EmissionNotLocalError, match="inputs, in the loop"):
        ParticleFilter(model, P).start(x, False)
    with pytest.raises(EmissionNotLocalError, match="4 steps, whatever data"):
        ParticleFilter(model, P).start(x, True)
