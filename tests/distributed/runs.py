"""Runs over ranks that are killed and go on: one process imports once and forks the ranks.

``python -m tests.distributed.runs`` reads orders line by line: how many ranks, which kind of run
(``em@5``: that kills itself after step 5), its folder, where results go, a seed, and who is hit, by
which signal, after how many seconds. It answers with a line for each rank: its exit status, and how
long it lived on after that.
"""

import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import pyro
import torch
import torch._dynamo  # noqa: F401  two seconds, which the first optimiser of each rank would take
from pyro.optim import Adam

from pyro_ssl import LSTMTransition, ParticleGibbs, StochasticEM, TopicalSSL
from pyro_ssl.distributed import ranks
from pyro_ssl.infer.plain import OfRank
from pyro_ssl.infer.run_files import RunFiles
from tests.distributed.scenarios import B, K, V, data, found, make_model

STEPS, DRAWS, EPOCHS = 13, 12, 6

#: steps, draws or epochs after which all ranks kill themselves, at once
stop = 0


def stop_at(number):
    if number == stop:
        os.kill(os.getpid(), signal.SIGKILL)


def em(here, folder, **how):
    transition, (words, lengths) = LSTMTransition(K, 8, dropout=how.pop("dropout", 0.0)), data()
    fit = StochasticEM(make_model(transition), Adam({"lr": 1e-2}), 5, **{"twist": None, **how})
    if any(here.every("saves", bool(list(folder.glob("*/manifest.json"))))):
        fit.load(folder, words, lengths, here.part(torch.arange(8)))
    for i in range(fit._num_steps, STEPS):
        fit.step(words, lengths, here.part((torch.arange(8) + 4 * i) % B))
        fit.save(folder)
        stop_at(fit._num_steps)
    return found(fit, transition, drawn=torch.rand(3))


def em_draws(here, folder):
    return em(here, folder, draw_dirichlet=True, averaging=0.5, num_sweeps=2)


def em_twisted(here, folder):
    return em(here, folder, twist="markov")


def em_dropout(here, folder):
    """What comes of it depends on the number of ranks."""
    return em(here, folder, dropout=0.5)


def gibbs(here, folder, twist=None, num_chains=1, **how):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        transition = LSTMTransition(K, 8)
    words, lengths = data()
    pg = ParticleGibbs(make_model(transition), 5, twist=twist)
    index = here.part(torch.arange(B))
    how |= {"num_samples": DRAWS, "warmup_steps": 4, "num_chains": num_chains}
    how |= {"checkpoint": folder, "every": 1, "resume": True, "disable_progbar": True}
    pg.run(words, lengths, index, hook_fn=lambda params, i: stop_at(i + 1), **how)
    draws, made = pg.get_samples(), {"index": index, "drawn": torch.rand(3)}
    if here.rank == 0:  # who reads what is there does so alone
        read = ParticleGibbs.load_draws(folder)
        if "z" in draws:
            assert torch.equal(read.get_samples()["z"][:, index], draws["z"])
        else:
            assert torch.equal(read.occupancy()[:, index], pg.occupancy())
        assert torch.equal(read.get_samples()["phi"], draws["phi"])
    if "z" in draws:
        made["paths"] = draws["z"].movedim(1, 0)
    else:
        made["vectors"] = pg.occupancy().movedim(1, 0)
    told = pg.diagnostics()
    names = ("log_joint", "switches", "occupancy_entropy")
    made["told"] = torch.tensor([told[name]["mean"] for name in names])
    return made | {"phi": draws["phi"], "change_rate": told["change_rate"]}


def gibbs_twisted(here, folder):
    return gibbs(here, folder, twist="markov", num_chains=2)


def gibbs_counted(here, folder):
    return gibbs(here, folder, keep="occupancy", thinning=2)


def fit(here, folder, **how):
    words, lengths = data()
    ssl = TopicalSSL(K, V, hidden_size=8, dropout=0.0)
    how = {"markov_steps": 0, "twist": None, "disable_progbar": True, **how}
    how |= {"valid": (words, lengths), "num_epochs": EPOCHS, "checkpoint": folder, "resume": True}
    history = ssl.fit(words, lengths, callback=lambda record: stop_at(record.epoch), **how)
    if here.rank == 0:
        assert torch.equal(TopicalSSL.load(folder).phi, ssl.phi)
    return {
        "unseeded": torch.tensor([r.score for r in history]),  # ranks twist scores each for itself
        "losses": torch.tensor([[r.loss, r.change_rate] for r in history]),
        "phi": ssl.phi,
        "lstm": torch.cat([p.detach().flatten() for p in ssl.parameters()]),
        "drawn": torch.rand(3),
    }


def fit_started(here, folder):
    """What comes of it depends on the number of ranks: the start's paths, and the minibatches."""
    how = {"markov_steps": 5, "markov_starts": 1, "transition_steps": 3, "batch_size": 8}
    return fit(here, folder, twist="markov", **how)


def saves_on(here, folder):
    """Save a number, again and again, until somebody has seen enough."""
    files, n = RunFiles(folder, "a count"), 0
    while not here.first("enough", (folder.parent / "enough").exists()):
        n += 1
        each = torch.full((500,), n)
        files.save({"settings": {}}, {"n": n, "all": each, "own": OfRank(each + here.rank)})
    return {"n": n}


def one_rank(kind, folder, results, seed, timeout):
    global stop
    kind, _, number = kind.partition("@")
    stop = int(number or 0)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    pyro.enable_validation(True)
    pyro.set_rng_seed(seed)
    with ranks(timeout=timeout) as here:
        made = globals()[kind](here, Path(folder))
        torch.save(made, Path(results) / f"{here.rank}.pt")


def fork(size, rank, port, arguments, said):
    if pid := os.fork():
        return pid
    status = 1
    try:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.environ |= {"WORLD_SIZE": str(size), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        one_rank(*arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main():
    os.write(1, b"ready\n")
    for line in sys.stdin:
        size, kind, folder, results, seed, who, what, patience, timeout = line.split("\t")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        arguments = kind, folder, results, int(seed), float(timeout)
        pids = [
            fork(int(size), rank, port, arguments, f"{results}/{rank}.txt")
            for rank in range(int(size))
        ]
        hit = [int(rank) for rank in who.split(",") if rank]
        if hit:
            time.sleep(float(patience))
            for rank in hit:  # who has come to the end is there until it is waited for
                os.kill(pids[rank], int(what))
        began, left = time.monotonic(), dict(enumerate(pids))
        while left:
            for rank, pid in [*left.items()]:
                done, status = os.waitpid(pid, os.WNOHANG)
                lives_on = int(what) == signal.SIGSTOP and len(left) == len(hit) and rank in hit
                if lives_on:  # all others have ended
                    os.kill(pid, signal.SIGKILL)
                if done:
                    del left[rank]
                    after = time.monotonic() - began
                    os.write(1, f"{rank}\t{status}\t{after:.3f}\n".encode())
            time.sleep(0.002)
        os.write(1, b"all\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
