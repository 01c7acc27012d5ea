"""What must notice the mutants: tests of distributions with fewer draws, and exact ones.

A check is made in two steps: its *world* (a model and its exact answer) before anything is
injected, then the test itself, a fraction of a second. With the seed that each sets, a correct
package passes all of them. Another seed fails one of them once in 10,000 times: there are about 100
p-values, each compared with ALPHA.
"""

import functools

import pyro
import pytest
import torch
from pyro import poutine

from pyro_ssl.reading.program import Program
from pyro_ssl.smc import future
from tests.enumeration import all_paths, repeated
from tests.infer import (
    models_of_globals,
    test_chains,
    test_globals,
    test_labels,
    test_scan,
    test_stochastic_em,
    test_vectors,
)
from tests.infer import test_particle_gibbs_law as gibbs
from tests.reading import test_program as reading
from tests.smc import (
    test_evidence,
    test_future,
    test_gaussian,
    test_movement,
    test_product,
    test_record,
    test_reference,
    test_resampling,
)
from tests.statistics import ALPHA, chi_square, one_sweep_p_value, p_value, random_problem
from tests.transitions import test_product as test_product_transition

#: by suite, by name: a function that makes the world and returns the test
SUITES: dict = {}


def check(suite, name, **arguments):
    """Register a function that makes a world and returns the test; its worlds are kept."""

    def register(make):
        known = SUITES.setdefault(suite, {})
        assert name not in known, name
        known[name] = functools.cache(lambda: make(**arguments))
        return make

    return register


def prepared(suite, name):
    """The test of a check, ready to run; its world is made here."""
    pyro.set_rng_seed(0)
    test = SUITES[suite][name]()

    def run():
        pyro.set_rng_seed(0)
        pyro.clear_param_store()
        test()

    return run


# --------------------------------------------------------------------------- the sweep over states


MODEL = ("kind", "seed", "scale", "sharpness", "twist")


def kernel_of(K, T, P, sharpness=4.0, seed=0, kind="lstm", scale=None, twist=None, **settings):
    torch.manual_seed(seed)
    problem = random_problem(K, T, kind=kind, sharpness=sharpness, twist=twist)
    if scale is not None:
        problem = problem._replace(transition_scale=torch.tensor([scale]))
    return problem, test_movement.exact_kernel(problem, P, **settings)


#: models that tell most mutants apart, as a search over seeds found them
SHARP = {"seed": 3, "sharpness": 16.0}


@check("states", "kernel", **SHARP, P=3, resampling="multinomial", forced_move=True)
@check("states", "kernel, free move", **SHARP, P=3)
@check("states", "kernel, Gibbs", seed=3, sharpness=8.0, lag=9)
@check("states", "kernel, lag", **SHARP, T=4, lag=1)
@check("states", "kernel, echo", kind="echo", T=4, lag=1)
@check("states", "kernel, twisted", seed=3, sharpness=8.0, twist="noise", P=3)
@check("states", "kernel, twisted, Gibbs", seed=3, sharpness=8.0, twist="noise", lag=9)
@check("states", "kernel, padded", seed=1, sharpness=8.0, scale=5.0, padding=2, lag=9)
def kernel(P=2, T=3, padding=0, num_draws=40_000, lag=0, **settings):
    """Each row of the exact matrix p(new path | reference)."""
    model = {key: settings.pop(key) for key in MODEL if key in settings}
    settings = {"resampling": "systematic", "forced_move": False, **settings}
    settings |= {"ancestor_sampling": int(lag > 0), "proposal_lag": max(lag, 1)}
    problem, exact = kernel_of(2, T, P, **model, **settings)

    def test():
        n = num_draws // len(exact)
        counts = test_movement.empirical_kernel(problem, P, n, padding=padding, **settings)
        for row, law in zip(counts, exact, strict=True):
            assert p_value([chi_square(row, law)]) > ALPHA

    return test


@check("states", "kernel, marked")
def marked_kernel():
    """The same of long memory, whose prefixes are compared after each step."""
    inner = kernel(kind="echo", T=4, lag=1)

    def test():
        before, future.MARKS = future.MARKS, 1
        try:
            inner()
        finally:
            future.MARKS = before

    return test


@check("states", "kept")
def kept():
    """What is known of the reference's own past, after all redraws of a sweep."""

    def test():
        with pytest.MonkeyPatch.context() as patch:
            test_future.test_what_is_kept_is_of_the_past_that_was_accepted(patch)

    return test


