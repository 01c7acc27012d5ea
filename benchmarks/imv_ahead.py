"""Beijing PM2.5, one to six hours ahead: which variable matters when, by IMV-LSTM and by others.

    python -m benchmarks.imv_ahead --path FOLDER [--seeds 3]
    make bench-forecasters PM25=FOLDER     # the same, and a temporal fusion transformer

Windows of 10 hours, as in ``benchmarks.imv``; what is forecast is the change of PM2.5 since the
newest known value, 1, 2, ..., 6 hours ahead. Windows are a sample, spread evenly over each part in
time: figures compare with one another, not with those of all windows. Methods: persistence; ridge
on the whole window; an IMV-LSTM (tensor cell) whose steps ahead have variables of their own; and
the temporal fusion transformer of ``pytorch-forecasting`` (Lim et al. 2021), which learns the mean
with as many epochs, the same batches and the same early stopping by the mean squared error. Its
importances are the weights of its encoder's variable selection, which are one set for all steps
ahead; the IMV-LSTM's are I of each step.

Each run is stored in ``--results`` when it is done, and skipped the next time; a picture of the
IMV-LSTM's importances is written beside it.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._common import mean_sd
from benchmarks._results import RESULTS, Results
from pyro_ssl.datasets import WindowedSplit, Windows, load_beijing_pm25, make_windows
from pyro_ssl.models import IMVLSTM, SeededImportance
from pyro_ssl.plotting import plot_importance_ahead

NAMES = {
    "persistence": "persistence",
    "ridge": "ridge",
    "imv": "IMV-LSTM, a variable for each step",
    "shared": "IMV-LSTM, one variable",
    "tft": "temporal fusion transformer",
}
SEEDED = ("imv", "shared", "tft")


@dataclass(frozen=True)
class Settings:
    """What the figures depend on."""

    horizon: int = 6
    window: int = 10
    train: int = 3000
    valid: int = 800
    test: int = 2000
    units: int = 16
    hidden: int = 16
    epochs: int = 12
    patience: int = 4
    batch_size: int = 64
    learning_rate: float = 0.005


def load(path: Path, s: Settings) -> WindowedSplit:
    """Read the windows, and keep some of each part."""
    series = load_beijing_pm25(path).with_changes()
    split = make_windows(series, s.window, horizon=s.horizon, difference=True)

    def some(windows: Windows, number: int) -> Windows:
        places = torch.linspace(0, windows.num_windows - 1, min(number, windows.num_windows))
        return windows.select(places.long())

    counts = {"train": s.train, "valid": s.valid, "test": s.test}
    return split._replace(**{name: some(getattr(split, name), n) for name, n in counts.items()})


def errors(split: WindowedSplit, forecast: Tensor) -> list[float]:
    """Root mean squared errors by step ahead, in the series' own unit."""
    miss = (forecast - split.test.y) * split.scaling.target_scale
    return miss.square().mean(0).sqrt().tolist()


def persistence(split: WindowedSplit, s: Settings, seed: int) -> dict[str, Any]:
    """Forecast no change."""
    level = -split.scaling.target_mean / split.scaling.target_scale
    return {"rmse": errors(split, level.expand_as(split.test.y)), "parameters": 0}


def ridge(split: WindowedSplit, s: Settings, seed: int) -> dict[str, Any]:
    """Least squares on the whole window; the strength is chosen in validation."""

    def rows(windows: Windows) -> Tensor:
        flat = windows.x.flatten(1).double()
        return torch.cat([flat, torch.ones_like(flat[:, :1])], -1)

    A, y = rows(split.train), split.train.y.double()
    keep = torch.eye(A.shape[1], dtype=A.dtype)
    keep[-1, -1] = 0.0
    weights = [torch.linalg.solve(A.T @ A + 10.0**p * keep, A.T @ y) for p in range(-2, 6)]
    scores = [(rows(split.valid) @ w - split.valid.y).square().mean() for w in weights]
    best = weights[int(torch.stack(scores).argmin())]
    return {"rmse": errors(split, rows(split.test) @ best), "parameters": best.numel()}


