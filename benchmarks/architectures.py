"""Which transition does which data need? Related architectures on equal terms.

    python -m benchmarks.architectures [--seeds 3]

Five models of K latent states: the hidden Markov model (HMM); the autoregressive HMM, whose x_t
depends on x_{t-1} too; the input-output HMM, whose z_t does (Bengio & Frasconi 1995); and state
space LSTMs, with an LSTM and with a multiplicative one, whose z_t depends on all of z_{1:t-1}.

Two kinds of data have the same emission and the same p(z_t | z_{t-1}). *Long memory*
(:func:`pyro_ssl.datasets.planted_memory`): each sequence has an identity, which its cues show
across fillers. *Markov*: a Markov chain with the same p(z_1) and p(z_t | z_{t-1}), and no further
memory. Both have exact perplexities.

The HMM and the autoregressive HMM are fitted by exact EM, the others by stochastic EM (particle
Gibbs) from that HMM; all keep the iteration of the best validation perplexity. EM starts at the
true emission, half blurred, so that the comparison does not depend on lucky starts. Reported are
held-out perplexity (the state space LSTMs' and the input-output HMM's by 200 particles, the others'
exact); percent above the true model; and the memory horizon
(:func:`pyro_ssl.belief.memory_horizon`), the largest lag at which another z_{t-l} moves p(z_t | ·)
by more than 0.01 in total variation, on paths drawn from the posterior given the training data.
What an autoregressive or input-output HMM remembers through x_{t-1} is not memory of z, so the
horizon leaves it out.

Which settings were tried, one seed each, before this one: with one filler, 60 iterations leave the
HMM on its plateau, and 300 let it hold the identity in states that emit fillers as well (2.683 in
perplexity, as the true model), so that these data need no memory beyond its states. With three
fillers the identity takes more states than there are.

Each fit is stored in ``--results`` when it is done, and skipped the next time.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.optim import Adam
from torch import Tensor

from benchmarks._architectures_report import ARCHITECTURES, DATA, plot, report
from benchmarks._results import Results, parser_of, shown
from pyro_ssl import (
    LSTMTransition,
    MarkovEM,
    MarkovTransition,
    MultiplicativeLSTMTransition,
    ParticleFilter,
    StochasticEM,
    ssl_transition,
)
from pyro_ssl.belief import memory_horizon
from pyro_ssl.datasets import planted_memory
from pyro_ssl.exact import markov_log_likelihood
from pyro_ssl.transitions import DiscreteTransition, PathDistribution


@dataclass(frozen=True)
class Settings:
    """What the figures depend on; runs of other settings never share a results file."""

    num_sequences: int = 300
    num_valid: int = 100
    num_steps: int = 40
    num_identities: int = 3
    num_fillers: int = 3
    noise: float = 0.1
    hidden: int = 16
    hmm_steps: int = 300
    epochs: int = 60
    gradient_steps: int = 4
    learning_rate: float = 0.01
    num_particles: int = 10
    max_lag: int = 20


class Data(NamedTuple):
    """Words and latents ``(T, B)``, the emission ``(K, V)``, the true transition, and the true
    model's log p(x_t | x_{1:t-1}) ``(T, B)``.
    """

    words: Tensor
    z: Tensor
    phi: Tensor
    transition: DiscreteTransition
    log_likelihood: Tensor


def draw(kind: str, s: Settings, seed: int, num_sequences: int) -> Data:
    """Draw sequences of one kind."""
    planted = planted_memory(
        num_sequences,
        s.num_steps,
        num_identities=s.num_identities,
        num_fillers=s.num_fillers,
        noise=s.noise,
        seed=seed,
    )
    if kind == "memory":
        log_p = planted.transition.posterior(planted.log_emission()).log_likelihood
        return Data(planted.words, planted.z, planted.phi, planted.transition, log_p)
    pyro.set_rng_seed(seed)
    states = torch.arange(len(planted.phi))  # the second step depends on the first alone
    probs = planted.transition.path_logits(torch.stack([states, states], -1)).softmax(-1)
    chain = MarkovTransition(len(states), initial=probs[0, 0], matrix=probs[:, 1])
    paths = PathDistribution(chain, s.num_steps, batch_shape=(num_sequences,)).sample()
    words = dist.Categorical(planted.phi[paths.T]).sample()
    table = planted.log_emission(words)
    log_p = markov_log_likelihood(probs[0, 0], probs[:, 1], table)
    return Data(words, paths.T, planted.phi, chain, log_p)


def previous(words: Tensor, num_symbols: int) -> Tensor:
    """x_{t-1} of every step, V at the first."""
    return torch.cat([torch.full_like(words[:1], num_symbols), words[:-1]])


def inputs_of(transition: DiscreteTransition, words: Tensor) -> Tensor | None:
    """x_{t-1} as one-hot vectors ``(T, B, V + 1)``, if the transition reads them."""
    if not transition.input_size:
        return None
    V = transition.input_size - 1
    dtype = next(transition.parameters()).dtype
    return F.one_hot(previous(words, V), V + 1).to(dtype)


def make_model(
    transition: DiscreteTransition, num_symbols: int, autoregressive: bool
) -> Callable[[Tensor], None]:
    """Return the Pyro model of one architecture."""
    K, V = transition.num_states, num_symbols
    shape = (K, V + 1, V) if autoregressive else (K, V)

    def model(words: Tensor) -> None:
        pyro.module("transition", transition)
        phi = pyro.sample("phi", dist.Dirichlet(torch.full(shape, 0.5)).to_event(len(shape) - 1))
        before = previous(words, V)
        with pyro.plate("sequences", words.shape[1]):
            steps = ssl_transition("z", transition, len(words), inputs=inputs_of(transition, words))
            for t, z in steps:
                probs = phi[z, before[t]] if autoregressive else phi[z]
                pyro.sample("x", dist.Categorical(probs), obs=words[t])

    return model


def fit_exactly(
    model: Callable[[Tensor], None], data: Data, valid: Data, s: Settings, autoregressive: bool
) -> MarkovEM:
    """Fit a (possibly autoregressive) HMM by EM, and keep the best iteration."""
    K, V = data.phi.shape
    phi, flat = 0.5 * data.phi + 0.5 / V, data.phi.new_full((K, K), 1 / K)
    phi = phi.unsqueeze(1).repeat(1, V + 1, 1) if autoregressive else phi
    hmm = MarkovEM(model, dirichlet="mean").start_from(flat[0], flat, phi=phi)
    lowest, best = float("inf"), hmm
    for _ in range(s.hmm_steps):
        hmm.step(data.words)
        perplexity = hmm.perplexity(valid.words)
        if perplexity < lowest:
            lowest, best = perplexity, hmm.for_model(model)  # a copy, as it stands
    return best


def fit_by_sampling(
    transition: DiscreteTransition, data: Data, valid: Data, s: Settings, hmm: MarkovEM
) -> tuple[Any, Tensor]:
    """Fit by stochastic EM from the HMM; return the best epoch's model, and paths ``(B, T)``."""
    model = make_model(transition, data.phi.shape[1], False)
    em = StochasticEM(
        model,
        Adam({"lr": s.learning_rate}),
        s.num_particles,
        num_gradient_steps=s.gradient_steps,
        dirichlet="mean",
        averaging=0.9,
        draw_dirichlet=True,
    )
    em.start_from(hmm, data.words, transition_steps=60)
    lowest, kept, paths = float("inf"), {}, em.paths
    for epoch in range(1, s.epochs + 1):
        em.step(data.words)
        if epoch % 2:
            continue
        perplexity = ParticleFilter(em.fitted_model, 20).perplexity(valid.words)
        if perplexity < lowest:
            lowest, paths, phi = perplexity, em.paths.clone(), em.values["phi"].clone()
            kept = {name: value.clone() for name, value in transition.state_dict().items()}
    transition.load_state_dict(kept)
    return pyro.condition(model, data={"phi": phi}), paths


