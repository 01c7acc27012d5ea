"""What each rank of a test does, in a process that ``launch.py`` forks.

A scenario takes the ranks, or ``None`` for one process as it always is, and returns what is to be
compared.
"""

import os
import shutil
import signal
import socket
import threading
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
import torch._dynamo  # noqa: F401  two seconds, which the first optimiser of each rank would take
from pyro.optim import Adam

from pyro_ssl import (
    GaussianLSTMTransition,
    LSTMTransition,
    MarkovEM,
    ParticleFilter,
    ParticleGibbs,
    StochasticEM,
    TopicalSSL,
    ssl_transition,
)
from pyro_ssl.distributed import ranks
from pyro_ssl.errors import CheckpointError, RankError
from pyro_ssl.infer.sharded import sum_counts
from tests.faults.digest import digest_of_folder
from tests.faults.disk import damage, full_disk

K, V, T, B = 3, 7, 6, 24


def data():
    generator = torch.Generator().manual_seed(3)
    words = torch.randint(V, (T, B), generator=generator)
    return words, torch.randint(2, T + 1, (B,), generator=generator)


def make_model(transition, size=B):
    def model(words, lengths, index=None):
        pyro.module("transition", transition)
        phi = pyro.sample("phi", dist.Dirichlet(torch.full((K, V), 0.5)).to_event(1))
        with pyro.plate("documents", size, subsample=index):
            x, n = (words, lengths) if index is None else (words[:, index], lengths[index])
            for t, z in ssl_transition("z", transition, len(x), lengths=n):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])

    return model


def part(here, index):
    return index if here is None else here.part(index)


def found(em, transition, here=None, **more):
    known = em._memory._known
    index = known.nonzero().flatten()
    return {
        "index": index,
        "paths": em.paths[known],
        "counts": em.counts["phi"],
        "phi": em.values["phi"],
        "lstm": torch.cat([p.detach().flatten() for p in transition.parameters()]),
        "change_rate": em.change_rate,
        **more,
    }


def em(here, *, twist=None, dropout=0.0, learns=True, num_steps=12, size=8, **how):
    transition, (words, lengths) = LSTMTransition(K, 8, dropout=dropout).train(learns), data()
    fit = StochasticEM(make_model(transition), Adam({"lr": 1e-2}), 5, twist=twist, **how)
    places = [(torch.arange(size) + (4 * i if size < B else 0)) % B for i in range(num_steps)]
    losses = [fit.step(words, lengths, part(here, index)) for index in places]
    return found(fit, transition, losses=torch.tensor(losses))


def em_draws(here):
    return em(here, draw_dirichlet=True, averaging=0.5, num_gradient_steps=2, num_sweeps=2)


def em_unconditional(here):
    return em(here, conditional=False, num_steps=6)


def em_twisted(here):
    return em(here, twist="markov")


def em_dropout(here):
    return em(here, dropout=0.5, num_steps=6)


def em_drawn_transition(here):
    """All ranks draw the same weights; a gradient step under dropout would draw by rank."""
    return em(here, dropout=0.5, learns=False, draw_transition=True, num_steps=6)


def vectors(here, twist=None):
    transition = GaussianLSTMTransition(2, 6)
    x = torch.randn(T, B, 3, generator=torch.Generator().manual_seed(3))

    def model(x, index):
        pyro.module("transition", transition)
        look = pyro.param("look", torch.eye(2, 3))
        with pyro.plate("series", B, subsample=index):
            for t, z in ssl_transition("z", transition, T):
                pyro.sample("x", dist.Normal(z @ look, 0.5).to_event(1), obs=x[:, index][t])

    fit = StochasticEM(model, Adam({"lr": 1e-2}), 5, twist=twist)
    places = [(torch.arange(8) + 4 * i) % B for i in range(6)]
    losses = [fit.step(x, part(here, index)) for index in places]
    known = fit._memory._known
    return {
        "index": known.nonzero().flatten(),
        "vectors": fit.paths[known],
        "lstm": torch.cat([p.detach().flatten() for p in transition.parameters()]),
        "losses": torch.tensor(losses),
    }


def vectors_twisted(here):
    return vectors(here, "markov")


def other_seeds(here):
    """Rank 0's numbers are those of all."""
    transition = LSTMTransition(K, 8)
    words, lengths = data()
    fit = StochasticEM(make_model(transition), Adam({"lr": 1e-2}), 5, draw_dirichlet=True)
    torch.manual_seed(here.rank)
    losses = [fit.step(words, lengths, here.part(torch.arange(B))) for _ in range(3)]
    return found(fit, transition, losses=torch.tensor(losses))


