"""What a sweep returns hangs together: states and weights are those of each particle's own path.

No draw is judged here. Whatever was drawn, the path of each particle is in ``z`` and ``ancestors``;
stepping along it gives the cell's state and the look-ahead weights that the sweep must have had.
"""

import pytest
import torch

from pyro_ssl.smc import QuadraticEmission, conditional_smc
from pyro_ssl.transitions import GaussianLSTMTransition
from tests.statistics import Problem, random_problem

T, P = 5, 4


def trace_back(z, ancestors, slot=None):
    """Paths ``(T, B, P, ...)`` of the particles at the last step, in plain loops."""
    path = torch.empty_like(z)
    num_steps, B, P = ancestors.shape
    for b in range(B):
        for p in range(P):
            slot = p
            for t in reversed(range(num_steps)):
                path[t, b, p] = z[t, b, slot]
                slot = int(ancestors[t, b, slot])
    return path


def leaves(state):
    return [
        leaf for part in state for leaf in (leaves(part) if isinstance(part, tuple) else [part])
    ]


def along(transition, path, inputs):
    """Step along paths ``(T, B, P, ...)``: what each step predicts, and the last state."""
    state, z_prev, predicted = transition.initial_state(path.shape[1:3]), None, []
    for t, z in enumerate(path):
        u = None if inputs is None else inputs[t].unsqueeze(1).expand(-1, path.shape[2], -1)
        p, state = transition.step(z_prev, state, u)
        predicted.append(p.expand(path.shape[1:3]))
        z_prev = z
    return predicted, state


def check_states(problem: dict, reference=None, **settings):
    """Every number of the state, ``(B P, ...)``, to rounding."""
    sweep = conditional_smc(**problem, num_particles=P, reference=reference, **settings)
    path = trace_back(sweep.z, sweep.ancestors)
    _, state = along(problem["transition"], path, problem["inputs"])
    found, expected = leaves(sweep.state), leaves(state)
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b.reshape(a.shape), rtol=0, atol=1e-12)


def check_log_likelihood(problem: Problem, reference=None, **settings):
    """log mean_p Σ_k p(k | z^p_{1:t-1}) p(x_t | k), of every step."""
    every = problem.repeat(1)
    sweep = conditional_smc(**every, num_particles=P, reference=reference, **settings)
    for t in range(len(sweep.z)):
        path = trace_back(sweep.z[:t], sweep.ancestors[:t])
        path = torch.cat([path, torch.zeros_like(sweep.z[:1])])  # z_t itself is not looked at
        log_prior = along(problem.transition, path, problem.inputs)[0][-1].logits
        if problem.transition_scale is not None:
            log_prior = log_prior * problem.transition_scale[:, None, None]
        alpha = (log_prior + problem.log_emission[t].unsqueeze(1)).logsumexp(-1).exp()  # (B, P)
        expected = alpha.mean(-1).log()
        if problem.lengths is not None:
            expected = torch.where(t < problem.lengths, expected, 0.0)
        torch.testing.assert_close(sweep.log_likelihood[t], expected, rtol=1e-12, atol=1e-12)


def vector_problem(reads, input_size=0):
    B, D = 3, 2
    residual = reads == "increments"
    transition = GaussianLSTMTransition(
        D, 4, input_size=input_size, residual=residual, reads=reads
    ).requires_grad_(False)
    root = torch.randn(T, B, D, D)
    emission = QuadraticEmission(
        torch.randn(T, B, D), torch.randn(T, B), torch.randn(T, B, D), root @ root.mT
    )
    inputs = torch.randn(T, B, input_size) if input_size else None
    return {"transition": transition, "emission": emission, "inputs": inputs}


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("kind", ["lstm", "mlstm"])
def test_states(kind, conditional):
    problem = random_problem(3, T, kind=kind, ragged=True, inputs=True)
    reference = torch.randint(3, (T, 2)) if conditional else None
    with torch.no_grad():
        check_states(problem.repeat(1), reference, ancestor_sampling=1)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("reads, input_size", [("positions", 2), ("increments", 0)])
def test_states_over_vectors(reads, input_size, conditional):
    """The Gaussian head keeps its cell's state inside its own."""
    problem = vector_problem(reads, input_size)
    reference = torch.randn(T, 3, 2) if conditional else None
    check_states(problem, reference, ancestor_sampling=1)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_log_likelihood(resampling, conditional):
    problem = random_problem(3, T, ragged=True, inputs=True, scaled=True)
    reference = torch.randint(3, (T, 2)) if conditional else None
    with torch.no_grad():
        check_log_likelihood(problem, reference, resampling=resampling, ancestor_sampling=2)
