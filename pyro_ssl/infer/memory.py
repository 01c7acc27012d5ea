"""Memory that a run will need, told from its shapes before it starts.

Only what is certain to be made is added up: tables over states, particles and their history, draws
that are kept. So a run that is refused could not have come to its end, and one that is not may
still be too large. It is about the CPU; a GPU tells by itself, and its errors end no process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import NotEnoughMemory
from ..reading.program import ModelRun

__all__ = ["available_memory", "check_fits", "check_sweep_fits", "gradient_bytes", "sweep_bytes"]

_CGROUP = Path("/sys/fs/cgroup")
#: limit, use and statistics of a group, in the two layouts that there are
_GROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
)
#: the line to write instead, by who sweeps
_WRITE = {
    "ParticleGibbs": "num_chains=1, or give it fewer sequences at a time",
    "StochasticEM": "pyro.plate(name, N, subsample=index) around the loop, and give it minibatches",
    "ParticleFilter": "pf.perplexity(batches=[(words, index) for index in torch.arange(N)."
    "split(250)]), or give it fewer sequences at a time",
}


def available_memory() -> int | None:
    """Return how many bytes this process may still take; ``None`` where that cannot be told.

    On Linux: what the machine has left, and what the limits of its group and of the process leave.
    """
    found = [_machine(), *map(_group, _groups()), _own_limit()]
    return min((n for n in found if n is not None), default=None)


def check_fits(who: str, needed: Mapping[str, int], write: str) -> None:
    """Check that there is room.

    :param str who: asks for it.
    :param needed: bytes, by what they are for.
    :param str write: the line to write instead.
    :raises NotEnoughMemory: if there is not.

    Example::

        >>> check_fits("pg.run", {"draws of z": 2**60}, 'keep="occupancy"')
        Traceback (most recent call last):
            ...
        pyro_ssl.errors.NotEnoughMemory: pg.run: needs 1,073,741,824.0 GiB at least (draws of z: \
1,073,741,824.0 GiB), found ... available, expected as much; write keep="occupancy".
    """
    room, total = available_memory(), sum(needed.values())
    if room is None or total <= room:
        return
    parts = ", ".join(f"{what}: {_words(n)}" for what, n in needed.items())
    raise NotEnoughMemory(
        f"{who}: needs {_words(total)} at least ({parts}), found {_words(room)} available, "
        f"expected as much; write {write}."
    )


def sweep_bytes(
    T: int, B: int, P: int, size: int, itemsize: int, *, states: bool
) -> dict[str, int]:
    """Return what a sweep makes, in bytes by what it is.

    :param int B: sequences, of all chains.
    :param int size: K, or D where latents are vectors.
    :param bool states: whether they are states.

    Example::

        >>> sweep_bytes(100, 1000, 10, 50, 4, states=True)
        {'log p(x_t | z_t) of all states': 20000000, 'particles and their ancestors': 24000000}
    """
    if not states:
        return {"particles and their ancestors": T * B * P * (size * itemsize + 16)}
    return {
        "log p(x_t | z_t) of all states": T * B * size * itemsize,
        "particles and their ancestors": 24 * T * B * P,  # z, ancestors, what these were drawn by
    }


def gradient_bytes(T: int, B: int, K: int, itemsize: int) -> dict[str, int]:
    """Return what a gradient step of a transition over states keeps: logits, their logarithms."""
    return {"log p(z_t | z_{1:t-1}) and its gradient": 2 * T * B * K * itemsize}


def check_sweep_fits(
    who: str,
    run: ModelRun,
    num_particles: int,
    chains: int = 1,
    *,
    learns: bool = False,
    history: bool = True,
) -> None:
    """Check that there is room for a sweep over a run of a model, before its emission is read.

    :param str who: sweeps, a class.
    :param int chains: that are swept side by side.
    :param bool learns: whether a gradient step follows.
    :param bool history: whether the sweep keeps its particles.
    :raises NotEnoughMemory: if there is not.
    """
    transition, (T, B) = run.transition, (run.loop.num_steps, run.num_sequences)
    if run.loop.device.type != "cpu":
        return
    size = transition.num_states if run.is_discrete else transition.event_shape.numel()
    itemsize, B = transition.like.element_size(), B * chains
    P = num_particles if history else 0
    needed = sweep_bytes(T, B, P, size, itemsize, states=run.is_discrete)
    if learns and run.is_discrete:
        needed |= gradient_bytes(T, B, size, itemsize)
    where = f'{who}: site "{run.loop.name}", T={T}, B={B}, P={num_particles}'
    check_fits(where, needed, _WRITE[who])


def _words(size: int) -> str:
    unit, name = (2**30, "GiB") if size >= 2**30 else (2**20, "MiB")
    return f"{size / unit:,.1f} {name}"


def _machine() -> int | None:
    """What is free, or can be freed, and free swap."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
        return 1024 * (found["MemAvailable"] + found.get("SwapFree", 0))
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _groups() -> list[Path]:
    """The control groups of this process's memory, and those that they are in (cgroup v1, v2)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for _, controllers, name in (line.split(":", 2) for line in lines):
        if controllers in ("", "memory"):
            root = _CGROUP / controllers
            here = root / name.lstrip("/")
            found += [folder for folder in (here, *here.parents) if folder.is_relative_to(root)]
            found.append(root)  # what a container sees of its own group
    return found


def _group(folder: Path) -> int | None:
    """What the limit of a group leaves; the pages of files that it holds can be freed."""
    for limit, use, stat in _GROUP_FILES:
        try:
            most, used = (int((folder / name).read_text()) for name in (limit, use))
            pairs = (folder / stat).read_text().split()
        except (OSError, ValueError):  # where there is no limit it says "max"
            continue
        pages = dict(zip(pairs[::2], pairs[1::2], strict=False))
        files = int(pages.get("active_file", 0)) + int(pages.get("inactive_file", 0))
        return max(most - used + files, 0)
    return None


def _own_limit() -> int | None:
    """What ``ulimit -v`` leaves."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return None if most == resource.RLIM_INFINITY else most - pages * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError):
        return None