def whole(here):
    """All sequences in every step."""
    return em(here, size=B, num_steps=6)


def markov(here):
    transition, (words, lengths) = LSTMTransition(K, 8), data()
    model = make_model(transition)
    hmm = MarkovEM(model)
    batches = [(index,) for index in part(here, torch.arange(B)).split(5)]
    losses = [hmm.epoch(batches, words, lengths) for _ in range(5)]
    fitted = hmm.fitted_model
    untwisted = ParticleFilter(fitted, 10, twist=None, seed=5)
    return {
        "losses": torch.tensor(losses),
        "matrix": hmm.matrix,
        "phi": hmm.values["phi"],
        "perplexity": hmm.perplexity(words, lengths, start=1, batches=batches),
        "filter": untwisted.perplexity(words, lengths, start=1, batches=batches),
        "unseeded": ParticleFilter(fitted, 10).perplexity(words, lengths, batches=batches),
    }


def warm(here):
    transition, (words, lengths) = LSTMTransition(K, 8), data()
    fit = StochasticEM(make_model(transition), Adam({"lr": 1e-2}), 5, twist=None)
    batches = [(index,) for index in part(here, torch.arange(B)).split(6)]
    how = {"num_steps": 5, "transition_steps": 4, "batches": batches}
    fit.warm_start(words, lengths, **how)
    counts = fit._path_counts["phi"]
    losses = [fit.step(words, lengths, index) for index in [part(here, torch.arange(8))]]
    return found(fit, transition, start=counts, losses=torch.tensor(losses))


def gibbs(here, twist=None, **how):
    transition, (words, lengths) = LSTMTransition(K, 8), data()
    pg = ParticleGibbs(make_model(transition), 5, twist=twist)
    index = part(here, torch.arange(B))
    pg.run(words, lengths, index, num_samples=8, warmup_steps=4, disable_progbar=True, **how)
    draws = pg.get_samples()
    return {"index": index, "paths": draws["z"].movedim(1, 0), "phi": draws["phi"]}


def gibbs_twisted(here):
    return gibbs(here, twist="markov", num_chains=2)


def topical(here, batch_size=8, anchors=None):
    words, lengths = data()
    ssl = TopicalSSL(K, V, hidden_size=8, dropout=0.0, anchors=anchors)
    how = {"markov_steps": 10, "markov_starts": 2, "transition_steps": 5, "twist": None}
    how |= {"batch_size": batch_size, "disable_progbar": True}
    history = ssl.fit(words, lengths, valid=(words, lengths), num_epochs=3, **how)
    return {
        "scores": torch.tensor([[r.score, r.loss, r.change_rate] for r in history]),
        "phi": ssl.phi,
        "lstm": torch.cat([p.detach().flatten() for p in ssl.parameters()]),
        "hmm": ssl.markov.matrix,
    }


def topical_whole(here):
    return topical(here, None, anchors={1: [2]})


