"""Several ranks learn what one process learns, send as little as they can, and fail together."""

import itertools
import re

import pyro
import pytest
import torch

from pyro_ssl.distributed import Alone, current, ranks
from pyro_ssl.errors import RankError
from tests.distributed import scenarios
from tests.distributed.launch import results

#: by scenario: the same numbers from one process, from which ranks differ by rounding alone
EXACT = ("em_draws", "em_drawn_transition", "markov", "gibbs")
#: the same whatever the number of ranks, one among them
AMONG_RANKS = ("em_twisted",)
#: with four ranks alone
MORE_EXACT = ("em", "em_unconditional", "whole", "vectors")
MORE_AMONG_RANKS = ("gibbs_twisted",)
#: the same on all ranks of a run, whatever it is
ALIKE = (
    "em_dropout",
    "vectors_twisted",
    "other_seeds",
    "warm",
    "topical",
    "topical_whole",
)
#: what is of a rank's own sequences
OWN = ("index", "paths", "vectors", "said")

system = pytest.mark.stage("system")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two ranks made of each scenario."""
    names = (*EXACT, *AMONG_RANKS, "sent", "many_counts", "recovered", "refusals")
    return results(2, ",".join(names), tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    names = (*EXACT, *AMONG_RANKS, *MORE_EXACT, *MORE_AMONG_RANKS)
    return results(4, ",".join(names), tmp_path_factory.mktemp("more"))


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    return results(2, ",".join(ALIKE), tmp_path_factory.mktemp("alike"))


def in_ranks_of_one(name):
    with ranks() as here:
        assert current() is here
        made = scenarios.several(name, here)[name]
    assert type(current()) is Alone
    return made


def check_same(name, made, wanted):
    """Paths bit by bit, and numbers but for rounding."""
    wanted = {key: torch.as_tensor(value) for key, value in wanted.items()}
    each = [rank[name] for rank in made]
    if "paths" in wanted:
        index = torch.cat([one["index"] for one in each])
        order, found = index.argsort(), torch.cat([one["paths"] for one in each])
        assert torch.equal(index[order], wanted["index"].sort()[0])
        assert torch.equal(found[order], wanted["paths"][wanted["index"].argsort()])
    if "vectors" in wanted:  # numbers that were rounded in another order
        index = torch.cat([one["index"] for one in each])
        found = torch.cat([one["vectors"] for one in each])[index.argsort()]
        assert torch.allclose(found, wanted["vectors"][wanted["index"].argsort()])
    for key, one in itertools.product(wanted.keys() - {*OWN, "unseeded"}, each):
        found = torch.as_tensor(one[key])
        assert torch.allclose(found, wanted[key], rtol=1e-10, atol=1e-12, equal_nan=True), key


def check_alike(name, made):
    for key in made[0][name].keys() - {*OWN}:
        values = [torch.as_tensor(rank[name][key]) for rank in made]
        assert all(torch.equal(values[0], value) for value in values), key


@system
@pytest.mark.parametrize("name", EXACT)
def test_two_ranks_are_one_process(two, name):
    check_same(name, two, scenarios.alone(name))
    check_alike(name, two)


@system
@pytest.mark.parametrize("name", AMONG_RANKS)
def test_the_twist_does_not_depend_on_the_number_of_ranks(two, name):
    check_same(name, two, in_ranks_of_one(name))


@system
@pytest.mark.parametrize("name", [*EXACT, *MORE_EXACT])
def test_ranks_are_one_process(more, name):
    check_same(name, more, scenarios.alone(name))


@system
@pytest.mark.parametrize("name", [*EXACT, *AMONG_RANKS, *MORE_EXACT, *MORE_AMONG_RANKS])
def test_ranks_are_one_rank(more, name):
    check_same(name, more, in_ranks_of_one(name))


@system
@pytest.mark.parametrize("name", [*EXACT, *AMONG_RANKS])
def test_all_ranks_hold_the_same(more, name):
    check_alike(name, more)


@system
@pytest.mark.parametrize("name", ALIKE)
def test_both_ranks_hold_the_same(alike, name):
    check_alike(name, alike)


def test_one_rank_draws_what_one_process_draws():
    """Without a twist the ranks' streams leave the draws as they are."""
    check_same("gibbs", [{"gibbs": in_ranks_of_one("gibbs")}], scenarios.alone("gibbs"))


def test_what_is_sent_does_not_grow_with_the_sequences(two):
    """A step sends gradients and changes of counts, a number for each, in the model's dtype."""
    sent = two[0]["sent"]
    numbers = scenarios.K * scenarios.V + sent["parameters"]
    assert sent["torch.float64"] == [8 * numbers] * 4
    assert sent["torch.float32"] == [4 * numbers] * 4


def test_no_count_is_rounded_on_its_way(two):
    """Where their sum may exceed what float32 counts to, they are sent in float64."""
    for most, (total, num_bytes) in two[0]["many_counts"].items():
        assert total == [2.0 * most + 1, 7.0]
        assert num_bytes == (16 if most > 2**23 else 8)


def test_scores_under_a_twist_agree(two):
    """Each rank chooses its own there, which leaves the evidence unbiased."""
    pyro.clear_param_store()
    wanted = scenarios.alone("markov")["unseeded"]
    assert two[0]["markov"]["unseeded"] == pytest.approx(wanted, rel=0.01)


def test_an_error_on_one_rank_is_undone_on_all(two):
    check_same("recovered", two, scenarios.alone("recovered"))
    said = "Rank 1 failed in StochasticEM.step: ArithmeticError: no such word"
    assert two[0]["recovered"]["said"] == [f"RankError: {said}"]
    assert two[1]["recovered"]["said"] == ["ArithmeticError: no such word"]


TOLD = {
    "same sequences": "ValueError: .* two ranks were given the same sequences, expected others",
    "more than all": "ValueError: .* 2 of the sequences .* expected each sequence once",
    "other parameters": "ValueError: .* parameters differ from rank to rank, expected the same",
    "other calls": "RankError: Rank 0 is at MarkovEM.epoch, and rank 1 at StochasticEM.step",
    "none of a rank": "ValueError: 1 sequences, none of them of rank . of 2, expected one",
    "not all": "ValueError: .* its plate is subsampled, but particle Gibbs .* all data",
    "a free site": 'LatentSiteError: Site "rate": .* found 2 ranks, expected one process',
}


@pytest.mark.parametrize("case", TOLD)
def test_refusals(two, case):
    for rank in two:
        assert re.match(TOLD[case], rank["refusals"][case]), rank["refusals"][case]


def test_minibatches_hold_each_sequence_once():
    """Over all ranks, each on its own rank, in as many steps on each."""
    for N, size, W in itertools.product((4, 10, 11, 13), (2, 3, 4, 20), (1, 2, 3, 4)):
        each = []
        for rank in range(W):
            with ranks() as here:
                here.rank, here.size = rank, W
                torch.manual_seed(5)
                each.append(here.minibatches(N, size))
                here.rank, here.size = 0, 1
        assert len({len(parts) for parts in each}) == 1
        for rank, parts in enumerate(each):
            assert sorted(torch.cat(parts).tolist()) == list(range(rank, N, W))
        for parts in zip(*each, strict=True):
            sizes = [len(part) for part in parts]
            assert min(sizes) > 0 and max(sizes) - min(sizes) <= 1


def test_an_error_ends_the_ranks():
    with pytest.raises(ZeroDivisionError), ranks():
        raise ZeroDivisionError
    assert not current().active
    assert issubclass(RankError, RuntimeError)
