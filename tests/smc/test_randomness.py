"""Numbers by counter: the published generator, and draws that depend on seed and sequence alone."""

import pytest
import torch

from pyro_ssl import kernels
from pyro_ssl.smc import TableEmission, conditional_smc
from pyro_ssl.smc.randomness import ANCESTORS, LATENTS, REDRAWS, Randomness, philox
from tests.statistics import ALPHA, chi_square, p_value, random_problem

DOUBLE = torch.float64

#: counter, key and words, as published with the generator (Random123, kat_vectors)
KNOWN = [
    ([0] * 4, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, (0xFFFFFFFF,) * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        (0xA4093822, 0x299F31D0),
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize("counter, key, words", KNOWN, ids=["zeros", "ones", "pi"])
def test_philox_is_the_published_one(counter, key, words):
    assert [int(w) for w in philox([torch.tensor(c) for c in counter], key)] == words


@pytest.mark.skipif(not kernels.available(), reason=str(kernels.available()))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 10])
def test_compiled_bit_for_bit(dtype, size):
    sequences = torch.tensor([3, 2**40 + 7, 0, 2**62])
    for seed in (0, 2**63 - 2, 2**32 + 1):
        numbers = Randomness(seed, sequences)
        found = numbers.uniform(REDRAWS, 7, size, dtype)
        with kernels.turned_off():
            assert torch.equal(found, numbers.uniform(REDRAWS, 7, size, dtype))


@pytest.mark.parametrize("compiled", [True, False])
def test_depend_on_sequence_and_step_alone(compiled):
    switch = kernels.turned_off if not compiled else pytest.MonkeyPatch.context
    with switch():
        all_of_them = Randomness(9, torch.arange(50)).uniform(LATENTS, 12, 6, DOUBLE)
        some = torch.tensor([31, 4, 4, 49])
        found = Randomness(9, some).uniform(LATENTS, 5, 6, DOUBLE)
        assert torch.equal(found, all_of_them[:5, some])
        normal = Randomness(9, torch.arange(50)).normal(LATENTS, 12, 5, DOUBLE)
        assert torch.equal(Randomness(9, some).normal(LATENTS, 5, 5, DOUBLE), normal[:5, some])


def test_no_two_are_the_same():
    """Of any purpose, step, sequence, slot or seed: 53 bits do not meet in 10^4 draws."""
    drawn = [
        Randomness(seed, torch.arange(10)).uniform(purpose, 9, 7, DOUBLE).flatten()
        for seed in (0, 1, 2**32, 2**62)
        for purpose in range(5)
    ]
    together = torch.cat(drawn)
    assert len(together.unique()) == len(together)
    assert 0.0 <= float(together.min()) and float(together.max()) < 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform(dtype):
    """Numbers, and pairs of neighbours along each dimension: each of 8 p-values above ALPHA."""
    u = Randomness(4, torch.arange(200)).uniform(ANCESTORS, 50, 20, dtype).double()
    law = torch.full((20,), 1 / 20)
    assert p_value([chi_square((u.flatten() * 20).long().bincount(minlength=20), law)]) > ALPHA
    for dim in range(3):
        n = u.shape[dim] - 1
        one, next_one = u.narrow(dim, 0, n).flatten(), u.narrow(dim, 1, n).flatten()
        cells = (one * 8).long() * 8 + (next_one * 8).long()
        counts = cells.bincount(minlength=64)
        assert p_value([chi_square(counts, torch.full((64,), 1 / 64))]) > ALPHA


def test_normal():
    """By its distribution function uniform, also along pairs: each of 2 p-values above ALPHA."""
    x = Randomness(4, torch.arange(200)).normal(LATENTS, 50, 21, DOUBLE)
    u = torch.special.ndtr(x)
    law = torch.full((40,), 1 / 40)
    assert p_value([chi_square((u.flatten() * 40).long().bincount(minlength=40), law)]) > ALPHA
    cells = (u[..., :-1] * 8).long() * 8 + (u[..., 1:] * 8).long()
    counts = cells.flatten().bincount(minlength=64)
    assert p_value([chi_square(counts, torch.full((64,), 1 / 64))]) > ALPHA


def test_seed_is_drawn_from_torchs_generator():
    torch.manual_seed(1)
    first, second = (Randomness(None, torch.arange(2)).seed for _ in range(2))
    torch.manual_seed(1)
    assert Randomness(None, torch.arange(2)).seed == first != second


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("twist", [None, "noise"])
def test_a_sequence_draws_the_same_in_any_batch(dtype, twist, B=40, T=12):
    """Alone, in another order, or with padding behind it."""
    torch.manual_seed(0)
    problem = random_problem(4, T, sharpness=2.0)
    transition = problem.transition.to(dtype)
    table, log_twist = torch.randn(2, T, B, 4, dtype=dtype)
    lengths = torch.randint(1, T + 1, (B,))
    last = torch.arange(T).view(-1, 1, 1) >= lengths.view(-1, 1) - 1
    log_twist.masked_fill_(last, 0.0)
    reference = torch.randint(4, (T, B))

    def sweep(index, steps):
        index = torch.tensor(index)
        return conditional_smc(
            transition,
            TableEmission(table[:steps, index]),
            5,
            reference[:steps, index],
            lengths=lengths[index].clamp(max=steps),
            ancestor_sampling=2,
            twist=None if twist is None else TableEmission(log_twist[:steps, index]),
            seed=7,
            sequences=index,
        )

    whole = sweep(range(B), T)
    for b in range(0, B, 3):
        alone = sweep([b], int(lengths[b]))
        assert torch.equal(alone.path[:, 0], whole.path[: lengths[b], b])
    order = torch.randperm(B).tolist()
    assert torch.equal(sweep(order, T).path, whole.path[:, order])
