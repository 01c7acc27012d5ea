"""A process that has imported all, and forks children that are killed."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pyro_ssl


@contextmanager
def nursery_of(code, *options):
    """Run ``code``, which reads orders line by line; close it at the end."""
    root = str(Path(pyro_ssl.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, *options, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
    ) as process:
        yield process
        process.stdin.close()
