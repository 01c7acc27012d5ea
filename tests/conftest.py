"""What every test starts from: float64, one seed, an empty parameter store.

``pytest`` runs the unit tests, those that are fast. ``--stage=system`` runs the tests of whole
jobs: fits and runs from end to end, stopped, killed or over several processes, and of every class
with everything that it takes. ``--stage=statistical`` runs those of distributions,
``--stage=unit,system`` two stages, ``--stage=all`` these three, and ``--stage=nightly`` the long
ones, seeded by the date. To repeat a failure, give the seed that the header prints:
``PYRO_SSL_SEED=20250131 pytest --stage=nightly``. ``PYRO_SSL_DEVICE=cuda`` puts the tests that take
the ``device`` fixture on a GPU.

No test fails by the clock: how long a run takes depends on what else the machine does. The summary
gives its time and the time to aim for; ``timeout`` in setup.cfg ends only what hangs.
"""

import datetime
import gc
import os
import random
import time

import hypothesis
import numpy
import pyro
import pytest
import torch

STAGES = ("unit", "system", "statistical", "nightly")

#: seconds that a stage should take on two quiet cores
AIMS = {"unit": 60, "system": 300, "statistical": 660, "all": 960}

STARTED = pytest.StashKey[float]()


def pytest_addoption(parser):
    parser.addoption(
        "--stage",
        default="unit",
        metavar="A,B",
        help=f"of {', '.join(STAGES)}; all: all but nightly",
    )


def pytest_configure(config):
    config.stash[STARTED] = time.perf_counter()
    nightly = config.getoption("--stage") == "nightly"
    hypothesis.settings.register_profile(
        "repeatable",
        deadline=None,
        derandomize=not nightly,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("repeatable")
    if not torch.cuda.is_available():  # read when Triton is imported, by the kernels that need it
        os.environ.setdefault("TRITON_INTERPRET", "1")
    # Threads of several workers, and of what they start, would wait for each other on few cores.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Ten thousand tests live until the end: looking for cycles among them finds none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_report_header(config):
    return f"stage: {config.getoption('--stage')}, seed: {_seed(config)}, device: {_device()}"


def pytest_collection_modifyitems(config, items):
    asked = config.getoption("--stage")
    wanted = set(STAGES[:-1] if asked == "all" else asked.split(","))
    if wanted - set(STAGES):
        raise pytest.UsageError(f"--stage: found {asked!r}, expected some of {STAGES}, or all")
    selected, deselected = [], []
    for item in items:
        marked = {marker.args[0] for marker in item.iter_markers("stage")}
        if marked - set(STAGES):
            raise pytest.UsageError(f"{item.nodeid}: found stages {marked}, expected {STAGES}")
        stage = max(marked, key=STAGES.index, default="unit")  # a case may be of a later one
        (selected if stage in wanted else deselected).append(item)
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
    items[:] = selected
    config.hook.pytest_deselected(items=deselected)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    item.stash[STARTED] = _cpu_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    try:
        return (yield)
    finally:  # a worker's reports carry this to where the summary is made
        item.user_properties.append(("cpu_seconds", _cpu_seconds() - item.stash[STARTED]))


def pytest_terminal_summary(terminalreporter, config):
    stage = config.getoption("--stage")
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    spent = [
        dict(report.user_properties).get("cpu_seconds", 0.0)
        for report in reports
        if getattr(report, "when", None) == "teardown"
    ]
    wall = time.perf_counter() - config.stash[STARTED]
    aim = f" (aim: {AIMS[stage]} s on two quiet cores)" if stage in AIMS else ""
    terminalreporter.section("time")
    terminalreporter.line(
        f"stage {stage}: {wall:.0f} s wall{aim}, {sum(spent):.0f} s of CPU in {len(spent)} tests"
    )


def _cpu_seconds():
    """CPU time of this process and of those that it waited for."""
    return sum(os.times()[:4])


def _seed(config):
    today = datetime.date.today().strftime("%Y%m%d")
    default = today if config.getoption("--stage") == "nightly" else 0
    return int(os.environ.get("PYRO_SSL_SEED", default))


def _device():
    return torch.device(os.environ.get("PYRO_SSL_DEVICE", "cpu"))


def set_rng_seed(seed):
    """As Pyro does; without a GPU, ``torch.manual_seed`` would format a stack for each kind."""
    if torch.cuda.is_available():
        pyro.set_rng_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        numpy.random.seed(seed)


@pytest.fixture(autouse=True)
def _fresh_state(request):
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    set_rng_seed(_seed(request.config))
    pyro.enable_validation(True)
    yield
    torch.set_default_dtype(default)


@pytest.fixture
def float32():
    """torch's default dtype, in which most fit and in which sweeps are compiled."""
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def device():
    """Where the test runs: ``PYRO_SSL_DEVICE``, the CPU by default."""
    return _device()


@pytest.fixture
def always_twisted(monkeypatch):
    """Sweeps are twisted however little that is worth: small problems need no twist."""
    from pyro_ssl.infer import trial

    monkeypatch.setattr(trial, "WORTH", float("inf"))
    monkeypatch.setattr(trial, "NEGLIGIBLE", -1.0)