@check("states", "invariance")
def invariance(num_draws=20_000):
    """One sweep of a sharp model, ragged, scaled and with inputs, from exact draws."""
    torch.manual_seed(5)
    data = {"ragged": True, "inputs": True, "scaled": True}
    problem = random_problem(2, 6, sharpness=12.0, concentration=1.0, **data)
    posterior = problem.log_joint().softmax(-1)
    settings = {"ancestor_sampling": 1, "proposal_lag": 1}

    def test():
        assert one_sweep_p_value(problem, num_draws, 3, posterior, **settings) > ALPHA

    return test


@check("states", "record")
def record():
    """Look-ahead weights and states of a ragged, scaled batch with inputs."""
    torch.manual_seed(0)
    problem = random_problem(3, 5, ragged=True, inputs=True, scaled=True)

    def test():
        with torch.no_grad():
            for reference in (None, torch.randint(3, (5, 2))):
                test_record.check_states(problem.repeat(1), reference, ancestor_sampling=1)
                test_record.check_log_likelihood(problem, reference, ancestor_sampling=1)

    return test


@check("states", "edges")
def edges():
    """What does not hang on chance: one step, one particle, padding, and impossible data."""

    def test():
        for resampling in ("systematic", "multinomial"):
            test_evidence.test_first_step_is_exact(resampling)
            test_evidence.test_impossible_data_have_evidence_zero(resampling)
            for every in (0, 1):
                test_movement.test_one_particle_never_moves(resampling, every)
        for conditional in (False, True):
            test_evidence.test_nothing_is_added_past_the_length(conditional)

    return test


@check("states", "underflow")
def underflow():
    """Products that are 0 in single precision."""
    return lambda: test_reference.test_underflow_in_single_precision(True)


# ------------------------------------------------------------------------------------- resampling


@check("resampling", "inversion")
def inversion():
    (mark,) = test_resampling.test_inversion.pytestmark

    def test():
        for values in mark.args[1]:
            test_resampling.test_inversion(*values)

    return test


@check("resampling", "systematic", scheme="systematic")
@check("resampling", "multinomial", scheme="multinomial")
def ancestors(scheme):
    def test():
        for weights in test_resampling.WEIGHTS:
            test_resampling.test_law_given_the_first_ancestor(scheme, weights, n=10_000)

    return test


# ---------------------------------------------------------------------------------------- vectors


@check("vectors", "evidence", make=test_gaussian.Linear)
def vector_evidence(make):
    return lambda: test_gaussian.test_evidence_is_unbiased_and_kalmans(make, 0, 3, n=5_000)


@check("vectors", "sweep", make=test_gaussian.Linear, every=0)
@check("vectors", "sweep, ancestors", make=test_gaussian.Linear, every=1)
def vector_sweep(make, every):
    return lambda: test_gaussian.test_one_sweep_keeps_the_exact_law(make, 2, every, n=10_000)


@check("vectors", "count", kind="count", seed=0, P=2)
@check("vectors", "sensor", kind="sensor", seed=5, P=3)
@check("vectors", "sensor, ancestors", kind="sensor", seed=2, P=3, every=1)
def grid_sweep(kind, seed, P, every=0):
    test_gaussian.on_the_line(kind, seed)
    return lambda: test_gaussian.test_one_sweep_keeps_the_law_on_the_grid(kind, P, every, seed)


@check("vectors", "sensor's evidence")
def grid_evidence():
    test_gaussian.on_the_line("sensor", 0)
    return lambda: test_gaussian.test_evidence_of_other_emissions("sensor", 3, n=5_000)


@check("vectors", "product", D=2)
def dense_product(D):
    def test():
        problem = test_product.make_problem(D)
        test_product.test_mean_and_integral(problem)
        test_product.test_draws_are_an_affine_map_with_the_right_covariance(problem)

    return test


@check("vectors", "record", reads="positions", input_size=2)
@check("vectors", "record, increments", reads="increments", input_size=0)
def vector_record(reads, input_size):
    torch.manual_seed(0)
    problem = test_record.vector_problem(reads, input_size)
    return lambda: test_record.check_states(problem, torch.randn(5, 3, 2), ancestor_sampling=1)


@check("vectors", "chains", make=test_gaussian.Linear)
@check("vectors", "chains of a body", make=test_gaussian.AlmostLinear)
def chains(make):
    return lambda: test_vectors.test_chains_keep_the_exact_distribution(make)


