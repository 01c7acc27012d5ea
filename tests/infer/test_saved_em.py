"""Stochastic EM that is stopped at any step and goes on elsewhere: to the last bit the same.

Nothing here is a matter of chance: two runs from one seed are the same, or they are not.
"""

import json
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.optim import Adam, AdamW, ClippedAdam, ExponentialLR, ReduceLROnPlateau, StepLR
from pyro.optim import PyroOptim as Wrapped

from pyro_ssl import (
    GaussianLSTMTransition,
    LSTMTransition,
    MarkovEM,
    MarkovTransition,
    StochasticEM,
    ssl_transition,
)
from pyro_ssl.errors import CheckpointError
from pyro_ssl.infer.plain import pack
from pyro_ssl.infer.run_state import KEPT
from pyro_ssl.infer.saved_em import _OWN, _PARTS, em_state
from tests.faults.digest import (
    digest_of_folder,
    digest_of_generators,
    digest_of_store,
    digest_of_tensors,
    nothing_changes,
)
from tests.faults.disk import damage, full_disk, newest_save

K, V, T, B = 3, 5, 6, 8
#: the twist is chosen anew after 1, 2 and 4 steps
STEPS = 5


def words(seed=7):
    return torch.randint(V, (T, B), generator=torch.Generator().manual_seed(seed))


def series(seed=7):
    return torch.randn(T, B, 2, generator=torch.Generator().manual_seed(seed)).cumsum(0)


def topics(dropout=0.5, latent_scale=False, size=None):
    """Topics over words; with ``size`` on minibatches, with a free site where asked for."""
    transition = LSTMTransition(K, 4, dropout=dropout)

    def model(x, index=None):
        pyro.module("transition", transition)
        strength = pyro.sample("strength", dist.Gamma(2.0, 1.0)) if latent_scale else 1.0
        phi = pyro.sample("phi", dist.Dirichlet(strength * torch.ones(K, V)).to_event(1))
        bias = pyro.param("bias", lambda: torch.rand(V), constraint=dist.constraints.positive)
        with pyro.plate("documents", x.shape[1], subsample=index) as i:
            seen = x[:, i]
            for t, z in ssl_transition("z", transition, len(x)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=seen[t])
                pyro.sample("y", dist.Categorical(bias), obs=seen[t])

    return model


def vectors():
    transition = GaussianLSTMTransition(2, 4)

    def model(x):
        pyro.module("transition", transition)
        scale = pyro.param("scale", lambda: torch.rand(()), constraint=dist.constraints.positive)
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x)):
                pyro.sample("x", dist.Normal(z, scale).to_event(1), obs=x[t])

    return model


def two_chains():
    chains = {"a": LSTMTransition(2, 4), "b": MarkovTransition(2)}

    def model(x):
        for name, transition in chains.items():
            pyro.module(name, transition)
        with pyro.plate("documents", x.shape[1]):
            for t, (a, b) in ssl_transition(chains, len(x)):
                pyro.sample("x", dist.Normal(1.0 * a - b, 1.0), obs=x[t].to(torch.float64))

    return model


def two_loops():
    """Paths that are not drawn together."""
    first, second = LSTMTransition(2, 4), MarkovTransition(2)

    def model(x):
        pyro.module("first", first), pyro.module("second", second)
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(2, V)).to_event(1))
        with pyro.plate("documents", x.shape[1]):
            for t, z in ssl_transition("z", first, len(x)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])
            for t, w in ssl_transition("w", second, len(x)):
                pyro.sample("y", dist.Normal(1.0 * w - z, 1.0), obs=x[t].to(torch.float64))

    return model


def exponential():
    args = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.05}, "gamma": 0.7}
    return ExponentialLR(args)