def imv(split: WindowedSplit, s: Settings, seed: int, by_target: bool) -> dict[str, Any]:
    """An IMV-LSTM; I is the mean over the training windows."""
    torch.manual_seed(seed)
    N = len(split.names)
    model = IMVLSTM(N, s.units, num_targets=s.horizon, by_target=by_target)
    history = model.fit(
        split.train,
        valid=split.valid,
        num_epochs=s.epochs,
        patience=s.patience,
        batch_size=s.batch_size,
        learning_rate=s.learning_rate,
        monitor="mse",
        disable_progbar=True,
    )
    low, high = (model.predict(split.test).quantile(q) for q in (0.05, 0.95))
    inside = (split.test.y >= low) & (split.test.y <= high)
    return {
        "rmse": errors(split, model.predict(split.test).mean),
        "coverage": inside.double().mean(0).tolist(),
        "importance": model.importance(split.train).tolist(),
        "temporal": model.temporal_importance(split.train).tolist(),
        "parameters": model.num_parameters,
        "epochs": len(history),
    }


def as_dataset(split: WindowedSplit, s: Settings) -> tuple[Any, dict[str, Tensor], int]:
    """All windows in the transformer's own form: its data set, and its inputs as tensors."""
    import pandas as pd
    from pytorch_forecasting import TimeSeriesDataSet
    from pytorch_forecasting.data import TorchNormalizer
    from sklearn.preprocessing import StandardScaler

    x, y = (torch.cat([getattr(p, name) for p in split[3:6]]) for name in ("x", "y"))
    M, T, N = x.shape
    ahead = torch.zeros(M, s.horizon, N)  # unknown, and never read
    names = [f"x{n}" for n in range(N)]
    frame = pd.DataFrame(torch.cat([x, ahead], 1).flatten(0, 1).numpy(), columns=names)
    frame["y"] = torch.cat([torch.zeros(M, T), y], 1).flatten().numpy()
    frame["window"] = torch.arange(M).repeat_interleave(T + s.horizon).numpy()
    frame["t"] = torch.arange(T + s.horizon).repeat(M).numpy()
    sizes: dict[str, int] = {"max_encoder_length": T, "min_encoder_length": T}
    sizes |= {"max_prediction_length": s.horizon, "min_prediction_length": s.horizon}
    data = TimeSeriesDataSet(
        frame,
        time_idx="t",
        target="y",
        group_ids=["window"],
        time_varying_known_reals=["t"],
        time_varying_unknown_reals=names,
        target_normalizer=TorchNormalizer(method="identity"),
        scalers={name: StandardScaler(with_mean=False, with_std=False) for name in names},
        **sizes,
    )
    inputs, _ = next(iter(data.to_dataloader(train=False, batch_size=M, num_workers=0)))
    order = inputs["groups"].squeeze(-1).argsort()
    return data, {name: value[order] for name, value in inputs.items()}, M