def sent(here):
    """Bytes of a step, for two numbers of sequences, in float64 and in float32."""
    found = {}
    for dtype in (torch.float64, torch.float32):
        torch.set_default_dtype(dtype)
        each = found[str(dtype)] = []
        for size in (B, 2 * B):
            pyro.clear_param_store()
            transition = LSTMTransition(K, 8)
            words, lengths = (torch.cat([part] * (size // B), -1) for part in data())
            fit = StochasticEM(make_model(transition, size), Adam({"lr": 1e-2}), 5, twist=None)
            for index in [torch.arange(size), torch.arange(size)]:
                before = here.bytes_sent
                fit.step(words, lengths, here.part(index))
                each.append(here.bytes_sent - before)
    torch.set_default_dtype(torch.float64)
    return found | {"parameters": sum(p.numel() for p in transition.parameters())}


def many_counts(here):
    """Counts that float32 cannot tell apart, and others that it can."""
    found = {}
    for most in (2**23 - 2, 2**24 + 1):
        before, own = here.bytes_sent, torch.tensor([most, 3.0]) + here.rank
        total = sum_counts({"phi": own}, torch.float32)["phi"]
        found[most] = total.tolist(), here.bytes_sent - before
    return found


def recovered(here):
    """An error of the last rank in its third sweep, which all of them undo, and go on."""
    transition, (words, lengths) = LSTMTransition(K, 8), data()
    model, fails = make_model(transition), []

    def failing(*args):
        if fails and here is not None and here.rank == here.size - 1:
            raise ArithmeticError(fails.pop())
        model(*args)

    fit = StochasticEM(failing, Adam({"lr": 1e-2}), 5, twist=None)
    said = []
    for i in range(5):
        index = part(here, (torch.arange(8) + 4 * i) % B)
        if i == 3 and here is not None:
            fails.append("no such word")
            try:
                fit.step(words, lengths, index)
            except (ArithmeticError, RankError) as error:
                said.append(f"{type(error).__name__}: {error}")
            fails.clear()
        fit.step(words, lengths, index)
    return found(fit, transition, said=said)


def refusals(here):
    """What ranks that are not given what they should be are told."""
    transition, (words, lengths) = LSTMTransition(K, 8), data()
    fit = StochasticEM(make_model(transition), Adam({"lr": 1e-2}), 5, twist=None)
    other = LSTMTransition(K, 8)
    with torch.no_grad():
        other.head.bias += here.rank
    steps = {
        "same sequences": lambda: fit.step(words, lengths, torch.arange(4)),
        "more than all": lambda: fit.step(words, lengths),
        "other parameters": lambda: StochasticEM(
            lambda *args: (pyro.clear_param_store(), make_model(other)(*args)),
            Adam({"lr": 1e-2}),
            twist=None,
        ).step(words, lengths, here.part(torch.arange(8))),
        "other calls": lambda: (
            fit.step(words, lengths, here.part(torch.arange(8)))
            if here.rank
            else MarkovEM(make_model(transition)).step(words, lengths, here.part(torch.arange(8)))
        ),
        "none of a rank": lambda: here.part(torch.tensor([1 - here.rank])),
        "not all": lambda: ParticleGibbs(make_model(transition), 3).run(
            words, lengths, here.part(torch.arange(8)), num_samples=1, disable_progbar=True
        ),
        "a free site": lambda: ParticleGibbs(with_free_site, 3).run(
            words, here.part(torch.arange(B)), num_samples=1, disable_progbar=True
        ),
    }
    told = {}
    for name, step in steps.items():
        try:
            step()
        except (ValueError, RankError) as error:
            told[name] = f"{type(error).__name__}: {error}"
    return told


def with_free_site(words, index):
    rate = pyro.sample("rate", dist.LogNormal(0.0, 1.0))
    with pyro.plate("documents", B, subsample=index):
        for t, z in ssl_transition("z", LSTMTransition(2, 3), T):
            pyro.sample("x", dist.Poisson(rate * (1.0 + z)), obs=words[:, index][t].double())


def stops(here, how):
    """Run on, until the last rank stops."""
    transition, (words, lengths) = LSTMTransition(K, 8), data()
    fit = StochasticEM(make_model(transition), Adam({"lr": 1e-2}), 5)
    for i in range(10_000):
        if i == 5 and here.rank == here.size - 1:
            print(f"stops at {time.time()}", flush=True)
            if how == "raises":
                raise ArithmeticError("the disk is full")
            if how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "hangs":
                os.kill(os.getpid(), signal.SIGSTOP)
            if how == "ends":
                return
            cut_all_connections()
        fit.step(words, lengths, here.part(torch.arange(8)))


def cut_all_connections():
    """What a network does that fails."""
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as one:
                one.getpeername()
                one.shutdown(socket.SHUT_RDWR)
        except OSError:  # a file, one that listens, or one that is closed
            pass


def interrupted(here):
    """Ctrl-C on the last rank, once amid each kind of run: all stop, at one place."""
    transition, (words, lengths) = LSTMTransition(K, 8), data()
    model, calls = make_model(transition), []

    def asking(*args):
        calls.append(args)
        if here.rank == here.size - 1 and len(calls) == 25:
            os.kill(os.getpid(), signal.SIGINT)
        model(*args)

    fit, losses, said = StochasticEM(asking, Adam({"lr": 1e-2}), 5, twist=None), [], []
    try:
        for _ in range(100):
            losses.append(fit.step(words, lengths, here.part(torch.arange(8))))
    except KeyboardInterrupt:
        said.append("stopped")
    losses.append(fit.step(words, lengths, here.part(torch.arange(8))))
    calls.clear()
    pg = ParticleGibbs(asking, 5, twist=None)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        index = here.part(torch.arange(B))
        pg.run(words, lengths, index, num_samples=100, disable_progbar=True)
    said += [str(one.message).split(" of ")[0] for one in told]
    calls.clear()
    ssl = TopicalSSL(K, V, hidden_size=4)
    ssl.model = asking
    history = ssl.fit(words, lengths, num_epochs=100, markov_steps=0, disable_progbar=True)
    made = {"num": len(losses), "draws": len(pg.get_samples()["z"]), "epochs": len(history)}
    return {**made, "told": said, "phi": ssl.phi}


def full_disk_on_one(here, folder):
    """A save that one rank cannot make, at each write: the one before stays, on all ranks."""
    transition, (words, lengths) = LSTMTransition(K, 8), data()
    fit = StochasticEM(make_model(transition), Adam({"lr": 1e-2}), 5, twist=None)
    steps = iter(range(1000))

    def step():
        return fit.step(words, lengths, here.part((torch.arange(8) + 4 * next(steps)) % B))

    said, kept = [], []
    for _ in range(2):
        step()
        fit.save(folder)
    for after in range(6):
        step()
        failing = full_disk(after) if here.rank == here.size - 1 - after % 2 else nullcontext()
        before = digest_of_folder(folder)
        here.every("all have looked", None)
        try:
            with failing:
                fit.save(folder)
            said.append("saved")
        except OSError as error:
            said.append(error.strerror)
        here.every("all have saved", None)
        kept.append(digest_of_folder(folder) == before)
    again = StochasticEM(make_model(LSTMTransition(K, 8)), Adam({"lr": 1e-2}), 5, twist=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.load(folder, words, lengths, here.part(torch.arange(8)))
    return {"said": said, "kept": kept, "steps": again._num_steps}


def damaged_saves(here, folder):
    """What ranks go on from where a file of the newest save is damaged, or gone."""
    transition, (words, lengths) = LSTMTransition(K, 8), data()
    model, index = make_model(transition), here.part(torch.arange(8))
    fit = StochasticEM(model, Adam({"lr": 1e-2}), 5, twist=None)
    for _ in range(3):
        fit.step(words, lengths, index)
        fit.save(folder)
    newest = max(folder.glob("*/manifest.json"), key=lambda file: file.stat().st_mtime_ns).parent
    found = []
    for i, name in enumerate(sorted(file.name for file in newest.iterdir())):
        for how in ("flip", "cut", "gone"):
            copy = folder.parent / f"{i} {how}"
            if here.rank == 0:
                shutil.copytree(folder, copy)
                file = copy / newest.name / name
                file.unlink() if how == "gone" else damage(file, how)
            here.every("all is spoilt", None)
            again = StochasticEM(model, Adam({"lr": 1e-2}), 5, twist=None)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                again.load(copy, words, lengths, index)
            found.append((name[:8], how, again._num_steps, [str(one.message) for one in told]))
    return {"found": found}


def other_owners(here, folder):
    """Ranks that are given others' sequences than they had."""
    transition, (words, lengths) = LSTMTransition(K, 8), data()
    fit = StochasticEM(make_model(transition), Adam({"lr": 1e-2}), 5, twist=None)
    own = torch.arange(8).chunk(here.size)
    fit.step(words, lengths, own[here.rank])
    fit.save(folder)
    again = StochasticEM(make_model(transition), Adam({"lr": 1e-2}), 5, twist=None)
    again.load(folder, words, lengths, own[here.rank])
    told = []
    for index in (own[1 - here.rank], here.part(torch.arange(8))):
        before = torch.get_rng_state()
        try:
            again.load(folder, words, lengths, index)
        except (CheckpointError, RankError) as error:
            told.append(f"{type(error).__name__}: {error}")
        assert torch.equal(torch.get_rng_state(), before)
    again.step(words, lengths, own[here.rank])
    return {"told": told}


def several(names, here):
    made = {}
    for name in names.split(","):
        pyro.clear_param_store()
        torch.manual_seed(1)
        made[name] = globals()[name](here)
    return made


def main(name, folder):
    run(name, folder)
    # A thread of a group that is still there is aborted as the program ends, now and then loudly.
    tasks = Path("/proc/self/task")
    if tasks.exists():
        left = [(task / "comm").read_text().strip() for task in tasks.iterdir()]
        assert len(left) == threading.active_count(), left


def run(name, folder):
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    pyro.enable_validation(True)
    # A shell's background jobs ignore it, and so do their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ranks(timeout=4.0 if name == "stops:hangs" else 60.0) as here:
        if name.startswith("saves:"):
            made = globals()[name.removeprefix("saves:")](here, Path(folder) / "run")
            torch.save(made, Path(folder) / f"{here.rank}.pt")
            return
        if name.startswith("stops:"):
            stops(here, name.removeprefix("stops:"))
            return
        made = several(name, here)
        torch.save(made, Path(folder) / f"{here.rank}.pt")


def alone(name):
    """The same in this process, which joins no ranks."""
    pyro.clear_param_store()
    torch.manual_seed(1)
    with nullcontext():
        return globals()[name](None)
