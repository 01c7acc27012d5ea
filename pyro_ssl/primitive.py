r"""``ssl_transition``: the loop over time, as one Pyro effect.

.. math::
    s_t = \mathrm{cell}(s_{t-1}, z_{t-1}), \qquad z_t \sim p(z \mid g(s_t)), \qquad
    x_t \sim p(x \mid h(z_t))

(Zheng et al. 2017, arXiv 1711.11179, eq. 4). The loop *reads* as this process does, step by step.
As with :class:`pyro.plate`, which can be entered once or looped over, the code that runs the model
decides how often the body really runs: by default once, with all of z as one sample site; under
conditional SMC once, with the K states in place of z (``reading/handlers.py``).

The user's code never holds the state s_t, so nothing can pass from step to step without being
resampled.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any, overload

from pyro.nn import PyroModule
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.runtime import apply_stack
from torch import Size, Tensor

from .loop import Chain, SSLLoop, TimePlate, joined
from .loop_arguments import by_chain, check_inputs, check_known, check_lengths, check_tensor
from .transitions import DiscreteTransition, Transition

__all__ = ["SSLLoop", "ssl_transition"]

#: Plates that Pyro wraps around a whole model, left of all others.
_OUTERMOST_PLATES = frozenset({"num_particles_vectorized", "_num_predictive_samples"})


@overload
def ssl_transition(
    name: str,
    transition: Transition,
    num_steps: int,
    *,
    inputs: Tensor | None = None,
    lengths: Tensor | None = None,
    obs: Tensor | None = None,
    obs_mask: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]: ...


@overload
def ssl_transition(
    name: Mapping[str, Transition],
    transition: int,
    *,
    inputs: Tensor | Mapping[str, Tensor] | None = None,
    lengths: Tensor | None = None,
    obs: Mapping[str, Tensor] | None = None,
    obs_mask: Mapping[str, Tensor] | None = None,
) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]: ...


def ssl_transition(
    name: str | Mapping[str, Transition],
    transition: Transition | int | None = None,
    num_steps: int | None = None,
    *,
    inputs: Any = None,
    lengths: Tensor | None = None,
    obs: Any = None,
    obs_mask: Any = None,
) -> Iterator[tuple[Tensor, Any]]:
    """Loop over the steps of a state space LSTM: ``for t, z in ssl_transition(...)``.

    The body observes x_t given z_t, with data time first. It is written as for one step and runs
    vectorised: ``t`` is a tensor, ``z`` broadcasts against ``x[t]``, and plates around the loop
    (sequences) stand to the right of time. Nothing latent may be sampled in the body. Write the
    call in the ``for`` statement itself: an iterator that is kept elsewhere keeps its plates open
    when an exception leaves the body.

    =======================  =============  ===================================================
    run by                   ``t``          ``z``
    =======================  =============  ===================================================
    Pyro's own inference     ``arange(T)``  sample site ``name``, ``(..., B, T)``, event_dim 1;
                                            the body sees it time first, ``(..., T, B)``
    this library's samplers  ``arange(T)``  every state, ``arange(K)`` as ``(K, 1, 1)``
    ... over vectors, if no  one step       the particles, ``(P, 1, B, D)``
    quadratic emission
    =======================  =============  ===================================================

    Where the transition is over vectors, D stands to the right of all: the site is ``(..., B, T,
    D)`` with event_dim 2, and the body sees ``(..., T, B, D)``, so that ``z @ C.T`` is a linear
    emission's mean. There the body is run at one step, and what torch computed in it is computed
    again at the others; where that could mean something else (numbers that leave torch, edits in
    place, random numbers, a branch that turns out otherwise) it is run at each.

    **Several chains** (a factorial model): ``for t, (a, b) in ssl_transition({"a": p, "b": q}, T)``
    has a sample site for each chain, and one body that observes x_t given all of them. The samplers
    draw the chains together, as one over the tuples of their states
    (:class:`~pyro_ssl.transitions.ProductTransition`), for which the body meets all K_a K_b tuples,
    ``a`` and ``b`` of shape ``(K_a K_b, 1, 1)``. Results are then dicts by site.

    **Labels**: ``obs`` is what is known of z, as where some sequences or steps are annotated. The
    samplers draw the rest, and log p(x) becomes log p(x, what is known). Under Pyro's own
    inference z is drawn as it ever was, and an observed site ``"<name>_obs"`` in the body has
    log-probability -inf where that is not what is known.

    :param str name: name of the latent sample site; or a dict of transitions over states by name,
        one for each chain, and T after it.
    :param Transition transition: p(z_t | z_{1:t-1}). Register its parameters by
        ``pyro.module("transition", transition)``.
    :param int num_steps: T, at least 1.
    :param Tensor inputs: exogenous inputs, time first, ``(T, B, input_size)``; ``(T, input_size)``
        is shared by all sequences. Of several chains: for all that read any, or a dict by name.
    :param Tensor lengths: integers ``(B,)``, each in ``0..T``: steps at or past a sequence's
        length are masked out of the transition and of the whole body.
    :param Tensor obs: states that are known, integers ``(T, B)``; of several chains, a dict by
        name. Only where z is discrete.
    :param Tensor obs_mask: bool ``(T, B)``, True where ``obs`` is known, or a dict by name. Left
        out, all of it is, and the site is observed.
    :raises ValueError: on a shape or a length that does not fit; the message names the site.

    *Reference*: Zheng et al., "State Space LSTM Models with Particle MCMC Inference", 2017,
    section 3; Ghahramani & Jordan, "Factorial hidden Markov models", 1997.

    Example::

        >>> import torch, pyro, pyro.distributions as dist
        >>> from pyro_ssl import LSTMTransition, MarkovTransition
        >>> transition = LSTMTransition(num_states=4, hidden_size=8)
        >>> def model(words):                                       # words: (T, B)
        ...     pyro.module("transition", transition)
        ...     phi = pyro.sample("phi", dist.Dirichlet(torch.ones(4, 20)).to_event(1))
        ...     with pyro.plate("documents", words.shape[1]):
        ...         for t, z in ssl_transition("z", transition, len(words)):
        ...             pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])
        >>> trace = pyro.poutine.trace(model).get_trace(torch.zeros(5, 3, dtype=torch.long))
        >>> trace.nodes["z"]["value"].shape, trace.nodes["x"]["fn"].batch_shape
        (torch.Size([3, 5]), torch.Size([5, 3]))

    Two chains, whose means add up, and a few labels of the first::

        >>> chains = {"a": transition, "b": MarkovTransition(2)}
        >>> def model(x, labels, labelled):                                    # all (T, B)
        ...     with pyro.plate("series", x.shape[1]):
        ...         for t, (a, b) in ssl_transition(
        ...             chains, len(x), obs={"a": labels}, obs_mask={"a": labelled}
        ...         ):
        ...             pyro.sample("x", dist.Normal(2.0 * a - b, 1.0), obs=x[t])
        >>> from pyro_ssl import ParticleGibbs
        >>> labels = torch.zeros(5, 3, dtype=torch.long)
        >>> path = ParticleGibbs(model).sweep(None, torch.randn(5, 3), labels, labels == labels)
        >>> path["a"].sum(), path["b"].shape
        (tensor(0), torch.Size([3, 5]))
    """
    single = not isinstance(name, Mapping)
    transitions: Any = {name: transition} if isinstance(name, str) else name
    if not single and num_steps is None:
        num_steps, transition = transition, None  # type: ignore[assignment]
    _check_chains(transitions, num_steps, None if single else transition)
    msg: Any = {
        "type": "ssl_transition",
        "name": ", ".join(transitions),
        "fn": lambda: _run_once,
        "is_observed": False,
        "args": (),
        "kwargs": {},
        "value": None,  # a handler's answer: a function from SSLLoop to an iterator of (t, z)
        "infer": {},
        "scale": 1.0,
        "mask": None,
        "cond_indep_stack": (),
        "done": False,
        "stop": False,
        "continuation": None,
    }
    apply_stack(msg)
    frames = [frame for frame in msg["cond_indep_stack"] if frame.vectorized]
    _check_not_nested(msg["name"], frames)
    plates = tuple(frame for frame in frames if frame.name not in _OUTERMOST_PLATES)
    given = {"inputs": inputs, "obs": obs, "obs_mask": obs_mask}
    loop = _describe(transitions, num_steps, given, lengths, plates, single)
    outer_dim = min((frame.dim for frame in frames if frame not in plates), default=0)
    yield from msg["value"](loop._replace(outer_dim=outer_dim))


def _run_once(loop: SSLLoop) -> Iterator[tuple[Tensor, Any]]:
    """The default meaning: a sample site for each whole path, then the body in a time plate."""
    paths = [loop.sample(chain) for chain in loop.chains]
    with loop.body():
        pairs = zip(loop.chains, paths, strict=True)
        yield loop.steps(), loop.show(loop.steps(), [loop.time_first(*pair) for pair in pairs])


def _check_chains(transitions: Any, num_steps: Any, left_over: Any) -> None:
    """Check names and transitions, and that T is a number of steps."""
    if not isinstance(transitions, Mapping) or not transitions or left_over is not None:
        raise TypeError(
            f"ssl_transition: its chains are {_kind(transitions)}, and after them comes "
            f"{_kind(left_over)}, expected a name and a transition, or a dict of transitions by "
            'name, and T; write ssl_transition("z", transition, T), or ssl_transition({"a": p, '
            '"b": q}, T).'
        )
    for name, transition in transitions.items():
        if not isinstance(transition, Transition):
            raise TypeError(
                f'Site "{name}": transition is a {type(transition).__name__}, expected a '
                f'pyro_ssl Transition; write ssl_transition("{name}", LSTMTransition(K, H), T).'
            )
        if len(transitions) > 1 and not isinstance(transition, DiscreteTransition):
            raise TypeError(
                f'Site "{name}": its transition is a {type(transition).__name__}, one of several '
                "chains of one loop, expected a DiscreteTransition: the samplers number the tuples "
                "of their states. Vectors beside vectors are one longer vector: write "
                f'ssl_transition("{name}", GaussianLSTMTransition(D_1 + D_2, H), T), and z[..., '
                ":D_1] in the body."
            )
    try:
        T = operator.index(num_steps)
    except TypeError:
        T = 0
    if T < 1:
        raise ValueError(
            f'Site "{next(iter(transitions))}": num_steps is {num_steps}, expected at least 1; '
            "drop empty sequences before the model, and give the rest as lengths= (and num_steps "
            "an integer, len(x))."
        )


def _check_not_nested(name: str, frames: list[CondIndepStackFrame]) -> None:
    """Check that a loop does not stand in the body of another one."""
    outer = [frame.name for frame in frames if isinstance(frame.name, TimePlate)]
    if outer:
        other = outer[0].removesuffix("_time")
        raise ValueError(
            f'Site "{name}": its loop stands in the body of the loop of "{other}", which runs once '
            "for all steps, expected loops that do not; chains that move together are written "
            f'side by side: for t, (a, b) in ssl_transition({{"{other}": p, "{name}": q}}, T).'
        )


def _describe(
    transitions: Mapping[str, Transition],
    num_steps: Any,
    given: dict[str, Any],
    lengths: Tensor | None,
    plates: tuple[CondIndepStackFrame, ...],
    single: bool,
) -> SSLLoop:
    """Check what the user wrote, and lay it out batch first."""
    T, names = operator.index(num_steps), list(transitions)
    batch_shape = [1] * max((-frame.dim for frame in plates), default=0)
    for frame in plates:
        batch_shape[frame.dim] = frame.size
    shape = Size(batch_shape)
    first = transitions[names[0]]
    device = first.like.device
    if not single:
        given = {what: by_chain(what, value, transitions) for what, value in given.items()}
    check_tensor(names[0], "lengths", lengths, device)
    lengths = check_lengths(names[0], lengths, T, shape)
    chains = []
    for name, transition in transitions.items():
        if isinstance(transition, PyroModule):  # each of its attributes is a statement of Pyro's
            for attribute in (*transition._parameters, *transition._modules):
                getattr(transition, attribute)
        if transition.like.device != device:
            raise ValueError(
                f'Site "{name}": its transition is on {transition.like.device}, but that of '
                f'"{names[0]}" is on {device}; expected one device: write transition.to("{device}")'
                "."
            )
        own = given if single else {what: value[name] for what, value in given.items()}
        check_tensor(name, "inputs", own["inputs"], device)
        inputs = check_inputs(name, transition, own["inputs"], lengths, (T, *shape))
        known = own["obs"], own["obs_mask"]
        known = check_known(name, transition, known, lengths, (T, *shape))
        chains.append(Chain(name, transition, inputs, *known))
    loop = SSLLoop(names[0], first, T, None, lengths, shape, plates, device, chains=tuple(chains))
    return joined(loop._replace(is_tuple=not single, statement=object()), chains)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
