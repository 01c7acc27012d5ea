"""Quick checks of one file of the package: ``python -m tests.mutants.kill_suite smc/sweep.py``.

They are the tests of laws themselves, with fewer draws and sharper models. Exits with 1 where one
fails (its name is printed), and with 0 where none does.
"""

import itertools
import sys

import pyro
import pytest
import torch

from pyro_ssl.errors import LatentSiteError
from tests.infer import test_particle_gibbs_law
from tests.reading import test_program
from tests.smc import (
    test_evidence,
    test_gaussian,
    test_invariance,
    test_movement,
    test_resampling,
)
from tests.statistics import ALPHA, one_sweep_p_value, random_problem

KILLED, DIFFERENT_ERROR = 1, 2


def cases(test, **fixed):
    """All calls that pytest would make of a parametrised test."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    for values in itertools.product(*(mark.args[1] for mark in marks)):
        arguments = dict(fixed)
        for mark, value in zip(marks, values, strict=True):
            names = [name.strip() for name in mark.args[0].split(",")]
            arguments |= dict(zip(names, value if len(names) > 1 else [value], strict=True))
        yield test, arguments


def invariance(num_particles, **settings):
    """On three sharp models, ragged and with inputs, of which one is scaled."""
    for seed in range(3):
        torch.manual_seed(seed)
        data = {"ragged": seed < 2, "inputs": seed < 2, "scaled": seed == 1}
        problem = random_problem(3, 5, concentration=(0.3, 1.0)[seed % 2], **data)
        assert one_sweep_p_value(problem, 100_000, num_particles, **settings) > ALPHA


def kernel_matrices():
    for shape, settings in test_movement.CASES:
        if shape in [(2, 2, 3), (2, 3, 2)]:
            arguments = {"shape": shape, "settings": settings, "num_draws": 50_000}
            yield test_movement.test_sampler_follows_the_exact_kernel, arguments
    yield from cases(test_movement.test_padding_and_scale_follow_the_exact_kernel, num_draws=50_000)


def smc_checks():
    yield from cases(test_resampling.test_inversion)
    yield from cases(test_resampling.test_law_given_the_first_ancestor)
    yield test_evidence.test_one_particle_gives_the_product_of_its_predictions, {}
    yield from cases(test_evidence.test_first_step_is_exact)
    yield from cases(test_evidence.test_nothing_is_added_past_the_length)
    yield from cases(test_evidence.test_impossible_data_have_evidence_zero)
    yield from cases(test_movement.test_one_particle_never_moves)
    yield from kernel_matrices()
    for resampling in ("systematic", "multinomial"):
        yield invariance, {"num_particles": 2, "resampling": resampling}
        arguments = {"num_particles": 3, "ancestor_sampling": 1, "proposal_lag": 1}
        yield invariance, {**arguments, "resampling": resampling, "forced_move": False}
    echo = test_invariance.test_invariance_where_all_memory_is_long
    yield from cases(echo, num_draws=100_000)
    for kind in test_evidence.KINDS:
        arguments = {"kind": kind, "num_particles": 4, "resampling": "systematic"}
        yield test_evidence.test_evidence_is_unbiased, arguments


def vector_checks():
    """Weights that differ from particle to particle, and look-ahead by expansion."""
    for make in (test_gaussian.Linear, test_gaussian.AlmostLinear):
        yield test_gaussian.test_evidence_is_unbiased_and_kalmans, {"make": make, "seed": 0, "P": 3}
    for kind in ("count", "sensor"):
        yield test_gaussian.test_evidence_of_other_emissions, {"kind": kind, "P": 10}
    for ancestor_sampling in (0, 1):
        for make in (test_gaussian.Linear, test_gaussian.AlmostLinear):
            arguments = {"make": make, "P": 2, "ancestor_sampling": ancestor_sampling}
            yield test_gaussian.test_one_sweep_keeps_the_exact_law, arguments
        for kind, P in (("count", 2), ("count", 3), ("sensor", 2)):
            arguments = {"kind": kind, "P": P, "ancestor_sampling": ancestor_sampling}
            yield test_gaussian.test_one_sweep_keeps_the_law_on_the_grid, arguments


def emission_checks():
    yield from cases(test_program.test_same_joint)
    yield from cases(test_program.test_same_joint_masked_and_scaled_outside)
    yield test_program.test_subsampling_does_not_temper_the_posterior, {}


def dirichlet_checks():
    yield from cases(test_particle_gibbs_law.test_conjugate_counts_are_bincounts)
    yield from cases(test_particle_gibbs_law.test_paths_with_phi_integrated_out)
    yield from cases(
        test_particle_gibbs_law.test_chains_with_parameters_integrated_out, num_chains=300
    )


SUITES = {
    "smc/sweep.py": smc_checks,
    "smc/gaussian.py": vector_checks,
    "smc/expanded.py": vector_checks,
    "smc/discrete.py": smc_checks,
    "smc/resampling.py": smc_checks,
    "reading/handlers.py": emission_checks,
    "infer/dirichlet.py": dirichlet_checks,
    "infer/particle_gibbs_kernel.py": dirichlet_checks,
}


def main(file):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    for check, arguments in SUITES[file]():
        pyro.set_rng_seed(0)
        pyro.clear_param_store()
        try:
            check(**arguments)
        except (AssertionError, pytest.fail.Exception, LatentSiteError):  # the last: it told itself
            print(check.__name__, arguments)
            return KILLED
        except Exception as error:
            print(check.__name__, arguments, repr(error))
            return DIFFERENT_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
