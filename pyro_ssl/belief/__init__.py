"""Reading a recurrent network as a hidden Markov model and as a POMDP."""

from .clusters import kmeans, visited_states
from .decode import JointStates, most_probable_states, product_belief
from .densities import predictive_density
from .fidelity import BeliefInformation, Fidelity, fidelity, log_predictive, mutual_information
from .filter import ExactFilter, FilterRNN, GateRNN, exact_filter
from .from_hmm import from_hmm
from .gap import LinearGap, linear_gap
from .gates import GateReading, gate_weights, read_gates
from .gaussian import GaussianEmission, GaussianFilter, GaussianFilterRNN, gaussian_filter
from .graph import DependencyGraph, dependency_graph
from .hmm import ExtractedHMM, to_hmm
from .horizon import MemoryHorizon, gaussian_total_variation, memory_horizon
from .parameters import stationary_distribution
from .pomdp import GatePOMDP, joint_states, to_pomdp
from .readout import BeliefReadout, belief_readout
from .view import BeliefView, GateBelief, belief_view

__all__ = [
    "BeliefInformation",
    "BeliefReadout",
    "BeliefView",
    "DependencyGraph",
    "ExactFilter",
    "ExtractedHMM",
    "Fidelity",
    "FilterRNN",
    "GateBelief",
    "GatePOMDP",
    "GateRNN",
    "GateReading",
    "GaussianEmission",
    "GaussianFilter",
    "GaussianFilterRNN",
    "JointStates",
    "LinearGap",
    "MemoryHorizon",
    "belief_readout",
    "belief_view",
    "dependency_graph",
    "exact_filter",
    "fidelity",
    "from_hmm",
    "gate_weights",
    "gaussian_filter",
    "gaussian_total_variation",
    "joint_states",
    "kmeans",
    "linear_gap",
    "log_predictive",
    "memory_horizon",
    "most_probable_states",
    "mutual_information",
    "predictive_density",
    "product_belief",
    "read_gates",
    "stationary_distribution",
    "to_hmm",
    "to_pomdp",
    "visited_states",
]
