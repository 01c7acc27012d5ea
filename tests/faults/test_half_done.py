"""A call that fails halfway is undone; and what the classes are set to, checked by name.

Beside ``test_inference.py``, which has the faults of models: here the optimiser fails, a later
gradient step or a later draw does, and settings are wrong.
"""

import pickle

import pyro
import pytest
import torch
from pyro.infer import MCMC
from pyro.optim import Adam, PyroOptim

from pyro_ssl import (
    LSTMTransition,
    MarkovEM,
    MeanFieldELBO,
    MeanFieldGuide,
    ParticleFilter,
    ParticleGibbs,
    ParticleGibbsKernel,
    StochasticEM,
)
from pyro_ssl.errors import ModelError, NonFiniteError, model_error
from pyro_ssl.testing import invariance_test
from tests.faults.digest import nothing_changes
from tests.faults.world import B, T, V, World, topics

NAN, INF = float("nan"), float("inf")


def spoilt(**parts):
    """A world with some parts in place of the usual ones."""
    world = World(lambda w: vars(w).update(parts))
    world.spoil()
    return world


# ------------------------------------------------------------------------ gradient steps, undone


class Leaping(torch.optim.SGD):
    """Makes one good step, and then one into nothing."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["steps"] = state.get("steps", torch.zeros(())) + 1.0
                p.data.add_(0.01 if state["steps"] < 3 else NAN)


@pytest.mark.parametrize("run", [None, topics], ids=["parameters alone", "a Dirichlet"])
def test_all_gradient_steps_or_none(run):
    world = spoilt(**({} if run is None else {"run": run}))
    em = StochasticEM(world.model, PyroOptim(Leaping, {"lr": 0.1}), 2)
    em.step()
    em.num_gradient_steps = 3  # the second of them loses the numbers, and the third meets that
    for _ in range(2):
        with nothing_changes(modules=world.modules, objects=[em, em.optim]):
            with pytest.raises(NonFiniteError, match="Nothing was updated"):
                em.step()
    em.num_gradient_steps = 1
    em.step()


class Breaking:
    """An optimiser that moves the parameters, and breaks."""

    def __init__(self, num_good=0):
        self.num_good, self.inner = num_good, Adam({"lr": 0.1})

    def __call__(self, parameters):
        self.inner(parameters)
        self.num_good -= 1
        if self.num_good < 0:
            raise OSError("no space left")


@pytest.mark.parametrize("num_good", [0, 1, 2])
def test_an_optimiser_that_breaks(num_good):
    world = spoilt(run=topics)
    em = StochasticEM(world.model, Breaking(), 2, num_gradient_steps=3)
    for call in (em.step, lambda: em.warm_start(num_steps=1, transition_steps=3)):
        em.optim.num_good = num_good
        with nothing_changes(modules=world.modules, objects=[em._globals, em._memory]):
            with pytest.raises(OSError, match="no space left"):
                call()


def test_gradients_that_a_user_left_are_put_back():
    world = spoilt()
    em = StochasticEM(world.model, Breaking(), 2)
    for p in world.parts.transition.parameters():
        p.grad = torch.ones_like(p)
    with nothing_changes(modules=world.modules), pytest.raises(OSError, match="no space"):
        em.step()


# -------------------------------------------------------------------------------- draws, undone


def breaks_at(num_runs, error, run=topics):
    """A model that raises at one run of those that are made."""

    def broken(w):
        if w.num_runs == num_runs:
            raise error
        run(w)

    return broken


def count_runs(do, world):
    world.parts.num_runs = 0
    do()
    return world.parts.num_runs


@pytest.mark.stage("system")
def test_mcmc_puts_all_back_whichever_draw_fails():
    world = spoilt(run=topics)
    kernel = ParticleGibbsKernel(world.model, 2)
    total = count_runs(lambda: MCMC(kernel, 2, disable_progbar=True).run(), world)
    for num_runs in range(1, total + 1):
        error = (ValueError, KeyboardInterrupt)[num_runs % 2]("made up")
        world = spoilt(run=breaks_at(num_runs, error))
        kernel = ParticleGibbsKernel(world.model, 2)
        mcmc = MCMC(kernel, 2, disable_progbar=True)
        with nothing_changes(modules=world.modules, objects=[kernel]):
            with pytest.raises(type(error), match="made up"):
                mcmc.run()
    mcmc.run()  # the model breaks at one run alone


def test_a_second_run_of_a_kernel_draws_a_start_of_its_own():
    world = spoilt()
    kernel = ParticleGibbsKernel(world.model, 2)
    MCMC(kernel, 1, disable_progbar=True).run()
    longer = spoilt(T=T + 1, x=torch.zeros(T + 1, B).long())
    kernel.model = longer.model
    MCMC(kernel, 1, disable_progbar=True).run()
    assert kernel.initial_params["z"].shape == (B, T + 1)


def test_ctrl_c_keeps_the_draws_and_goes_on():
    world = spoilt()
    pg = ParticleGibbs(world.model, 2)
    calls = []

    def stop(params, i):
        calls.append(i)
        if i == 1:
            raise KeyboardInterrupt

    with pytest.warns(RuntimeWarning, match="Stopped after 2 of 5 draws"):
        pg.run(num_samples=5, hook_fn=stop, disable_progbar=True)
    assert pg.get_samples()["z"].shape == (2, B, T) and calls == [0, 1]


@pytest.mark.parametrize("method", ["loss", "differentiable_loss", "loss_and_grads"])
def test_no_elbo_is_nan(method):
    world = spoilt(bias=NAN)
    guide, elbo = MeanFieldGuide(world.model), MeanFieldELBO()
    with nothing_changes(modules=world.modules, objects=[guide, elbo]):
        with pytest.raises(NonFiniteError, match='Site "z": the ELBO is nan, expected'):
            getattr(elbo, method)(world.model, guide)


def test_counts_that_fail_leave_no_gradients():
    """The counts of a step are found before its gradients are."""
    world = spoilt(run=topics)
    guide, elbo = MeanFieldGuide(world.model), MeanFieldELBO()
    total = count_runs(lambda: elbo.loss_and_grads(world.model, guide), world)
    for num_runs in range(1, total + 1):
        pyro.clear_param_store()
        world = spoilt(run=breaks_at(num_runs, ValueError("made up")))
        guide = MeanFieldGuide(world.model)
        with nothing_changes(modules=world.modules, objects=[guide, elbo]):
            with pytest.raises(ValueError, match="made up"):
                elbo.loss_and_grads(world.model, guide)


def test_q_of_other_data_is_told():
    world = spoilt()
    guide = MeanFieldGuide(world.model)
    guide()
    more = spoilt(T=T + 1, x=torch.zeros(T + 1, B).long())
    guide.model = more.model
    with nothing_changes(objects=[guide]), pytest.raises(ValueError, match="write MeanFieldGuide"):
        guide()


def test_padding_of_inputs_may_be_anything():
    """NaN past the lengths reaches neither a draw nor a gradient."""
    inputs = torch.linspace(-1, 1, T * B).reshape(T, B, 1)
    losses = []
    for pad in (0.0, NAN, INF):
        u = inputs.clone()
        u[1:, 0] = pad
        torch.manual_seed(0)
        pyro.clear_param_store()
        transition = LSTMTransition(2, 3, input_size=1)
        world = spoilt(transition=transition, inputs=u, lengths=torch.tensor([1, T]))
        losses.append(StochasticEM(world.model, Adam({"lr": 0.1}), 2).step())
        assert all(p.isfinite().all() for p in transition.parameters())
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize(
    "future, message",
    [
        (None, "are None, expected"),
        (torch.zeros(3, B, 1), r"are \(3, 2, 1\), expected \(2, 2, 1\)"),
        (torch.zeros(B, 2, 2), r"are \(2, 2, 2\), expected"),
        (torch.full((2, B, 1), NAN), "hold NaN or inf, expected finite"),
        (torch.zeros(2 * B), r"are \(4,\), expected"),
    ],
)
def test_future_inputs_are_checked(future, message):
    transition = LSTMTransition(2, 3, input_size=1)
    score = ParticleFilter(spoilt(transition=transition, inputs=torch.zeros(T, B, 1)).model, 2)
    score.forecast(horizon=2, future_inputs=torch.zeros(2, B, 1))
    with nothing_changes(objects=[score]), pytest.raises(ValueError, match=message):
        score.forecast(horizon=2, future_inputs=future)


def test_the_error_of_a_line_is_of_its_kind_too():
    error = model_error("what is said", IndexError)
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert isinstance(one, ModelError) and isinstance(one, IndexError)
        assert str(one) == "what is said"
    assert str(model_error("said", KeyError)) == "said"


# ------------------------------------------------------------------------------------- settings

OPTIM = Adam({"lr": 0.1})
BAD_COUNTS = (0, -1, 1.5, NAN, "two", None)

# What is called of a model, the setting, its wrong values, and what is said of them.
SETTINGS = [
    (lambda m, **k: ParticleGibbs(m, **k), "num_particles", BAD_COUNTS, "expected at least 1"),
    (lambda m, **k: ParticleGibbs(m, 2, **k), "resampling", ("none", None), "expected one of"),
    (lambda m, **k: ParticleGibbs(m, 2, **k), "ancestor_sampling", (-1, 0.5), "expected 0"),
    (
        lambda m, **k: ParticleGibbs(m, 2).run(**k),
        "num_samples",
        BAD_COUNTS,
        "expected at least 1, 0 and 1, integers",
    ),
    (
        lambda m, **k: ParticleGibbs(m, 2).run(num_samples=1, **k),
        "warmup_steps",
        (-1, 0.5, None),
        "expected at least 1, 0 and 1, integers",
    ),
    (
        lambda m, **k: ParticleGibbs(m, 2).run(num_samples=1, **k),
        "num_chains",
        BAD_COUNTS,
        "expected at least 1, 0 and 1, integers",
    ),
    (lambda m, **k: ParticleGibbsKernel(m, **k), "num_particles", BAD_COUNTS, "at least 1"),
    (lambda m, **k: ParticleGibbsKernel(m, **k), "num_chains", BAD_COUNTS, "expected at least 1"),
    (lambda m, **k: StochasticEM(m, OPTIM, **k), "num_particles", BAD_COUNTS, "at least 1"),
    (lambda m, **k: StochasticEM(m, OPTIM, **k), "num_sweeps", BAD_COUNTS, "at least 1 of each"),
    (lambda m, **k: StochasticEM(m, OPTIM, **k), "num_gradient_steps", BAD_COUNTS, "at least 1"),
    (lambda m, **k: StochasticEM(m, OPTIM, **k), "dirichlet", ("median", None), 'expected "mode"'),
    (lambda m, **k: StochasticEM(m, OPTIM, **k), "averaging", (1.0, -0.1, NAN), "a weight in"),
    (
        lambda m, **k: StochasticEM(m, **k),
        "optim",
        (None, "adam", torch.optim.Adam, torch.optim.SGD([torch.zeros(1)], lr=0.1)),
        "expected an optimiser of Pyro.*write pyro.optim.Adam",
    ),
    (
        lambda m, **k: StochasticEM(m, OPTIM, 2).warm_start(**k),
        "num_steps",
        BAD_COUNTS,
        "expected integers",
    ),
    (
        lambda m, **k: StochasticEM(m, OPTIM, 2).warm_start(num_steps=1, **k),
        "transition_steps",
        (-1, 0.5, None),
        "expected integers",
    ),
    (lambda m, **k: MarkovEM(m, **k), "dirichlet", ("median",), 'expected "mode" or "mean"'),
    (lambda m, **k: MarkovEM(m, **k), "smoothing", (-1.0, NAN, INF), "expected pseudo-counts"),
    (lambda m, **k: MarkovEM(m).perplexity(**k), "start", (-1, T, 0.5, None), "expected 0 to"),
    (lambda m, **k: MeanFieldGuide(m, **k), "dirichlet", ("median",), 'expected "mode" or'),
    (lambda m, **k: MeanFieldGuide(m, **k), "averaging", (1.0, -0.1, NAN), "a weight in"),
    (lambda m, **k: MeanFieldELBO(**k), "num_particles", (1, *BAD_COUNTS), "expected at least 2"),
    (lambda m, **k: ParticleFilter(m, **k), "num_particles", BAD_COUNTS, "expected at least 1"),
    (lambda m, **k: ParticleFilter(m, 2, **k), "resampling", ("none",), "expected one of"),
    (lambda m, **k: ParticleFilter(m, 2, **k), "seed", (-1, 0.5, 2**63), "expected"),
    (
        lambda m, **k: ParticleFilter(m, 2).perplexity(**k),
        "start",
        (-1, T, 0.5, None),
        "expected 0 to T - 1",
    ),
    (lambda m, **k: ParticleFilter(m, 2).forecast(**k), "start", (-1, T, T + 1, 0.5), "start from"),
    (lambda m, **k: ParticleFilter(m, 2).forecast(**k), "horizon", (-1, 0, 0.5, None), "a step"),
    (
        lambda m, **k: ParticleFilter(m, 2).forecast(horizon=2, **k),
        "future_inputs",
        ([[0.0]], torch.zeros(2, B, 1), torch.zeros(2), torch.zeros(())),
        "future_inputs",
    ),
    (lambda m, **k: invariance_test(m, **k), "num_replicates", BAD_COUNTS, "at least 1"),
    (lambda m, **k: invariance_test(m, **k), "num_particles", BAD_COUNTS, "at least 1"),
    (lambda m, **k: invariance_test(m, **k), "resampling", ("none",), "expected one of"),
]


@pytest.mark.parametrize(
    "make, setting, values, message",
    SETTINGS,
    ids=[f"{i}: {setting}" for i, (_, setting, *_) in enumerate(SETTINGS)],
)
def test_settings_are_checked_by_name(make, setting, values, message):
    world = spoilt()
    for value in values:
        with nothing_changes(modules=world.modules):
            with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
                make(world.model, **{setting: value})


@pytest.mark.parametrize("what", [None, "model", V, torch.zeros(2)])
def test_what_is_no_model(what):
    for call in (
        lambda: ParticleGibbs(what, 2).run(num_samples=1),
        lambda: StochasticEM(what, OPTIM, 2).step(),
        lambda: MarkovEM(what).step(),
        lambda: MeanFieldGuide(what)(),
        lambda: ParticleFilter(what, 2).log_likelihood(),
        lambda: invariance_test(what),
    ):
        with nothing_changes(), pytest.raises(TypeError, match="The model, .*not callable"):
            call()
