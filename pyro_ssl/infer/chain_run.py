"""A run of chains from its first draw to its last, or from where it was stopped.

Read ``run_state.py`` first. What is set up is set up anew in a process that goes on, from the same
random numbers as at first, so that all that was found out about the model is found again; then all
that changes from draw to draw is put in its place.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor
from tqdm.auto import trange

from ..distributed import current
from ..errors import CheckpointError
from ..reading.context import undrawn
from ..storage import reading
from .about import model_of
from .about_data import data_of
from .chain_shards import ChainShards
from .draw_files import DrawFiles
from .draws import Draws, Keep
from .memory import check_fits
from .particle_gibbs_kernel import Params, ParticleGibbsKernel
from .plain import OfRank
from .run_files import RunFiles, check_same
from .run_state import generators, put_generators, put_state, state_of
from .scan import ScanKernel, ready_kernel

__all__ = ["ChainRun"]

_REMEDY = (
    'keep="occupancy" to count states, thinning=10 to keep every tenth draw, or '
    'draws_folder="runs/draws" to keep them on disk'
)
_THIN = 'keep=lambda draw: {"ends": draw["z"][..., -1]} for what is wanted of a draw'
_OWN = ("_num_sweeps", "_frozen", "_warming_up")


class ChainRun:
    """Chains that are set up, and what was drawn of them.

    :param make: makes the kernel of one block of paths.
    :param start: initial parameters, or ``None``.
    :param files: where it is saved, or ``None``: nowhere.
    :param bool resume: go on from what is there, if anything is.
    :param dict settings: in words, what draws hang on.
    :param keep: this and ``thinning``: see :class:`Draws`.
    :param draws_folder: where draws are kept; ``None``: in memory.
    :param args: of the model, ``model_kwargs`` too.
    :raises CheckpointError: if what is there is damaged, or of another run.
    """

    def __init__(
        self,
        make: Callable[[], ParticleGibbsKernel],
        start: Params | None,
        warmup_steps: int,
        files: RunFiles | None,
        *args: Any,
        resume: bool,
        settings: Mapping[str, Any],
        keep: Keep,
        thinning: int,
        draws_folder: Any,
        model_kwargs: Mapping[str, Any],
    ) -> None:
        self.files, self._begun, self._start = files, generators(), start
        found = None if files is None else files.find(resume)
        over = files is not None and resume  # what was drawn before the first save is drawn again
        self.draw_files = None if draws_folder is None else DrawFiles(draws_folder, over=over)
        if found is not None and files is not None:
            check_same(files.folder, {"settings": found[0]["settings"]}, {"settings": settings})
            self._begin_again(found[1])
        self.kernel = ready_kernel(make, self._start, warmup_steps, *args, **model_kwargs)
        self.params = self.kernel.initial_params
        self.kernels = self.kernel.kernels if isinstance(self.kernel, ScanKernel) else [self.kernel]
        sites = [kernel._sites for kernel in self.kernels]
        paths = {n: size for s in sites for n, size in zip(s.names, s.sizes, strict=True)}
        self.draws = Draws(keep, thinning, warmup_steps, paths, self.draw_files)
        self._saved = 0  # draws at the last save
        if files is None:
            return
        runs = [_first_run(kernel) for kernel in self.kernels]
        self._shards = ChainShards(runs, keep, self.kernels[0].num_chains > 1)
        self._about: dict[str, Any] = {"settings": dict(settings)}
        self._about |= {"model": model_of(runs, values=True), "data": data_of(runs)}
        if found is not None:
            check_same(files.folder, found[0], self._about)
            with reading(files.folder):
                self._put(found[1])

    def go_on(
        self,
        num_updates: int,
        every: int,
        hook_fn: Callable[[Params, int], None] | None,
        disable: bool,
    ) -> None:
        """Draw until there are so many draws, those of the warm-up too; Ctrl-C ends it sooner.

        :param int every: save after so many of them, and at the end.
        :param bool disable: hide the progress bar.
        """
        draws, kernel = self.draws, self.kernel
        start = self._chains_first(self.params)
        if next(iter(start.values())).device.type == "cpu":
            left = draws.needed(start, num_updates)
            check_fits("ParticleGibbs.run", left, _REMEDY if draws.keep == "paths" else _THIN)
        if draws.seen > num_updates and self.files is not None:
            raise CheckpointError(
                f"{self.files.folder}: found {draws.seen - draws.warmup_steps} draws per chain, "
                "expected no more than num_samples; write num_samples="
                f"{draws.seen - draws.warmup_steps} or more."
            )
        with (
            trange(draws.seen, num_updates, desc="particle Gibbs", disable=disable) as bar,
            contextlib.suppress(KeyboardInterrupt),
        ):
            for i in bar:
                current().stop_if_asked("a draw")
                self._update()
                if i == draws.warmup_steps - 1:
                    kernel.end_warmup()
                draws.add(self._chains_first(self.params))
                if hook_fn is not None:
                    hook_fn(self.params, i)
                bar.set_postfix(kernel.logging(), refresh=False)
                if self.files is not None and draws.seen % every == 0:
                    self.save()
        with contextlib.suppress(KeyboardInterrupt):
            self.save()

    def close(self) -> None:
        """Let go of the draws' folder."""
        if self.draw_files is not None:
            self.draw_files.close()

    def save(self) -> None:
        """Write a checkpoint, unless all is saved; what cannot be written is told, and draws go on.

        Nor where Ctrl-C came amid an update: the save before it is whole.
        """
        whole = all(kernel._num_sweeps == self.draws.seen for kernel in self.kernels)
        if self.files is None or not whole or self._saved == self.draws.seen:
            return
        what = f"draw {self.draws.seen}"
        if self.files.save_or_tell(self._about, self._state(), what):
            self._saved = self.draws.seen

    def _update(self) -> None:
        """Draw once, or not at all: Pyro's kernels do not go back by themselves."""
        inner = [inner for kernel in self.kernels for inner in kernel._update.inner]
        blocks = [block for one in inner for block in one.blocks]
        states = [copy.deepcopy(block.state) for block in blocks]
        try:
            self.params = self.kernel.update(self.params)
        except KeyboardInterrupt:
            for block, state in zip(blocks, states, strict=True):
                block.state = state
            raise

    def _chains_first(self, params: Params) -> dict[str, Tensor]:
        several = self.kernels[0].num_chains > 1
        return {name: value if several else value.unsqueeze(0) for name, value in params.items()}

    def _state(self) -> dict[str, Any]:
        return {
            "begun": self._begun,
            "start": OfRank(self._start),
            "params": self._shards.apart(self.params),
            "draws": self._shards.draws_apart(self.draws.state),
            "layout": self._shards.layout
            | {"warmup_steps": self.draws.warmup_steps, "thinning": self.draws.thinning},
            "kernels": [_kernel_state(kernel) for kernel in self.kernels],
            "generators": generators(),
        }

    def _begin_again(self, state: dict[str, Any]) -> None:
        assert self.files is not None
        with reading(self.files.folder):
            if state["start"].are_these:  # else what is given now, of the sequences that are here
                self._start = state["start"].mine
            put_generators(state["begun"])
            self._begun = generators()

    def _put(self, state: dict[str, Any]) -> None:
        self.params = self._shards.together(state["params"])
        self.draws.state = self._shards.draws_together(state["draws"])
        self._saved = self.draws.seen
        for kernel, own in zip(self.kernels, state["kernels"], strict=True):
            _put_kernel(kernel, own)
        put_generators(state["generators"])


def _first_run(kernel: ParticleGibbsKernel) -> Any:
    """The model under the first chain's values."""
    assert kernel._initial_params is not None
    values = {name: kernel._initial_params[name] for name in kernel._globals.names}
    device = next(iter(kernel._initial_params.values())).device
    with undrawn(device), pyro.validation_enabled(False), torch.no_grad():
        return kernel._read_chains(values)[0][0]


def _kernel_state(kernel: ParticleGibbsKernel) -> dict[str, Any]:
    return {
        "own": {name: getattr(kernel, name) for name in _OWN},
        "twisting": state_of(kernel._twisting),
        "diagnostics": state_of(kernel._diagnostics),
        "inner": [[block.state for block in inner.blocks] for inner in kernel._update.inner],
    }


def _put_kernel(kernel: ParticleGibbsKernel, state: dict[str, Any]) -> None:
    for name in _OWN:
        setattr(kernel, name, state["own"][name])
    put_state(kernel._twisting, state["twisting"])
    put_state(kernel._diagnostics, state["diagnostics"])
    for inner, states in zip(kernel._update.inner, state["inner"], strict=True):
        for block, own in zip(inner.blocks, states, strict=True):
            block.state = own