def make_transition(name: str, s: Settings, K: int, V: int, hmm: MarkovEM) -> DiscreteTransition:
    """Return an architecture's transition; the input-output HMM's starts as the HMM's."""
    if name == "lstm":
        return LSTMTransition(K, s.hidden)
    if name == "mlstm":
        return MultiplicativeLSTMTransition(K, s.hidden)
    chain = MarkovTransition(K, input_size=V + 1)
    with torch.no_grad():
        chain.initial_logits.copy_(hmm.initial.log())
        chain.transition_logits.copy_(hmm.matrix.log())
    return chain


def horizon_of(transition: DiscreteTransition, paths: Tensor, words: Tensor, s: Settings) -> dict:
    """Measure memory by lag on paths ``(B, T)``; return what goes into JSON."""
    u = inputs_of(transition, words)
    u = None if u is None else u.transpose(0, 1)
    found = memory_horizon(transition, z=paths, inputs=u, max_lag=s.max_lag)
    return {
        "tv": [round(v, 6) for v in found.tv.tolist()],
        "error": [round(v, 6) for v in found.standard_error.tolist()],
        "horizon": found.horizon,
        "threshold": found.threshold,
    }


def run(name: str, kind: str, seed: int, s: Settings) -> dict[str, Any]:
    """Fit one architecture, or take the true model, and score it on held-out sequences."""
    pairs = ((seed, s.num_sequences), (10_000 + seed, s.num_valid), (20_000 + seed, 300))
    data, valid, test = (draw(kind, s, *pair) for pair in pairs)
    if name == "true":
        perplexity = float((-test.log_likelihood.mean()).exp())
        horizon = horizon_of(data.transition, data.z.T, data.words, s)
        return {"perplexity": perplexity, **horizon}
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    started, (K, V) = time.perf_counter(), data.phi.shape
    autoregressive = ARCHITECTURES[name][1]
    plain = make_model(MarkovTransition(K), V, autoregressive)
    hmm = fit_exactly(plain, data, valid, s, autoregressive)
    transition: DiscreteTransition = hmm.transition
    if name in ("hmm", "arhmm"):
        perplexity, paths = hmm.perplexity(test.words), hmm.sample_paths(data.words)
    else:
        pyro.clear_param_store()  # the name that the HMM's model gives its transition
        transition = make_transition(name, s, K, V, hmm)
        fitted, paths = fit_by_sampling(transition, data, valid, s, hmm)
        perplexity = ParticleFilter(fitted, 200).perplexity(test.words)
    seconds = time.perf_counter() - started
    size = K * V * (V + 1) if autoregressive else K * V
    size += sum(p.numel() for p in (*transition.parameters(), *transition.buffers()))
    horizon = horizon_of(transition, paths, data.words, s)
    return {"perplexity": perplexity, "seconds": seconds, "parameters": size, **horizon}


def main() -> None:
    """Run what is not done yet; print the table, and plot."""
    parser = parser_of("architectures", __doc__, seeds=3)
    o = parser.parse_args()
    torch.set_num_threads(1)
    s = Settings()
    store = Results(o.results, asdict(s))
    jobs = [
        (seed, kind, name)
        for seed in range(o.seeds)
        for kind in DATA
        for name in ("true", *ARCHITECTURES)
    ]
    for seed, kind, name in shown(jobs):
        key = f"{seed} {kind} {name}"
        if key not in store:
            store.add(key, run(name, kind, seed, s))
    report(store)
    plot(store, o.results.with_suffix(".png"))


if __name__ == "__main__":
    main()
