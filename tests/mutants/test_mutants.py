"""Each wrong sampler is noticed, and each right one is not."""

import pytest

from tests.mutants.mutants import EQUIVALENT, MUTANTS
from tests.mutants.run import mutated, run


def test_edits_are_up_to_date():
    assert len(MUTANTS) >= 25
    for mutant in MUTANTS + EQUIVALENT:
        compile(mutated(mutant), mutant.file, "exec")


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_killed(mutant):
    status, output = run(mutant)
    assert status == 1, output


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("mutant", EQUIVALENT, ids=lambda mutant: mutant.name)
def test_equivalent_edit_survives(mutant):
    status, output = run(mutant)
    assert status == 0, output
