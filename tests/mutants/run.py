"""Apply mutants to copies of the package and see which checks notice.

``python -m tests.mutants.run [WORDS]``: a table of the mutants whose name holds WORDS.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.mutants import EQUIVALENT, MUTANTS

ROOT = Path(__file__).parents[2]


def mutated(mutant):
    """The file's text with the mutant in it."""
    text = Path(ROOT, "pyro_ssl", mutant.file).read_text()
    for old, new in mutant.edits:
        if text.count(old) != 1:
            raise ValueError(
                f'Mutant "{mutant.name}": {mutant.file} holds {old!r} {text.count(old)} times, '
                "expected once; bring tests/mutants/mutants.py up to date."
            )
        text = text.replace(old, new)
    return text


def run(mutant):
    """Exit status and output of the kill suite on a copy of the package with the mutant in it."""
    with tempfile.TemporaryDirectory() as folder:
        for part in ("pyro_ssl", "tests"):
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, Path(folder, part), ignore=ignore)
        Path(folder, "pyro_ssl", mutant.file).write_text(mutated(mutant))
        done = subprocess.run(
            [sys.executable, "-m", "tests.mutants.kill_suite", mutant.suite],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
    return done.returncode, done.stdout + done.stderr[-2000:]


def main(words):
    for mutant in MUTANTS + EQUIVALENT:
        if words in mutant.name:
            start = time.perf_counter()
            status, output = run(mutant)
            verdict = {0: "survived", 1: "killed"}.get(status, "did not run")
            seconds = time.perf_counter() - start
            print(f"{mutant.name:55} {verdict:11} {seconds:5.1f} s  {output.strip()}", flush=True)


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
