"""``verify`` finds the faults that are planted into users' models, and none in right ones."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_ssl import ParticleGibbs, verify
from pyro_ssl.smc.resampling import RESAMPLING
from pyro_ssl.testing import Check, Report, verify_sampler
from tests.faults.digest import nothing_changes
from tests.statistics import staged
from tests.test_testing import biased_systematic
from tests.testing.planted import PLANTED
from tests.testing.right_models import (
    NOT_EXACT,
    RIGHT,
    K,
    T,
    V,
    categorical,
    gaussian,
    loop,
    topics,
    words,
)

NAMES = (
    *("runs", "emission repeats", "emission local", "weights", "parameters", "data kept"),
    *("repeats", "Pyro's trace", "step is log_prob", "rows apart", "state gathers", "normalised"),
    *("causal", "evidence", "invariance", "evidence, twisted", "invariance, twisted", "movement"),
)


@pytest.fixture
def quick(monkeypatch):
    """Fewer draws."""
    monkeypatch.setattr(verify_sampler, "WORK", 5e8)


def report_of(make, **how):
    model, args, *kwargs = make()
    return verify(model, *args, **(kwargs[0] if kwargs else {}), **how)


@pytest.mark.stage("system")
@pytest.mark.parametrize("make", RIGHT, ids=lambda make: make.__name__)
def test_right_models_pass(make, quick):
    report = report_of(make)
    assert report.passed and not report.of("warning"), report
    assert tuple(check.name for check in report.checks) == NAMES
    assert len(report.of("skipped")) == (4 if make in NOT_EXACT else 0), report


@pytest.mark.stage("system")
@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_are_found(name, quick):
    make, check, verdict = PLANTED[name]
    report = report_of(make)
    assert report[check].verdict == verdict, report
    assert report[check].found and report[check].write
    assert report.passed == (verdict == "warning")


def find_no_fault(make, seeds):
    """Other parameters, other data, other draws, in full."""
    for seed in seeds:
        pyro.set_rng_seed(seed)
        pyro.clear_param_store()
        report = report_of(make, seed=seed)
        assert report.passed and not report.of("warning"), f"seed {seed}: {report}"


@pytest.mark.parametrize("make", staged(RIGHT, RIGHT[::4]), ids=lambda make: make.__name__)
def test_no_false_alarm(make):
    find_no_fault(make, range(1))


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("make", RIGHT, ids=lambda make: make.__name__)
def test_no_false_alarm_in_many(make):
    find_no_fault(make, torch.randint(2**31, (50,)).tolist())


@pytest.mark.stage("system")
def test_a_wrong_sampler_is_found(monkeypatch):
    monkeypatch.setitem(RESAMPLING, "systematic", biased_systematic)
    report = report_of(gaussian)
    assert not report.passed, report


def test_float32(quick):
    torch.set_default_dtype(torch.float32)
    assert not report_of(categorical).of("failed")


def test_given_values_are_kept(quick):
    model, args = categorical()
    phi = torch.eye(K, V) * 0.8 + 0.2 / V
    assert verify(pyro.condition(model, {"phi": phi}), *args).passed


def test_fully_masked_model_has_nothing_to_compare(quick):
    model, args = categorical()
    report = verify(poutine.mask(model, mask=False), *args)
    assert report.passed and len(report.of("skipped")) == 5, report


@pytest.mark.stage("system")
def test_all_is_left_as_it_was(quick):
    left = (
        "it_centres_the_data_in_place",
        "it_has_batch_norm_in_training_mode",
        "it_hangs_on_no_latent",
    )
    for make in (categorical, *(PLANTED[name][0] for name in left)):
        model, args = make()
        kept = [arg.clone() for arg in args]
        with nothing_changes():
            verify(model, *args)
        assert all(torch.equal(*pair) for pair in zip(args, kept, strict=True)), make.__name__


def test_a_trained_model_keeps_what_it_learned(quick):
    """Also what Pyro's store has learned of its parameters is what is looked at."""
    model, args = loop(
        *(lambda z, mean: dist.Normal(mean[z], 1.0), torch.randn(T, 2)),
        given=lambda: {"mean": pyro.param("mean", torch.full((K,), torch.nan))},
    )
    pyro.param("mean", torch.randn(K))
    with nothing_changes():
        assert verify(model, *args).passed


@pytest.mark.stage("system")
def test_same_seed_same_report(quick):
    model, args = categorical()
    first = verify(model, *args)
    torch.rand(3)
    assert str(verify(model, *args)) == str(first) != str(verify(model, *args, seed=1))


def test_an_error_of_the_users_own_is_told(quick):
    def model(x):
        raise KeyError("no such column")

    report = verify(model, words())
    assert not report.passed and [check.name for check in report.checks] == ["runs"]
    assert "KeyError: 'no such column'" in report["runs"].found


@pytest.mark.stage("system")
@pytest.mark.parametrize("most, num_steps", [(K**4, 4), (K, 2), (1, 1)])
def test_as_many_paths_are_enumerated_as_can_be(most, num_steps, quick, monkeypatch):
    monkeypatch.setattr(verify_sampler, "MAX_PATHS", most)
    monkeypatch.setattr(verify_sampler, "MORE", K)
    report = report_of(categorical)
    assert report.passed and f"of {num_steps} steps" in report["evidence"].found, report


def test_number_of_particles_is_checked():
    with pytest.raises(ValueError, match="num_particles is 1, expected at least 2"):
        verify(lambda: None, num_particles=1)


def test_report_is_a_table():
    long = Check("evidence", "failed", "far " * 60, "another " * 30 + "line")
    report = Report((Check("runs", "passed", "yes"), long, Check("movement", "skipped", "no")))
    lines = str(report).split("\n")
    assert lines[0] == "verify: 1 passed, 0 warnings, 1 failed, 1 not verified"
    assert lines[1].split() == ["passed", "runs", "yes"] and lines[2].startswith("FAILED   evide")
    assert max(map(len, lines)) <= 100 and sum("   write" in line for line in lines) == 1
    assert not report.passed and report["runs"].found == "yes"
    with pytest.raises(KeyError, match='"none": no such check, expected one of'):
        report["none"]


def test_what_passes_runs(quick):
    """What has been verified goes into the sampler as it is."""
    model, args = loop(lambda z, phi: dist.Categorical(phi[z]), words(), given=topics)
    assert verify(model, *args).passed
    ParticleGibbs(model, 3).run(*args, num_samples=2, disable_progbar=True)
