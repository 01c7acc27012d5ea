"""Disks that fail, and files that they damage."""

import errno
import os
from contextlib import contextmanager

import pytest


def newest_save(folder):
    """The tensors of a run's newest checkpoint."""
    return max(folder.glob("*/tensors-*"), key=lambda file: file.stat().st_mtime_ns)


def damage(file, how):
    """Turn a bit of a file over (``"flip"``), or leave its last byte out."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content if how == "flip" else file.read_bytes()[:-1])


@contextmanager
def full_disk(after=0):
    """Within the block nothing more can be written, after so many files."""
    handles, real = [], os.fsync

    def fail(handle):
        handles.append(handle)
        if len(handles) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        yield
