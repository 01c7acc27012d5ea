"""The planted data's settings, and each method's inference under a given model."""

import statistics
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI
from pyro.optim import Adam
from torch import Tensor

from benchmarks.compare.particle_elbo import no_guide
from pyro_ssl import MeanFieldELBO, MeanFieldGuide, ParticleFilter, ParticleGibbs, ssl_transition
from pyro_ssl.datasets import PlantedMemory, planted_memory
from pyro_ssl.exact import sample_markov_paths
from pyro_ssl.infer import ParticleELBO
from pyro_ssl.transitions import DiscreteTransition

#: title, inference of TopicalSSL.fit (but for the particle ELBO), particles
METHODS = {
    "pg": ("particle Gibbs, P=10", "particle_gibbs", 10),
    "pg_often": ("particle Gibbs, 160 sweeps", "particle_gibbs", 10),
    "smc": ("SMC, P=10", "smc", 10),
    "fivo": ("particle ELBO (FIVO), P=10", "particle_elbo", 10),
    "lla": ("LLA (SMC, P=1)", "smc", 1),
    "mf": ("mean-field", "mean_field", 4),
}
#: what :func:`infer` compares; its random numbers are drawn in this order
INFERRED = ("pg", "smc", "lla", "mf")


@dataclass(frozen=True)
class Settings:
    """What the figures depend on; runs of other settings never share a results file."""

    num_sequences: int = 300
    num_steps: int = 40
    num_identities: int = 3
    num_fillers: int = 1
    cue_probability: float = 0.3
    repeat: float = 0.3
    noise: float = 0.1
    hidden: int = 16
    dropout: float = 0.0
    epochs: int = 40
    gradient_steps: int = 4
    learning_rate: float = 0.01
    hmm_steps: int = 60

    def data(self, seed: int, num_sequences: int | None = None) -> PlantedMemory:
        """Draw a set of sequences."""
        return planted_memory(
            num_sequences or self.num_sequences,
            self.num_steps,
            num_identities=self.num_identities,
            num_fillers=self.num_fillers,
            cue_probability=self.cue_probability,
            repeat=self.repeat,
            noise=self.noise,
            seed=seed,
        )