def tft(split: WindowedSplit, s: Settings, seed: int) -> dict[str, Any]:
    """A temporal fusion transformer, learned by mean squared error."""
    from pytorch_forecasting import TemporalFusionTransformer
    from pytorch_forecasting.metrics import RMSE

    torch.manual_seed(seed)
    data, inputs, M = as_dataset(split, s)
    first, second = split.train.num_windows, split.train.num_windows + split.valid.num_windows
    assert torch.equal(inputs["decoder_target"][:first], split.train.y)
    model = TemporalFusionTransformer.from_dataset(
        data, hidden_size=s.hidden, attention_head_size=2, dropout=0.1, loss=RMSE(), output_size=1
    )
    optim = torch.optim.AdamW(model.parameters(), lr=s.learning_rate)

    def run(index: Tensor) -> Any:
        return model({name: value[index] for name, value in inputs.items()})

    @torch.no_grad()
    def forecast(start: int, stop: int) -> tuple[Tensor, Tensor]:
        model.eval()
        out = [run(part) for part in torch.arange(start, stop).split(1000)]
        weights = [o["encoder_variables"].flatten(1, -2).mean(1) for o in out]
        return torch.cat([o["prediction"].squeeze(-1) for o in out]), torch.cat(weights)

    best, kept, waited, epochs = float("inf"), copy.deepcopy(model.state_dict()), 0, 0
    for _ in range(s.epochs):
        model.train()
        for index in torch.randperm(first).split(s.batch_size):
            loss = (run(index)["prediction"].squeeze(-1) - split.train.y[index]).square().mean()
            optim.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optim.step()
        score = float((forecast(first, second)[0] - split.valid.y).square().mean())
        epochs, waited = epochs + 1, waited + 1
        if score < best:
            best, kept, waited = score, copy.deepcopy(model.state_dict()), 0
        if waited >= s.patience:
            break
    model.load_state_dict(kept)
    names = [name for name in model.encoder_variables if name.startswith("x")]
    places = [model.encoder_variables.index(f"x{n}") for n in range(len(names))]
    return {
        "rmse": errors(split, forecast(second, M)[0]),
        "importance": forecast(0, first)[1].mean(0)[places].tolist(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": epochs,
    }


METHODS: dict[str, Callable[..., dict[str, Any]]] = {
    "persistence": persistence,
    "ridge": ridge,
    "imv": lambda *run: imv(*run, by_target=True),
    "shared": lambda *run: imv(*run, by_target=False),
    "tft": tft,
}


def report(results: dict[str, Any], names: tuple[str, ...]) -> None:
    """Print errors by step ahead, and the order of the variables."""
    horizon = results["settings"]["horizon"]
    print(
        "\n| RMSE, µg/m³ | parameters | " + " | ".join(f"{h + 1} h" for h in range(horizon)) + " |"
    )
    print("|---|---|" + "---|" * horizon)
    for method, title in NAMES.items():
        if runs := [run for key, run in results["runs"].items() if key.startswith(method)]:
            cells = [mean_sd([run["rmse"][h] for run in runs], 2) for h in range(horizon)]
            print(f"| {title} | {runs[0]['parameters']:,} | {' | '.join(cells)} |")
    for method in ("imv", "tft"):
        runs = [run for key, run in results["runs"].items() if key.startswith(method)]
        if runs:
            mean = torch.tensor([run["importance"] for run in runs]).mean(0)
            mean = mean if mean.dim() > 1 else mean.unsqueeze(-1)
            for h, column in enumerate(mean.unbind(-1)):
                top = column.argsort(descending=True)[:4].tolist()
                at = f"{h + 1} h" if mean.shape[1] > 1 else "all"
                print(f"{method}, {at}: " + ", ".join(f"{names[n]} {column[n]:.2f}" for n in top))


def main() -> None:
    """Run what is not done yet; print the tables, and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", type=Path, help="the folder of Beijing PM2.5, or its file")
    parser.add_argument("--results", type=Path, default=RESULTS / "imv_ahead.json")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--transformer", action="store_true", help="needs pytorch-forecasting")
    o = parser.parse_args()
    if o.path is None:
        print("nothing to read: write --path with the folder of Beijing PM2.5")
        return
    torch.set_num_threads(1)
    s = Settings()
    store, split = Results(o.results, asdict(s)), load(o.path, s)
    methods = [name for name in METHODS if name != "tft" or o.transformer]
    for seed in range(o.seeds):
        for name in methods:
            if f"{name}-{seed}" in store or seed and name not in SEEDED:
                continue
            started = time.perf_counter()
            found = METHODS[name](split, s, seed)
            store.add(f"{name}-{seed}", found | {"seconds": time.perf_counter() - started})
            print(f"{name} {seed}: {statistics.mean(found['rmse']):.2f}", flush=True)
    report(store.content, split.names)
    runs = [run for key, run in store.runs.items() if key.startswith("imv")]
    importance, temporal = (torch.tensor([r[k] for r in runs]) for k in ("importance", "temporal"))
    ax = plot_importance_ahead(SeededImportance(importance, temporal), split.names)
    ax.figure.savefig(o.results.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
