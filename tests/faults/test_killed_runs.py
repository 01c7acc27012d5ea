"""Runs that are killed at random moments, again and again: what they come to is what it would be.

Each is started anew by the same lines as at first, and goes on from what is there. When it is
killed is drawn from a generator with a fixed seed, and what else the machine does; there are no
false alarms.
"""

import random
import time

import pytest

from tests.faults.nursery import nursery_of

pytestmark = pytest.mark.stage("system")

# One process imports once and forks the runs, which then are ready in milliseconds.
NURSERY = """
import hashlib, os, signal, sys, time
import pyro, pyro.distributions as dist, torch
import torch._dynamo  # two seconds, which the first optimiser of each run would take
from pyro.infer.mcmc import HMC
from pyro_ssl import *
from pyro_ssl.datasets import TokenCorpus, Vocabulary

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(1)
words, numbers = torch.randint(5, (6, 8)), torch.randn(6, 8)
frozen = LSTMTransition(3, 4)

def em(folder, **how):
    transition = LSTMTransition(3, 4)
    def model(x):
        pyro.module("transition", transition)
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(3, 5)).to_event(1))
        with pyro.plate("documents", 8):
            for t, z in ssl_transition("z", transition, 6):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])
    em = StochasticEM(model, pyro.optim.Adam({"lr": 0.05}), 5, draw_dirichlet=True, **how)
    done = 0
    if os.path.exists(os.path.join(folder, "0", "manifest.json")) or os.path.exists(
        os.path.join(folder, "1", "manifest.json")
    ):
        em.load(folder, words)
        done = em._num_steps
    for _ in range(done, 9):
        em.step(words)
        em.save(folder)
    return [em.paths, *em.values.values(), *transition.parameters(), torch.rand(3)]

def em_on_disk(folder):
    return em(folder, paths_folder=folder)

def chains(folder, **where):
    def model(x):
        mean = pyro.sample("mean", dist.Normal(torch.arange(3.0), 1.0).to_event(1))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("series", 8):
            for t, z in ssl_transition("z", frozen, 6):
                pyro.sample("x", dist.Normal(mean[z], scale), obs=x[t])
    hmc = lambda potential_fn: HMC(potential_fn=potential_fn, step_size=0.1, num_steps=2)
    pg = ParticleGibbs(model, 5, inner_kernel=hmc)
    how = {"num_samples": 6, "warmup_steps": 3, "num_chains": 2, "disable_progbar": True}
    pg.run(numbers, checkpoint=folder, every=1, resume=True, **how, **where)
    return [*pg.get_samples().values(), torch.rand(3)]

def chains_on_disk(folder):
    return chains(folder, draws_folder=os.path.join(folder, "draws"))

def fit(folder, data=words, **where):
    ssl = TopicalSSL(3, 5, hidden_size=4)
    how = {"num_epochs": 6, "markov_steps": 4, "markov_starts": 1, "transition_steps": 3}
    how |= {"num_valid_particles": 3, "disable_progbar": True}
    ssl.fit(data, valid=(words, None), checkpoint=folder, resume=True, **how, **where)
    losses = torch.tensor([record.loss for record in ssl.history])
    return [*ssl.state_dict().values(), losses, torch.rand(3)]

def corpus_fit(folder):
    place = folder + " corpus"
    if not os.path.exists(place):
        known = Vocabulary(["<unk>", *"abcd"])
        TokenCorpus.from_ids(place, words.T, known, disable_progbar=True)
    return fit(folder, TokenCorpus.open(place), batch_size=3, paths_folder=folder)

RUNS = {"em": em, "em on disk": em_on_disk, "chains": chains, "chains on disk": chains_on_disk}
RUNS |= {"fit": fit, "fit of a corpus": corpus_fit}
ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
os.write(1, b"ready\\n")
for line in sys.stdin:
    kind, folder, seed, patience = line.rstrip("\\n").split("\\t")
    pid = os.fork()
    if pid == 0:
        pyro.set_rng_seed(int(seed))
        content = b"".join(t.detach().numpy().tobytes() for t in RUNS[kind](folder))
        os.write(1, b"came to %s\\n" % hashlib.sha256(content).hexdigest().encode())
        os._exit(0)
    if patience:
        end = time.monotonic() + float(patience)
        while time.monotonic() < end and os.waitid(os.P_PID, pid, ended) is None:
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)  # who has come to the end is there until it is waited for
    status = os.waitpid(pid, 0)[1]
    os.write(1, b"dead\\n" if status in (0, signal.SIGKILL) else b"failed\\n")
"""


KINDS = ("em", "em on disk", "chains", "chains on disk", "fit", "fit of a corpus")


@pytest.fixture(scope="module")
def nursery():
    with nursery_of(NURSERY, "-W", "error") as process:
        assert process.stdout.readline() == "ready\n"  # its imports are no part of a run's time
        yield process


def start(nursery, kind, folder, seed, patience=None):
    """Run to the end, or until it is killed after so many seconds; what it came to, or ``None``."""
    patience = "" if patience is None else patience
    nursery.stdin.write(f"{kind}\t{folder}\t{seed}\t{patience}\n")
    came_to, line = None, ""
    while line != "dead\n":
        line = nursery.stdout.readline()
        assert line, "the nursery has died"
        assert line != "failed\n", "a run has ended in an error"
        if line.startswith("came to"):
            came_to = line.split()[-1]
    return came_to


def kill_runs(nursery, tmp_path, kind, num_kills):
    draw = random.Random(f"{kind}, {num_kills}")
    started = time.perf_counter()
    expected = start(nursery, kind, tmp_path / "whole", 0)
    wall = time.perf_counter() - started
    assert expected is not None
    kills, folder, seed, killed = 0, tmp_path / "0", 0, 0
    while kills < num_kills or killed:
        patience = None if kills >= num_kills else draw.uniform(0.0, 0.6 * wall)
        came_to = start(nursery, kind, folder, seed, patience)
        if came_to is None:
            assert patience is not None, "a run that nobody killed did not come to its end"
            kills, killed = kills + 1, killed + 1
            # What is not saved yet begins anew, from the same seed; what is, from any.
            seed = kills if list(folder.glob("*/manifest.json")) else 0
        else:
            assert came_to == expected
            folder, seed, killed = tmp_path / str(kills + 1), 0, 0
            if patience is None:
                return


@pytest.mark.parametrize("kind", KINDS)
def test_kill_a_run(nursery, tmp_path, kind):
    kill_runs(nursery, tmp_path, kind, 2)


@pytest.mark.stage("nightly")
@pytest.mark.parametrize("kind", KINDS)
def test_kill_many_runs(nursery, tmp_path, kind):
    kill_runs(nursery, tmp_path, kind, 100)


def test_a_running_job_is_read(nursery, tmp_path):
    """Whoever reads meanwhile finds something whole, without a warning."""
    from pyro_ssl.infer.run_files import RunFiles

    nursery.stdin.write(f"em\t{tmp_path}\t0\t\n")
    seen = []
    while len(seen) < 9:
        files = RunFiles(tmp_path, "StochasticEM")
        if files.there:
            seen.append(files.load()[1]["own"]["_num_steps"])
    assert seen == sorted(seen)
    while nursery.stdout.readline() != "dead\n":
        pass