def stairs():
    return StepLR({"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.05}, "step_size": 2})


def plateau():
    args = {"optimizer": torch.optim.AdamW, "optim_args": {"lr": 0.05}, "patience": 0}
    return ReduceLROnPlateau(args)


def by_name():
    return AdamW(lambda name: {"lr": 0.1 if name == "bias" else 0.02}, {"clip_norm": 0.5})


def adam():
    return Adam({"lr": 0.05})


def minibatch(i):
    return words(), torch.arange(B).reshape(2, 4)[i % 2]


def whole(i):
    return (words(),)


def paths(i):
    return (series(),)


#: model, optimiser, arguments of a step, options
RUNS = {
    "estimated": (topics, adam, whole, {}),
    "drawn": (topics, adam, whole, {"draw_dirichlet": True, "averaging": 0.9}),
    "mode": (topics, by_name, whole, {"dirichlet": "mode", "num_sweeps": 2}),
    "minibatches": (topics, adam, minibatch, {"draw_dirichlet": True}),
    "minibatches, averaged": (topics, stairs, minibatch, {"averaging": 0.5}),
    "free site": (lambda: topics(latent_scale=True), adam, whole, {}),
    "free site, minibatches": (lambda: topics(latent_scale=True), adam, minibatch, {}),
    "exponential": (topics, exponential, whole, {"num_gradient_steps": 2}),
    "plateau": (topics, plateau, whole, {}),
    "clipped": (topics, lambda: ClippedAdam({"lr": 0.05, "lrd": 0.9}), whole, {}),
    "rprop": (topics, lambda: Wrapped(torch.optim.Rprop, {"lr": 0.05}), whole, {}),
    "unconditional": (topics, adam, whole, {"conditional": False, "num_particles": 1}),
    "no twist": (topics, adam, whole, {"twist": None, "ancestor_sampling": 2}),
    "given twist": (topics, adam, whole, {"twist": torch.ones(K, K) / K}),
    "drawn transition": (topics, adam, minibatch, {"draw_transition": True}),
    "independent": (topics, adam, whole, {"path_kernel": "independent"}),
    "multinomial": (topics, adam, whole, {"resampling": "multinomial"}),
    "vectors": (vectors, adam, paths, {}),
    "two chains": (two_chains, adam, whole, {}),
    "two loops": (two_loops, adam, whole, {"draw_dirichlet": True}),
}


def fresh(name, seed):
    """An EM in a process of its own, as far as one test can have it."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    model, optim, _, options = RUNS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return StochasticEM(model(), optim(), **{"num_particles": 5, **options})


def step(em, name, i):
    loss = em.step(*RUNS[name][2](i))
    if hasattr(em.optim, "pt_scheduler_constructor"):
        em.optim.step(*([loss] if name == "plateau" else []))
    return loss


def all_of(em):
    """All that a step changes."""
    tensors = {}
    packed = pack(em_state(em), tensors)
    return json.dumps(packed), digest_of_tensors(tensors), digest_of_store(), digest_of_generators()


quietly = pytest.mark.filterwarnings("ignore:.*the twist that")


@quietly
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_stopped_goes_on_as_if_it_never_was(tmp_path, name):
    goes_on(tmp_path, name, [1])


@quietly
@pytest.mark.stage("nightly")
@pytest.mark.parametrize("name", RUNS)
def test_wherever_it_is_stopped(tmp_path, name):
    goes_on(tmp_path, name, range(STEPS - 1))


def goes_on(tmp_path, name, stops):
    em, losses, states = fresh(name, 0), [], []
    for i in range(STEPS):
        losses.append(step(em, name, i))
        em.save(tmp_path / str(i))
        states.append(all_of(em))
    for stop in stops:
        again = fresh(name, 1 + stop)
        again.load(tmp_path / str(stop), *RUNS[name][2](0))
        if stop == 1:  # and once more before any step
            again.save(tmp_path / "copy")
            again = fresh(name, 9)
            again.load(tmp_path / "copy", *RUNS[name][2](0))
        for i in range(stop + 1, STEPS):
            assert step(again, name, i) == losses[i]
            assert all_of(again) == states[i]


def test_a_scheduler_may_step_first(tmp_path):
    """A save between a step and that of the schedule."""
    em = fresh("exponential", 0)
    em.step(words())
    em.save(tmp_path)
    em.optim.step()
    loss, state = em.step(words()), all_of(em)
    again = fresh("exponential", 3)
    again.load(tmp_path, words())
    again.optim.step()
    assert again.step(words()) == loss and all_of(again) == state


def test_the_twist_is_the_same(tmp_path, always_twisted):
    goes_on(tmp_path, "drawn", range(STEPS - 1))


def test_an_object_that_went_on_goes_back(tmp_path):
    em = fresh("drawn", 0)
    for i in range(2):
        step(em, "drawn", i)
    em.save(tmp_path)
    before, loss = all_of(em), step(em, "drawn", 2)
    step(em, "drawn", 3)
    em.load(tmp_path, words())
    assert all_of(em) == before
    assert step(em, "drawn", 2) == loss


def test_a_start_is_saved_too(tmp_path):
    em = fresh("drawn", 0)
    em.warm_start(words(), num_steps=3, transition_steps=2)
    em.save(tmp_path)
    losses = [step(em, "drawn", i) for i in range(2)]
    again = fresh("drawn", 1)
    again.load(tmp_path, words())
    assert [step(again, "drawn", i) for i in range(2)] == losses


def test_every_attribute_is_kept_or_a_setting():
    em = fresh("estimated", 0)
    step(em, "estimated", 0)
    settings = {"model", "optim", "settings", "conditional", "num_sweeps", "num_gradient_steps"}
    settings |= {"draw_dirichlet", "draw_transition", "_globals", "_model"}
    assert vars(em).keys() - {"_parts"} == ({*_OWN, *_PARTS} | settings) - {"_start"}
    found_anew = {
        "Twisting": {"how"},
        "PathMemory": {"_values", "folder"},
        "GlobalSites": {"who", "kind", "averaging", "takes_free", "points"}
        | {"sites", "free", "in_transition"},
        "PointSites": set(),
    }
    for owner in (em._twisting, em._memory, em._globals, em._globals.points):
        kind = type(owner)
        assert vars(owner).keys() == {*KEPT[kind]} | found_anew[kind.__name__]


# -------------------------------------------------------------------------------- refusals

OTHER = {
    "settings: num_particles": ({"num_particles": 6}, "num_particles is 5 there and 6 here"),
    "settings: averaging": ({"averaging": 0.5}, r"averaging is 0\.0 there and 0\.5 here"),
    "settings: optim": ({"optim": Adam({"lr": 0.1})}, "optim is .*0.05.* there and .*0.1"),
    "settings: twist": ({"twist": None}, "twist is markov there and None here"),
    "data": ({"data": words(8)}, r"other data: x is int64 \(6, 8\) \w+ there and int64 \(6, 8\)"),
    "data: fewer": ({"data": words()[:, 1:]}, r"other model: sequences is \[8\] there and \[7\]"),
    "model": (
        {"model": topics(latent_scale=True)},
        r"other model: latent sites is \['phi'\] there and \['phi', 'strength'\] here",
    ),
}


@pytest.mark.parametrize("what", OTHER)
def test_another_run_is_refused(tmp_path, what):
    em = fresh("estimated", 0)
    step(em, "estimated", 0)
    em.save(tmp_path)
    change, told = OTHER[what]
    options = {k: v for k, v in change.items() if k not in ("data", "model", "optim")}
    model, optim = change.get("model") or topics(), change.get("optim") or adam()
    pyro.clear_param_store()
    again = StochasticEM(model, optim, **{"num_particles": 5, **options})
    with nothing_changes(tmp_path, objects=[again]):
        with pytest.raises(CheckpointError, match=told) as caught:
            again.load(tmp_path, change.get("data", words()))
    assert "or give a new run a folder of its own" in str(caught.value)
    again = StochasticEM(topics(), adam(), 5)
    again.load(tmp_path, words())


def test_parameters_of_other_shapes_are_refused(tmp_path):
    em = fresh("estimated", 0)
    step(em, "estimated", 0)
    em.save(tmp_path)
    pyro.clear_param_store()
    again = StochasticEM(vectors(), adam(), 5)
    with nothing_changes(tmp_path, objects=[again]), pytest.raises(CheckpointError, match="model"):
        again.load(tmp_path, series())


def test_what_cannot_be_saved_is_refused(tmp_path):
    em = fresh("estimated", 0)
    with pytest.raises(RuntimeError, match=r"write em\.step"):
        em.save(tmp_path / "a")
    em.optim = lambda parameters: None
    step(em, "estimated", 0)
    with nothing_changes(tmp_path), pytest.raises(TypeError, match=r"pyro\.optim\.Adam"):
        em.save(tmp_path / "a")
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        em.load(tmp_path / "a", words())
    em.optim = adam()
    step(em, "estimated", 0)
    pyro.clear_param_store()
    with nothing_changes(tmp_path), pytest.raises(RuntimeError, match="clear_param_store"):
        em.save(tmp_path / "a")
    with pytest.raises(TypeError, match="expected a folder"):
        em.save(3)


# ---------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("how", ["flip", "cut", "gone", "manifest"])
def test_a_damaged_newest_save_is_passed_over(tmp_path, how):
    em = fresh("drawn", 0)
    for i in range(3):
        step(em, "drawn", i)
        em.save(tmp_path)
        state, loss = (all_of(em), None) if i < 2 else (state, step(em, "drawn", 3))  # noqa: F821
    file = newest_save(tmp_path)
    if how == "gone":
        file.unlink()
    elif how == "manifest":
        (file.parent / "manifest.json").write_text("{")
    else:
        damage(file, how)
    again = fresh("drawn", 5)
    with pytest.warns(RuntimeWarning, match="one of its two checkpoints is damaged"):
        again.load(tmp_path, words())
    assert all_of(again) == state
    step(again, "drawn", 2)
    again.save(tmp_path)  # over the damaged one
    assert step(again, "drawn", 3) == loss
    third = fresh("drawn", 6)
    third.load(tmp_path, words())
    assert step(third, "drawn", 3) == loss


def test_two_damaged_saves_are_an_error(tmp_path):
    em = fresh("drawn", 0)
    for i in range(2):
        step(em, "drawn", i)
        em.save(tmp_path)
    for file in tmp_path.glob("*/tensors-*"):
        file.write_bytes(b"")
    again = fresh("drawn", 5)
    with nothing_changes(tmp_path, objects=[again]), pytest.raises(CheckpointError):
        again.load(tmp_path, words())


@pytest.mark.parametrize("which", range(4))
def test_a_full_disk_leaves_the_last_save(tmp_path, which):
    em = fresh("drawn", 0)
    for i in range(2):
        step(em, "drawn", i)
        em.save(tmp_path)
    state, before = all_of(em), digest_of_folder(tmp_path)
    loss = step(em, "drawn", 2)
    with full_disk(after=which), pytest.raises(OSError, match="No space left"):
        em.save(tmp_path)
    unsaved, again = all_of(em), fresh("drawn", 5)
    again.load(tmp_path, words())
    if digest_of_folder(tmp_path) == before:
        assert all_of(again) == state
        assert step(again, "drawn", 2) == loss
    else:  # in place, but perhaps not for good
        assert all_of(again) == unsaved


def test_a_saved_run_has_no_pickle_and_small_paths(tmp_path):
    em = fresh("estimated", 0)
    step(em, "estimated", 0)
    em.save(tmp_path)
    tensors = {}
    pack(em_state(em), tensors)
    assert any(value.dtype == torch.uint8 and value.shape == (B, T) for value in tensors.values())
    names = {file.name.split("-")[0] for file in tmp_path.rglob("*") if file.is_file()}
    assert names == {"manifest.json", "tensors"}


def test_a_markov_start_of_another_process(tmp_path):
    """What started from an HMM needs it no more."""
    em = fresh("drawn", 0)
    hmm = MarkovEM(em.model)
    for _ in range(2):
        hmm.step(words())
    em.start_from(hmm, words(), transition_steps=1)
    em.save(tmp_path)
    saved, again = all_of(em), fresh("drawn", 1)
    again.load(tmp_path, words())
    assert all_of(again) == saved
