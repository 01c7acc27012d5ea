"""What each rank of a test does: ``python -m tests.distributed.scenarios NAME FOLDER``.

A scenario takes the ranks, or ``None`` for one process as it always is, and returns what is to be
compared.
"""

import sys
from contextlib import nullcontext
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro.optim import Adam

from pyro_ssl import LSTMTransition, MarkovEM, ParticleFilter, StochasticEM, ssl_transition
from pyro_ssl.distributed import ranks

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


def em(here, *, twist=None, dropout=0.0, num_steps=20, size=8, **how):
    transition, (words, lengths) = LSTMTransition(K, 8, dropout=dropout), data()
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


def sent(here):
    """Bytes of a step, for two numbers of sequences."""
    each = []
    for size in (B, 2 * B):
        pyro.clear_param_store()
        transition = LSTMTransition(K, 8)
        words, lengths = (torch.cat([part] * (size // B), -1) for part in data())
        fit = StochasticEM(make_model(transition, size), Adam({"lr": 1e-2}), 5, twist=None)
        for index in [torch.arange(size), torch.arange(size)]:
            before = here.bytes_sent
            fit.step(words, lengths, here.part(index))
            each.append(here.bytes_sent - before)
    return {"each": each, "parameters": sum(p.numel() for p in transition.parameters())}


def all_of_them(here):
    names = "em em_draws em_unconditional em_twisted em_dropout whole markov warm sent".split()
    made = {}
    for name in names:
        pyro.clear_param_store()
        torch.manual_seed(1)
        made[name] = globals()[name](here)
    return made


def main(name, folder):
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    pyro.enable_validation(True)
    with ranks(timeout=60.0) as here:
        made = globals()[name](here)
        torch.save(made, Path(folder) / f"{here.rank}.pt")


def alone(name):
    """The same in this process, which joins no ranks."""
    pyro.clear_param_store()
    torch.manual_seed(1)
    with nullcontext():
        return globals()[name](None)


if __name__ == "__main__":
    main(*sys.argv[1:])
