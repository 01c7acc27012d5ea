"""One sweep, begun at exact draws from the posterior, ends in exact draws from the posterior.

No burn-in and no autocorrelation, so 10^5 replicates say much; few particles and sharp models are
where a wrong sampler shows. A kernel that never moves passes too: ``test_movement.py``.
"""

import itertools

import pytest
import torch

from tests.statistics import ALPHA, covering_list, one_sweep_p_value, pairs, random_problem

FACTORS = {
    "kind": ("lstm", "markov"),
    "K": (2, 3, 4),
    "T": (1, 2, 3, 4, 5, 6),
    "model": ((6.0, 0.3), (6.0, 1.0), (1.0, 1.0)),  # sharpness of the cell, and of the emission
    "ragged": (False, True),
    "inputs": (False, True),
    "scaled": (False, True),
    "num_particles": (2, 3, 10),
    "resampling": ("systematic", "multinomial"),
    "ancestor_sampling": (0, 1, 3),
    "proposal_lag": (1, 2, 4),
    "forced_move": (True, False),
    "twist": (None, "chain", "noise"),
}


def allowed(case):
    return not (case["kind"] == "markov" and case["inputs"])


#: the sampler knows nothing of cells, so another recurrent one needs no covering list of its own
MULTIPLICATIVE = [
    {"kind": "mlstm", **dict(zip(tuple(FACTORS)[1:], levels, strict=True))}
    for levels in (
        (3, 4, (6.0, 0.3), True, True, False, 3, "systematic", 1, 2, True, "noise"),
        (2, 6, (6.0, 1.0), False, True, True, 2, "multinomial", 3, 1, False, None),
        (4, 3, (1.0, 1.0), True, False, False, 10, "systematic", 0, 1, True, "chain"),
    )
]
CASES = covering_list(FACTORS, allowed, 90) + MULTIPLICATIVE


def name(case):
    model = {(6.0, 0.3): "sharp", (6.0, 1.0): "sharp_cell", (1.0, 1.0): "mild"}[case["model"]]
    flags = [flag for flag in ("ragged", "inputs", "scaled", "forced_move") if case[flag]]
    shape = f"K{case['K']}-T{case['T']}-P{case['num_particles']}"
    redraw = f"AS{case['ancestor_sampling']}-L{case['proposal_lag']}"
    flags += [] if case["twist"] is None else [case["twist"]]
    return "-".join([case["kind"], model, shape, redraw, case["resampling"], *flags])


def check(case, num_draws, num_models=1):
    torch.manual_seed(torch.initial_seed() + 1000 * CASES.index(case))
    sharpness, concentration = case["model"]
    data = {key: case[key] for key in ("kind", "K", "T", "ragged", "inputs", "scaled", "twist")}
    settings = {key: case[key] for key in case if key not in data and key != "model"}
    for _ in range(num_models):
        problem = random_problem(sharpness=sharpness, concentration=concentration, **data)
        assert one_sweep_p_value(problem, num_draws, **settings) > ALPHA


def test_list_covers_all_pairs():
    seen = set.union(*map(pairs, CASES[:45]))
    for (a, levels_a), (b, levels_b) in itertools.combinations(FACTORS.items(), 2):
        for x, y in itertools.product(levels_a, levels_b):
            assert ((a, x), (b, y)) in seen or {a: x, b: y} == {"kind": "markov", "inputs": True}
    assert len(CASES) >= 45


@pytest.mark.parametrize("case", CASES[:8] + MULTIPLICATIVE[:1], ids=name)
def test_invariance_quick(case):
    check(case, 20_000)


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("case", CASES[:45] + MULTIPLICATIVE, ids=name)
def test_invariance(case):
    """Each of 48 p-values above ALPHA; in these cases every pair of levels occurs."""
    check(case, 50_000)


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("K, T, P", [(2, 4, 2), (2, 8, 3), (3, 5, 3)])
@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_invariance_where_all_memory_is_long(K, T, P, resampling, num_draws=50_000):
    """Every redraw of the reference's ancestor hangs on what all later steps say of a prefix.

    An LSTM with random weights forgets too fast to tell whether what one redraw learnt of them
    is taken to the next. Each of 18 p-values above ALPHA.
    """
    for seed in range(3):
        torch.manual_seed(seed)
        problem = random_problem(K, T, kind="echo", concentration=1.0)
        settings = {"ancestor_sampling": 1, "proposal_lag": 1, "forced_move": False}
        p_value = one_sweep_p_value(problem, num_draws, P, resampling=resampling, **settings)
        assert p_value > ALPHA


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("case", [case for case in CASES if case["twist"]], ids=name)
def test_invariance_of_twisted_sweeps(case):
    """Each of about 60 p-values above ALPHA."""
    check(case, 200_000)


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("case", CASES, ids=name)
def test_invariance_of_many(case):
    check(case, 1_000_000, num_models=3)
