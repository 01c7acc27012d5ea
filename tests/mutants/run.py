"""Which checks notice which mutants, and what it costs.

``python -m tests.mutants.run [WORDS]``: a table of the mutants whose name holds WORDS, against all
checks of their suite.
"""

import sys
import time

import torch

from tests.mutants.checks import SUITES, prepared
from tests.mutants.mutants import EQUIVALENT, MUTANTS


def verdict(mutant, check):
    """``killed``, ``survived``, or the error that came instead."""
    test = prepared(mutant.suite, check)
    try:
        with mutant.injected():
            test()
    except AssertionError:
        return "killed"
    except Exception as error:
        return repr(error)[:60]
    return "survived"


def main(words):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    for mutant in MUTANTS + EQUIVALENT:
        if words in mutant.name:
            print(mutant.name)
            for check in SUITES[mutant.suite]:
                start = time.process_time()
                found, named = verdict(mutant, check), "<-" if check == mutant.check else ""
                seconds = time.process_time() - start
                print(f"    {check:24}{found:12}{seconds:6.2f} s {named}", flush=True)


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