# ------------------------------------------------------------------------------ reading the model


@check("reading", "masked", body=reading.masked)
@check("reading", "masked by bool", body=reading.masked_by_bool)
@check("reading", "scaled", body=reading.scaled)
@check("reading", "masked outside", body=reading.categorical, outside=True)
def same_joint(body, outside=False):
    def test():
        world = reading.World()
        model = world.model(body)
        if outside:
            model = poutine.mask(model, mask=torch.tensor([True, False]))
        reading.assert_same_joint(world, model)

    return test


@check("reading", "subsampled")
def subsampled():
    return reading.test_subsampling_does_not_temper_the_posterior


# ------------------------------------------------------------------- Dirichlet sites, and chains


@check("dirichlet", "counts")
def counts():
    def test():
        with pyro.validation_enabled(False):
            for lengths in (None, torch.tensor([5, 2, 4])):
                gibbs.test_conjugate_counts_are_bincounts(lengths, verify=False)

    return test


@check("dirichlet", "paths")
def paths():
    return lambda: gibbs.test_paths_with_phi_integrated_out(1, None, R=20_000, num_steps=2)


@check("dirichlet", "labels")
def labels():
    return gibbs.test_each_chain_keeps_its_own_labels


@check("em", "minibatches")
def minibatches():
    words = torch.randint(test_stochastic_em.V, (test_stochastic_em.T, test_stochastic_em.B))
    return lambda: test_stochastic_em.test_incremental_counts_hold_all_sequences(words, "mean")


# ------------------------------------------------------------------- several chains, and labels


@check("chains", "joint of two alike")
def joint_of_two():
    """Chains of as many states, of which x sees the difference: with the table, path by path."""
    model, x = test_scan.side_by_side(test_scan.make_chains()), torch.randn(3)
    exact = all_paths(model, {"z": 2, "w": 2}, x)

    def test():
        run = Program(model, (repeated(x, len(exact.log_joint)),)).run()
        path = run.flatten(exact.paths)
        with torch.no_grad():
            found = run.log_transition(path) + run.log_emission(path)
        torch.testing.assert_close(found, exact.log_joint)

    return test


@check("chains", "joint, scaled", variant="scaled")
@check("chains", "joint, ragged", variant="ragged")
def joint(variant):
    chains = test_chains.make_chains()
    return lambda: test_chains.test_joint_of_the_samplers_is_that_of_the_trace(chains, variant)


@check("chains", "products")
def products():
    return test_product_transition.test_probabilities_are_products


@check("chains", "labels", case="ragged")
def labelled(case):
    transition = test_labels.make_transition()
    return lambda: test_labels.test_log_joint_is_that_of_the_clamped_paths(transition, case)


@check("chains", "one given", make=test_scan.side_by_side)
@check("chains", "read by a later loop", make=test_scan.reading)
def given_the_other(make):
    chains = test_scan.make_chains()
    return lambda: test_scan.test_what_a_block_sees_is_the_joint(make, chains, "z", False)


@check("chains", "scan")
def scan():
    chains = test_scan.make_chains()

    def test():
        with pytest.MonkeyPatch.context() as patch:
            test_scan.test_one_scan_keeps_the_exact_joint_posterior(
                test_scan.side_by_side, chains, 0, patch, R=20_000
            )

    return test


@check("chains", "counts of two loops")
def counts_of_two_loops():
    return lambda: test_scan.test_em_counts_all_look_ups(test_scan.make_chains())


# ------------------------------------------------------------ sites outside the loop, no Dirichlet


@check("globals", "potential", model=models_of_globals.normal_mean_and_scale)
@check("globals", "potential, of the transition too", model=models_of_globals.logistic_rows)
@check("globals", "potential, given Dirichlet rows", model=models_of_globals.gamma_over_dirichlet)
def potential(model):
    return lambda: test_globals.test_the_potential_is_pyros_own(model)


@check("globals", "path")
def path():
    return test_globals.test_a_kernel_forgets_the_potential_of_the_last_path


@check("globals", "finite")
def finite():
    return test_globals.test_a_finite_site_is_drawn_by_its_weights


@check("globals", "blocks")
def blocks():
    return test_globals.test_each_block_is_given_what_the_last_one_drew


@check("globals", "chains")
def chains_of_globals():
    return test_globals.test_chains_keep_to_their_own_values


@check("globals", "closed form")
def closed_form():
    return test_globals.test_statistics_are_those_of_the_data
