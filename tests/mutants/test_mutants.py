"""Each wrong sampler is noticed, and each right one is not."""

from pathlib import Path

import pytest

import pyro_ssl
from pyro_ssl.smc import sweep
from tests.mutants.checks import SUITES, prepared
from tests.mutants.inject import edited_code
from tests.mutants.mutants import EQUIVALENT, MUTANTS

EVERY_CHECK = [
    pytest.param(suite, check, id=f"{suite}: {check}")
    for suite, checks in SUITES.items()
    for check in checks
]


def test_names_are_known_and_edits_up_to_date():
    """Each enters and leaves; what it replaced is back."""
    assert len(MUTANTS) >= 85
    assert len({mutant.name for mutant in MUTANTS + EQUIVALENT}) == len(MUTANTS + EQUIVALENT)
    before = sweep._sweep.__code__, sweep._final_slot, sweep.map_state
    for mutant in MUTANTS + EQUIVALENT:
        assert mutant.check is None or mutant.check in SUITES[mutant.suite], mutant.name
        with mutant.injected():
            pass
    assert before == (sweep._sweep.__code__, sweep._final_slot, sweep.map_state)


def test_an_edit_that_does_not_fit_is_told():
    with pytest.raises(
        ValueError, match="sweep._sweep holds 'no such line' 0 times, expected once"
    ):
        edited_code(sweep._sweep, "no such line", "pass")


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("suite, check", EVERY_CHECK)
def test_check_passes(suite, check):
    prepared(suite, check)()


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_killed(mutant):
    """By an assertion of its check, and not by an error or an assertion within the package."""
    test = prepared(mutant.suite, mutant.check)
    with mutant.injected(), pytest.raises(AssertionError) as failure:
        test()
    assert Path(pyro_ssl.__file__).parent not in failure.traceback[-1].path.parents


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("mutant", EQUIVALENT, ids=lambda mutant: mutant.name)
def test_equivalent_change_survives(mutant):
    for check in SUITES[mutant.suite]:
        test = prepared(mutant.suite, check)
        with mutant.injected():
            test()
