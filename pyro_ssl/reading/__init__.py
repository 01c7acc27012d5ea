"""Reading a user's Pyro model: the one room that touches the user's code and Pyro's internals."""

from .emission import read_emission
from .program import ModelRun, Program
from .sweep_in_loop import BodyEmission

__all__ = ["BodyEmission", "ModelRun", "Program", "read_emission"]
