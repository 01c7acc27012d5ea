"""The README is true: its code runs, and its layouts, names and files are those of the package."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.optim import Adam

import pyro_ssl
from pyro_ssl import (
    GaussianLSTMTransition,
    GaussianSSL,
    LanguageModel,
    LSTMTransition,
    MarkovEM,
    MeanFieldGuide,
    ParticleFilter,
    ParticleGibbs,
    StochasticEM,
    TopicalSSL,
    exact,
    ssl_transition,
)
from tests.markdown import links, read_less, run_blocks

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()

T, B, K, D, V, I = 5, 3, 2, 2, 4, 2  # noqa: E741
LENGTHS = torch.tensor([T, 2, 4])


@pytest.mark.stage("system")
def test_code_blocks_run(monkeypatch, capsys):
    monkeypatch.setenv("CI", "true")  # no progress bars
    read_less(monkeypatch)
    namespace = run_blocks(ROOT / "README.md")
    perplexity = float(re.search(r"held-out perplexity ([\d.]+)", capsys.readouterr().out)[1])
    assert 100 < perplexity < 300  # a unigram's is 320
    assert len(namespace["ssl"].topics()) == 20


@pytest.mark.stage("system")
def test_the_command_line_runs_as_printed(tmp_path):
    (block,) = re.findall(r"```bash\n(.*?)```", section("From the command line"), re.S)
    block = block.replace("> book.txt", "> book.txt; truncate -s 80000 book.txt", 1)  # sooner
    commands = {"python": "", "pyro-ssl": "-m pyro_ssl"}
    for name, module in commands.items():
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        script.chmod(0o755)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    how = {"cwd": tmp_path, "env": env, "capture_output": True, "text": True}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], timeout=1500, **how)
    assert done.returncode == 0, done.stderr
    perplexity = float(re.search(r"held-out perplexity ([\d.]+)", done.stdout)[1])
    assert 100 < perplexity < 300
    assert len(re.findall(r"^ +\d+ +\d+\.\d%  \S+(?: \S+){7}$", done.stdout, re.M)) == 10
    assert done.stdout.count("  topic  ") == 2
    scores = (tmp_path / "scores.jsonl").read_text().splitlines()
    assert all(json.loads(line)["perplexity"] > 1.0 for line in scores)


def section(title):
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_name_on_top_is_listed():
    listed = README.split("## What is inside")[1].split("Rooms, as attributes")[0]
    named = set(re.findall(r"`(\w+)`", listed))
    assert set(pyro_ssl.__all__) <= named


def test_files_exist():
    for link in links(README):
        assert "://" in link or (ROOT / link.partition("#")[0]).exists(), link
    for module in re.findall(r"python -m ([\w.]+)", README):
        path = ROOT.joinpath(*module.split("."))
        assert path.is_dir() or path.with_suffix(".py").exists(), module


def test_rooms_are_those_of_the_package():
    laid_out = CONTRIBUTING.split("## How the package is laid out")[1].split("\n## ")[0]
    rooms = re.findall(r"^\| `([\w./]+)` \|", laid_out, re.M)
    package = {p.name + "/" * p.is_dir() for p in (ROOT / "pyro_ssl").iterdir()}
    package -= {"__init__.py", "__pycache__/", "py.typed", "mini.py"}
    assert set(rooms) == package


def model_of(transition):
    """A model of a transition over states or over vectors."""

    def emission(z):
        if transition.event_shape:
            return dist.Normal(z, 1.0).to_event(1)
        return dist.Categorical(torch.full((K, V), 1 / V)[z])

    def model(x, lengths=None, inputs=None):
        pyro.module("transition", transition)
        with pyro.plate("sequences", x.shape[1]):
            for t, z in ssl_transition("z", transition, len(x), lengths=lengths, inputs=inputs):
                pyro.sample("x", emission(z), obs=x[t])

    return model


def test_layouts_of_paths_and_samples():
    words, x = torch.randint(V, (T, B)), torch.randn(T, B, D)
    for transition, data in ((LSTMTransition(K, 3), words), (GaussianLSTMTransition(D, 3), x)):
        pyro.clear_param_store()
        model, event = model_of(transition), transition.event_shape
        sampler = ParticleGibbs(model, 3)
        path = sampler.sweep(None, data)
        assert path.shape == (B, T, *event)
        assert transition.log_prob(path).shape == (B, T)
        pyro.poutine.trace(pyro.condition(model, {"z": path})).get_trace(data).compute_log_prob()
        sampler.run(data, num_samples=4, num_chains=2, disable_progbar=True)
        assert sampler.get_samples()["z"].shape == (8, B, T, *event)
        assert sampler.get_samples(group_by_chain=True)["z"].shape == (2, 4, B, T, *event)
        em = StochasticEM(model, Adam({"lr": 0.01}), 3)
        em.step(data)
        assert em.paths.shape == (B, T, *event)
        forecast = ParticleFilter(model, 3).forecast(data, start=2)
        assert forecast.log_prob.shape == (T - 2, B)
        assert forecast.paths.shape == (3, B, T - 2, *event)


def test_layouts_of_results_by_step():
    words = torch.randint(V, (T, B))
    driven, model = model_of(LSTMTransition(K, 3, input_size=I)), model_of(LSTMTransition(K, 3))
    for inputs in (torch.randn(T, B, I), torch.randn(T, I)):
        log_p = ParticleFilter(driven, 3).log_likelihood(words, LENGTHS, inputs)
        assert log_p.shape == (T, B)
    hmm = MarkovEM(model)
    hmm.step(words, LENGTHS)
    found = [log_p, hmm.log_likelihood(words, LENGTHS)]
    assert hmm.sample_paths(words).shape == (B, T)
    quick = {"num_epochs": 1, "disable_progbar": True}
    topics = TopicalSSL(K, V, hidden_size=3)
    topics.fit(words, LENGTHS, markov_steps=2, markov_starts=1, **quick)
    language = LanguageModel(V, embedding_size=2, hidden_size=3)
    found += [made.log_likelihood(words, LENGTHS) for made in (topics, language)]
    x, mask = torch.randn(T, B, D), torch.rand(T, B) < 0.8
    curves = GaussianSSL(D, hidden_size=3)
    curves.fit(x, LENGTHS, mask=mask, num_paths=1, **quick)
    found.append(curves.log_likelihood(x, LENGTHS, mask=mask))
    past = torch.arange(T)[:, None] >= LENGTHS
    for log_p in found:
        assert log_p.shape == (T, B) and not log_p[past].any()
    assert curves.filter(x, num_particles=3).mean.shape == (T, B, D)
    assert curves.forecast(x, 2, num_particles=3).mean.shape == (2, B, D)
    table, flat = torch.randn(T, B, K), torch.ones(K, K) / K
    for probs in (
        MeanFieldGuide(model).marginals(words),
        topics.transform(words, LENGTHS, num_samples=2, warmup_steps=0),
        exact.markov_marginals(flat[0], flat, table),
    ):
        assert probs.shape == (T, B, K)
    assert exact.sample_markov_paths(flat[0], flat, table).shape == (T, B)
