"""Finding the compiled library, or doing without."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pyro_ssl
from pyro_ssl import kernels
from pyro_ssl.kernels import loading as module


def test_says_why(monkeypatch):
    assert str(kernels.available()) and bool(kernels.available()) == kernels.available().yes
    monkeypatch.setenv("PYRO_SSL_KERNELS", "0")
    assert not kernels.available() and "PYRO_SSL_KERNELS=0" in str(kernels.available())
    assert kernels.library() is None


def test_says_why_not_elsewhere():
    assert "no sweep is compiled for meta" in str(kernels.available("meta"))
    if not torch.cuda.is_available():
        assert not kernels.available("cuda") and "no GPU" in str(kernels.available("cuda"))
    assert kernels.on_gpu(torch.device("cpu")) is None


def test_turned_off_ends(monkeypatch):
    before = kernels.library()
    with pytest.raises(KeyError), kernels.turned_off():
        assert kernels.library() is None
        raise KeyError
    assert kernels.library() is before


def test_without_a_library(monkeypatch, tmp_path):
    """Nothing but the speed depends on it, and the line to write is told."""
    monkeypatch.delenv("PYRO_SSL_KERNELS", raising=False)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "loading.py"))
    module._load.cache_clear()
    try:
        assert not kernels.available() and "pip install" in str(kernels.available())
    finally:
        monkeypatch.undo()
        module._load.cache_clear()


def test_one_that_does_not_load_is_left(monkeypatch, tmp_path):
    monkeypatch.delenv("PYRO_SSL_KERNELS", raising=False)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "loading.py"))
    (tmp_path / "_sweeps_portable.so").write_bytes(b"no library")
    module._load.cache_clear()
    try:
        assert not kernels.available() and "does not load" in str(kernels.available())
    finally:
        monkeypatch.undo()
        module._load.cache_clear()


@pytest.mark.skipif(not kernels.available(), reason=str(kernels.available()))
def test_one_of_other_sources_is_left(monkeypatch, tmp_path):
    """Its arguments may mean something else."""
    here = Path(module.__file__).parent
    shutil.copytree(here / "src", tmp_path / "src")
    shutil.copy(here / "_sweeps_portable.so", tmp_path)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "loading.py"))
    module._load.cache_clear()
    try:
        assert kernels.available()
        (tmp_path / "src" / "arguments.h").write_text("// of another version")
        module._load.cache_clear()
        assert not kernels.available() and "build it anew" in str(kernels.available())
    finally:
        monkeypatch.undo()
        module._load.cache_clear()


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
@pytest.mark.parametrize("name", module.INSTRUCTIONS)
def test_each_has_its_instructions_alone(name):
    """They are built side by side, of the same sources."""
    path = Path(module.__file__).parent / f"_sweeps_{name}.so"
    if not path.exists():
        pytest.skip(f"{name} was not built")
    code = subprocess.run(["objdump", "-d", path], capture_output=True, text=True).stdout
    wide = {"portable": set(), "avx2": {"ymm"}, "avx512": {"ymm", "zmm"}}
    assert {register for register in ("ymm", "zmm") if register in code} == wide[name]


@pytest.mark.stage("system")
@pytest.mark.skipif(not kernels.available(), reason=str(kernels.available()))
@pytest.mark.parametrize("name", module.INSTRUCTIONS)
def test_all_instruction_sets_draw_alike(name):
    """Each that this processor has, in a process of its own."""
    needs = module.INSTRUCTIONS[name]
    if needs is not None and torch.backends.cpu.get_cpu_capability() not in needs:
        pytest.skip(f"this processor has no {name}")
    if not (module.Path(module.__file__).parent / f"_sweeps_{name}.so").exists():
        pytest.skip(f"{name} was not built")
    code = f"""
from contextlib import nullcontext
import torch
from pyro_ssl import LSTMTransition, kernels
from pyro_ssl.kernels import loading as module
from pyro_ssl.smc import QuadraticEmission, TableEmission, conditional_smc
from pyro_ssl.transitions import GaussianLSTMTransition
module.INSTRUCTIONS = {{"{name}": None}}
assert str(kernels.available()).endswith("{name}"), kernels.available()
torch.manual_seed(0)
x, precision = torch.randn(30, 5, 3), torch.eye(3).expand(30, 5, 3, 3)
for transition, emission, reference in (
    (LSTMTransition(6, 19), TableEmission(torch.randn(30, 5, 6)), torch.randint(6, (30, 5))),
    (
        GaussianLSTMTransition(3, 19, residual=True, reads="increments"),
        QuadraticEmission(x, x[..., 0], torch.zeros_like(x), precision),
        torch.randn(30, 5, 3),
    ),
):
    runs = []
    for off in (False, True):
        torch.manual_seed(1)
        with kernels.turned_off() if off else nullcontext():
            found = conditional_smc(transition, emission, 5, reference, ancestor_sampling=3)
        runs.append(found)
    assert torch.equal(runs[0].ancestors, runs[1].ancestors)
    torch.testing.assert_close(runs[0].z, runs[1].z, rtol=1e-4, atol=1e-4)
"""
    root = str(module.Path(pyro_ssl.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
