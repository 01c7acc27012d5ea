"""Ctrl-C at any operation of any kind of run: what was reached comes back, and can be gone on from.

Operations of torch are counted, and the interrupt comes at a given one. Nothing here is a matter of
chance.
"""

import warnings

import pyro
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_ssl import MarkovEM
from pyro_ssl.models import fit_markov
from tests.faults.digest import digest_of_generators, digest_of_tensors
from tests.infer import test_saved_chains as chains
from tests.models import test_saved_fits as fits

pytestmark = pytest.mark.stage("system")


class Interrupts(TorchDispatchMode):
    """Raises ``KeyboardInterrupt`` once, before the operation of this number."""

    def __init__(self, at=None):
        super().__init__()
        self.at, self.count = at, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        if self.count == self.at:
            raise KeyboardInterrupt
        return func(*args, **(kwargs or {}))


def places(whole, num):
    """Operations to stop at: the first, the last, and some between."""
    return sorted({1, *(1 + i * (whole - 1) // (num + 1) for i in range(1, num + 1)), whole})


def stopped(at, call):
    """Call it, and stop it; return what it returns, and the number of operations."""
    with warnings.catch_warnings(), Interrupts(at) as mode:
        warnings.filterwarnings("ignore", ".*[sS]topped")
        found = call()
    assert at is None or mode.count >= at, "it was never stopped"
    return found, mode.count


def count(call):
    return stopped(None, call)[1]


# ----------------------------------------------------------------------------------- chains

CHAINS = ("states", "three chains", "occupancy", "vectors", "two loops", "NUTS")


def check_chains(tmp_path, name, num):
    """A run raises where no draw was begun, and returns the draws that were made."""
    expected = chains.run(name)
    draws = expected.get_samples(group_by_chain=True)
    whole = count(lambda: chains.run(name, tmp_path / "whole", every=3))
    for at in places(whole, num):
        folder = tmp_path / str(at)
        try:
            pg, _ = stopped(at, lambda at=folder: chains.run(name, at, every=3, quiet=True))
        except KeyboardInterrupt:
            assert not folder.exists()
            pg = None
        if pg is not None and pg.kernel is not None:
            for site, found in pg.get_samples(group_by_chain=True).items():
                assert torch.equal(found, draws[site][:, : found.shape[1]])
        again = chains.run(name, folder, seed=3 if folder.exists() else 0, resume=True)
        assert chains.all_of(again) == chains.all_of(expected)


@pytest.mark.parametrize("name", ["states", "NUTS"])
def test_chains(tmp_path, name):
    check_chains(tmp_path, name, 1)


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("name", CHAINS)
def test_chains_at_most_places(tmp_path, name):
    check_chains(tmp_path, name, 100)


# ------------------------------------------------------------------------------------- fits


def fitted(name, folder, at=None, seed=0, **options):
    """A model, and how many operations its fit took; it is stopped at one of them."""
    make, data, given = fits.FITS[name]
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    model, given = make(), {**given, "num_epochs": 2, "disable_progbar": True, **options}
    if callable(given.get("optim")):
        given["optim"] = given["optim"]()
    x, before = data(), digest_of_tensors(model.state_dict())
    try:
        history, num = stopped(at, lambda: model.fit(x, checkpoint=folder, **given))
    except KeyboardInterrupt:  # before anything was begun
        assert at == 1 and digest_of_tensors(model.state_dict()) == before
        return model, 0
    assert history == model.history and not (history and model.training)
    return model, num


def check_fits(tmp_path, name, num):
    """A fit does not raise once it has begun; its history is the start of the whole one's."""
    expected = fits.all_of(fitted(name, tmp_path / "whole")[0])
    _, whole = fitted(name, tmp_path / "count")  # the first one may have found out more
    for at in places(whole, num):
        folder = tmp_path / str(at)
        model, _ = fitted(name, folder, at)
        assert expected[1].startswith(fits.all_of(model)[1][:-1])
        has_save = bool(list(folder.glob("*/manifest.json")))
        again, _ = fitted(name, folder, seed=5 if has_save else 0, resume=True)
        assert fits.all_of(again)[:3] == expected[:3]


@pytest.mark.parametrize("name", ["topical, no start", "topical", "Gaussian", "language", "IMV"])
def test_fits(tmp_path, name):
    check_fits(tmp_path, name, 1)


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("name", fits.FITS)
def test_fits_at_most_places(tmp_path, name):
    check_fits(tmp_path, name, 100)


def test_an_hmm():
    """The best so far comes back, or the interrupt where there is none."""
    model, words = fits.topical().model, fits.words()

    def fit():
        pyro.set_rng_seed(0)
        return fit_markov(model, words, num_steps=2, num_starts=2, disable_progbar=True)

    steps, seen = [], set()
    with pytest.MonkeyPatch.context() as patch:
        epoch = MarkovEM.epoch
        patch.setattr(MarkovEM, "epoch", lambda *args: steps.append(epoch(*args)) or steps[-1])
        for at in places(count(fit), 7):
            steps.clear()
            try:
                hmm, _ = stopped(at, fit)
                assert steps and hmm.matrix.shape == (3, 3)
                seen.add(min(len(steps), 3))
            except KeyboardInterrupt:
                assert not steps
                seen.add(0)
    assert seen == {0, 1, 2, 3}


def test_the_hmm_of_a_fit_is_not_lost():
    """A fit that is stopped in its start leaves what it took, and the model as it was."""
    model = fits.topical()
    before = digest_of_tensors(model.state_dict()), digest_of_generators()
    calls, epoch = [], MarkovEM.epoch

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return epoch(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MarkovEM, "epoch", interrupted)
        with pytest.warns(RuntimeWarning, match=r"go on by fit\(\.\.\., markov=model\.markov\)"):
            assert model.fit(fits.words(), markov_steps=9, disable_progbar=True) == []
    assert (digest_of_tensors(model.state_dict()), digest_of_generators()) == before
    assert model.history == [] and model.markov.matrix.shape == (3, 3)
    how = {"markov": model.markov, "num_epochs": 1, "transition_steps": 2}
    assert len(model.fit(fits.words(), **how)) == 1
