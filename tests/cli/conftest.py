"""Fits of the program that take little time, wherever an option does not ask for more."""

from functools import partialmethod

import pytest

from pyro_ssl import TopicalSSL


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        few = partialmethod(TopicalSSL.fit, markov_starts=1, transition_steps=3)
        patch.setattr(TopicalSSL, "fit", few)
        yield