def given_model(transition: DiscreteTransition, phi: Tensor) -> Any:
    """Return a Pyro model of known parameters."""

    def model(words: Tensor) -> None:
        with pyro.plate("documents", words.shape[1]):
            for t, z in ssl_transition("z", transition, len(words)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    return model


def perplexity(log_likelihood: Tensor) -> float:
    """exp(-mean log p(x_t | x_{1:t-1}))."""
    return float((-log_likelihood.mean()).exp())


def one_identity(path: Tensor, num_identities: int) -> float:
    """Share of the sequences ``(T, B)`` with two cues or more whose cues are all the same."""
    cue = path < num_identities
    low = path.masked_fill(~cue, num_identities).amin(0)
    high = path.masked_fill(~cue, -1).amax(0)
    return float((low == high)[cue.sum(0) > 1].double().mean())


def draws_of(model: Any, words: Tensor, name: str, q: Tensor | None, n: int) -> Tensor:
    """Return paths ``(n, T, B)`` drawn by a method in a given model."""
    if q is not None:
        return dist.Categorical(q).sample((n,)).transpose(1, 2)
    # The particle ELBO is that of a filter without a twist.
    sampler = ParticleGibbs(model, METHODS[name][2], twist=None if name == "fivo" else "markov")
    if METHODS[name][1] == "particle_gibbs":
        sampler.run(words, num_samples=n, warmup_steps=10, disable_progbar=True)
        return sampler.get_samples()["z"].transpose(1, 2)
    return torch.stack([sampler.sweep(None, words).T for _ in range(n)])


def mean_field_elbo(model: Any, words: Tensor, logits: Tensor) -> float:
    """ELBO of given factors, per sequence, by 100 draws."""
    with pyro.get_param_store().scope():
        pyro.param("mean_field.z.logits", logits)
        loss = MeanFieldELBO(100).loss(model, MeanFieldGuide(model), words)
    return -loss / words.shape[1]


def particle_elbo(model: Any, words: Tensor, num_particles: int) -> float:
    """The particle filter's bound, per sequence, by 20 filters."""
    losses = [ParticleELBO(num_particles).loss(model, no_guide, words) for _ in range(20)]
    return -statistics.fmean(losses) / words.shape[1]


def fit_mean_field(model: Any, words: Tensor, num_steps: int = 200) -> Tensor:
    """Optimise the factors in a given model; return their logits, ``(B, T, K)``."""
    with pyro.get_param_store().scope():
        guide = MeanFieldGuide(model)
        svi = SVI(model, guide, Adam({"lr": 0.1}), loss=MeanFieldELBO(10))
        for _ in range(num_steps):
            svi.step(words)
        return pyro.param("mean_field.z.logits").detach().clone()


def infer(seed: int, s: Settings) -> dict[str, Any]:
    """Let each method infer paths under the true model, beside the exact answer."""
    data = s.data(seed, 100)
    pyro.set_rng_seed(seed)
    words = data.words
    model = given_model(data.transition, data.phi)
    exact = data.transition.posterior(data.log_emission())
    evidence = exact.log_likelihood.sum(0)  # (B,)
    cue = data.z < s.num_identities
    logits = fit_mean_field(model, words)
    q = logits.softmax(-1)
    out: dict[str, Any] = {
        "log_evidence": float(evidence.mean()),
        "true_one_identity": one_identity(data.z, s.num_identities),
        "mf": {"gap": float(evidence.mean()) - mean_field_elbo(model, words, logits)},
    }
    paths, marginals = {}, {"mf": q.transpose(0, 1)}
    for name in INFERRED:
        given = q if name == "mf" else None
        paths[name] = draws_of(model, words, name, given, 100)
        if name != "mf":
            marginals[name] = shares_of(paths[name], exact.marginals)
        if name in ("smc", "lla"):
            estimate = ParticleFilter(model, METHODS[name][2]).log_evidence(words)
            out[name] = {"gap": float((evidence - estimate).mean())}
        found = compared(marginals[name], paths[name][-1], exact.marginals, data)
        out.setdefault(name, {}).update(found)
    independent = torch.distributions.Multinomial(100, exact.marginals).sample() / 100
    miss = (independent - exact.marginals).abs().sum(-1) / 2
    out |= {"floor": float(miss.mean()), "cue_floor": float(miss[cue].mean())}
    out["exact_one_identity"] = one_identity(exact_draw(data), s.num_identities)
    if seed == 0:
        # The picture shows two sequences: those with the largest errors of LLA and of the factors.
        wrong = ((paths["lla"][0] != data.z) & cue).sum(0)
        spread = (marginals["mf"] - exact.marginals).abs().sum((0, 2))
        shown = dict.fromkeys([int(wrong.argmax()), int(spread.argmax())])
        out["examples"] = [example(b, data, exact.marginals, marginals, paths) for b in shown]
    return out


def infer_by_bound(seed: int, s: Settings) -> dict[str, float]:
    """Let the filter of the particle ELBO infer paths under the true model.

    Its random numbers are its own, so that those of :func:`infer` are as they were without it.
    """
    data, (_, _, P) = s.data(seed, 100), METHODS["fivo"]
    pyro.set_rng_seed(seed)
    model = given_model(data.transition, data.phi)
    exact = data.transition.posterior(data.log_emission())
    evidence = float(exact.log_likelihood.sum(0).mean())
    paths = draws_of(model, data.words, "fivo", None, 100)
    found = compared(shares_of(paths, exact.marginals), paths[-1], exact.marginals, data)
    return {"gap": evidence - particle_elbo(model, data.words, P), **found}


def shares_of(paths: Tensor, like: Tensor) -> Tensor:
    """Share of the paths ``(n, T, B)`` in each state, ``(T, B, K)``."""
    return torch.stack([(paths == k).to(like).mean(0) for k in range(like.shape[-1])], -1)


def compared(
    marginals: Tensor, draw: Tensor, exact: Tensor, data: PlantedMemory
) -> dict[str, float]:
    """Hold marginals, and one path, against the exact marginals and the truth."""
    M = data.transition.num_identities
    cue = data.z < M
    miss = (marginals - exact).abs().sum(-1) / 2  # total variation, (T, B)
    return {
        "tv": float(miss.mean()),
        "cue_tv": float(miss[cue].mean()),
        "one_identity": one_identity(draw, M),
        "cue_accuracy": float((marginals.argmax(-1) == data.z)[cue].double().mean()),
    }


def exact_draw(data: PlantedMemory) -> Tensor:
    """Draw paths ``(T, B)`` from the exact posterior: the identity, then its Markov chain."""
    table = data.log_emission()
    identity = torch.multinomial(data.transition.posterior(table).identity[-1], 1).squeeze(-1)
    chains = [data.transition.conditional(i) for i in range(data.transition.num_identities)]
    paths = torch.stack([sample_markov_paths(*chain, table) for chain in chains])
    return paths.gather(0, identity.expand(1, *paths.shape[1:])).squeeze(0)


def example(
    b: int, data: PlantedMemory, exact: Tensor, marginals: dict[str, Tensor], paths: dict
) -> dict[str, Any]:
    """What the picture shows of one sequence."""

    def rounded(value: Tensor) -> list:
        return [[round(p, 3) for p in row] for row in value[:, b].tolist()]

    return {
        "words": data.words[:, b].tolist(),
        "z": data.z[:, b].tolist(),
        "exact": rounded(exact),
        "pg": rounded(marginals["pg"]),
        "mf": rounded(marginals["mf"]),
        "lla": paths["lla"][0, :, b].tolist(),
    }
