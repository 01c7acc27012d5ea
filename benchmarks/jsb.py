"""Polyphonic music: what predicts which keys sound next?

    python -m benchmarks.jsb --path FILE [--methods hmm-50 ...] [--seeds 3] [--device cuda]

The JSB Chorales, 88 keys at each quarter note: nats per step of the 77 test chorales, that is, the
sum of -log p(x_{1:T}) over the sum of T, lower is better. Every method learns from the 229 training
chorales until its patience on the 76 for validation is over, and keeps the best epoch; settings
that are searched are chosen by these too, for each seed.

* Exact HMM, K = 50 and 200: exact EM, and the forward algorithm. Three priors are searched.
* Discrete SSL, K = 50 and 200: an LSTM over the HMM's states, that starts from its fit; by particle
  Gibbs, or by unconditional SMC.
* Gaussian SSL: a Gaussian LSTM in R^16, and Bernoulli keys whose log-odds are linear in z_t, or a
  small network of it; as above.
* LSTM over the keys, which are independent given the past; two rates of dropout are searched.
* Deep Markov Model (Krishnan et al. 2017), written out here in Pyro, by SVI; its importance-sampled
  score is above its true one where the samples are too few, and its bound always.

Scores by particles have three times as many until that changes them by less than .01; where they
end before, the table says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pyro_ssl.bench import machine
from pyro_ssl.datasets import JSBChorales, jsb_chorales

from . import _jsb_networks, _jsb_states, _jsb_vectors
from ._common import mean_sd
from ._jsb_common import LEAST_CHANGE
from ._jsb_networks import deep_markov, lstm
from ._jsb_states import hmm, ssl
from ._jsb_vectors import gaussian
from ._results import Results, parser_of, shown

__all__ = ["METHODS", "report"]

STATES = {"hidden_size": 128, "dropout": 0.5, "learning_rate": 0.005, "weight_decay": 0.01}
VECTORS = {**STATES, "dim": 16, "key_units": 0}
KEYS = {"hidden_size": 200, "learning_rate": 0.003, "weight_decay": 0.01}
DEEP = {"dim": 64, "hidden_size": 128, "guide_size": 256}
DEEP |= {"learning_rate": 0.001, "weight_decay": 0.0}


class Method(NamedTuple):
    """A row of the table: of its choices the one of the lowest validation score is reported."""

    title: str
    run: Callable[..., dict[str, Any]]
    choices: tuple[dict[str, Any], ...] = ({},)


def _ssl(num_states: int, conditional: bool) -> Method:
    how = "particle Gibbs" if conditional else "SMC"
    run = partial(ssl, num_states=num_states, conditional=conditional)
    return Method(f"SSL, K = {num_states}, {how}", run, (STATES,))


def _gaussian(conditional: bool, key_units: int) -> Method:
    how = "particle Gibbs" if conditional else "SMC"
    how += ", keys by a network" if key_units else ""
    run = partial(gaussian, conditional=conditional)
    return Method(f"Gaussian SSL, D = 16, {how}", run, ({**VECTORS, "key_units": key_units},))


METHODS = {
    "hmm-50": Method("exact HMM, K = 50", partial(hmm, num_states=50)),
    "hmm-200": Method("exact HMM, K = 200", partial(hmm, num_states=200)),
    "ssl-50": _ssl(50, True),
    "ssl-50-smc": _ssl(50, False),
    "ssl-200": _ssl(200, True),
    "ssl-200-smc": _ssl(200, False),
    "gaussian": _gaussian(True, 0),
    "gaussian-smc": _gaussian(False, 0),
    "gaussian-network": _gaussian(True, 64),
    "lstm": Method("LSTM", lstm, tuple({**KEYS, "dropout": p} for p in (0.3, 0.6))),
    "dmm": Method("Deep Markov Model, D = 64, importance sampling", deep_markov, (DEEP,)),
}
SETTINGS = {
    "choices": {name: method.choices for name, method in METHODS.items()},
    "states": _jsb_states.SETTINGS,
    "vectors": _jsb_vectors.SETTINGS,
    "networks": _jsb_networks.SETTINGS,
}


def run(method: Method, data: Any, seed: int) -> dict[str, Any]:
    """Fit with each choice of settings; return the best, by the validation chorales."""
    started = time.perf_counter()
    fits = [{**method.run(data, seed, **choice), "choice": choice} for choice in method.choices]
    best = min(fits, key=lambda fit: fit["valid"])
    where = machine(data.train.x.device)
    return {**best, "seconds": round(time.perf_counter() - started), "machine": where}


def report(results: Results) -> None:
    """Print the table."""
    print("| | nats per step | bound | validation | parameters | kept epoch | seconds | seeds |")
    print("|---" * 8 + "|")
    remarks = []
    for name, method in METHODS.items():
        runs = [found for key, found in results.runs.items() if key.split("/")[0] == name]
        if not runs:
            continue
        test, valid = (mean_sd([r[part] for r in runs], 3) for part in ("test", "valid"))
        bound = mean_sd([r["bound"] for r in runs], 3) if "bound" in runs[0] else ""
        kept, seconds = (mean_sd([r[c] for r in runs], 0) for c in ("kept_epoch", "seconds"))
        cells = [test, bound, valid, f"{runs[0]['parameters']:,}", kept, seconds, str(len(runs))]
        print(f"| {method.title} | {' | '.join(cells)} |")
        gpus = {r["machine"].split(",")[0] for r in runs if "GPU" in r.get("machine", "")}
        remarks += [f"{method.title}: seconds on an {gpu}." for gpu in sorted(gpus)]
        if any(r["ended"] != "patience" for r in runs):
            remarks.append(f"{method.title}: the last epoch came before patience was over.")
        if any(abs(r.get("change", 0.0)) >= LEAST_CHANGE for r in runs):
            least = max(abs(r["change"]) for r in runs)
            remarks.append(f"{method.title}: the last particles still changed it by {least:.3f}.")
    for remark in remarks:
        print(f"\n{remark}")


def main() -> None:
    """Run what is not done yet; print the table."""
    parser = parser_of("jsb", __doc__, seeds=3)
    parser.add_argument("--path", type=Path, help="file or folder of the data; without it, no fit")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--device", default="cpu", help="of the Gaussian SSLs, and of no other")
    o = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(o.results, SETTINGS)
    jobs = [(seed, name) for seed in range(o.seeds) for name in o.methods]
    if o.path is not None:
        data = JSBChorales(*(part.to(o.device) for part in jsb_chorales(o.path)))
        for seed, name in shown(jobs):
            if f"{name}/{seed}" not in results:
                results.add(f"{name}/{seed}", run(METHODS[name], data, seed))
    report(results)


if __name__ == "__main__":
    main()
