"""The lowest level, tensors in and tensors out: a fault has its error, draws and changes nothing.

A row is a call on the good arguments of ``World``, and the words that its error must have; the
error comes on the second call as on the first, and the call without the fault works afterwards.
"""

import functools
import re

import pytest
import torch
from torch import nn

from pyro_ssl import cells, exact, smc
from pyro_ssl import transitions as tr
from tests.faults.digest import nothing_changes

T, B, K, D, P = 4, 3, 2, 2, 5
NAN, INF = float("nan"), float("inf")


class World:
    """Good arguments of every call; no test changes them."""

    def __init__(self):
        self.states = tr.LSTMTransition(K, 3)
        self.driven = tr.LSTMTransition(K, 3, input_size=1)
        self.chain = tr.MarkovTransition(K)
        self.vectors = tr.GaussianLSTMTransition(D, 3)
        self.linear = tr.LinearGaussianTransition(D)
        self.table = torch.randn(T, B, K)
        self.emission = smc.TableEmission(self.table)
        self.u = torch.randn(T, B, 1)
        self.n = torch.tensor([T, 2, 0])
        self.z, self.path = torch.randint(K, (T, B)), torch.randn(T, B, D)
        self.initial, self.matrix = torch.ones(K) / K, torch.eye(K)
        eye = torch.eye(D)
        self.parts = torch.zeros(T, B, D), torch.zeros(T, B), torch.zeros(T, B, D)
        self.quadratic = smc.QuadraticEmission(*self.parts, eye.expand(T, B, D, D))
        self.noisy = exact.LinearEmission(torch.ones(1, D), torch.zeros(1), torch.eye(1))
        self.x = torch.randn(T, B, 1)
        self.three, self.wide = tr.LSTMTransition(3, 2), tr.GaussianLSTMTransition(3, 2)
        self.torch = nn.LSTM(2, 2)
        self.swept = sweep(self)

    @property
    def modules(self):
        return [value for value in vars(self).values() if isinstance(value, nn.Module)]


world = functools.cache(World)  # made in a test, whose default dtype is float64


# ------------------------------------------------------------------------------------ the calls


def sweep(w, transition=None, emission=None, num_particles=P, reference=None, **options):
    transition = w.states if transition is None else transition
    emission = w.emission if emission is None else emission
    return smc.conditional_smc(transition, emission, num_particles, reference, **options)


def roll(w, transition=None, found=None, num_steps=2, **options):
    found = w.swept if found is None else found
    return smc.roll_out(w.states if transition is None else transition, found, num_steps, **options)


def hmm(function):
    def call(w, initial=None, matrix=None, table=None, lengths=None):
        initial = w.initial if initial is None else initial
        matrix = w.matrix if matrix is None else matrix
        return function(initial, matrix, w.table if table is None else table, lengths)

    return call


def kalman(function):
    def call(w, transition=None, emission=None, x=None, **options):
        transition = w.linear if transition is None else transition
        emission = w.noisy if emission is None else emission
        return function(transition, emission, w.x if x is None else x, **options)

    return call


def enumerated(w, transition=None, table=None, **options):
    transition = w.states if transition is None else transition
    return exact.enumerate_paths(transition, w.table if table is None else table, **options)


def path(w, transition=None, num_steps=T, **options):
    return tr.PathDistribution(w.states if transition is None else transition, num_steps, **options)


HMM = {
    name: hmm(getattr(exact, name))
    for name in (
        *("markov_filter", "markov_log_likelihood", "markov_marginals", "sample_markov_paths"),
    )
}
KALMAN = {
    name: kalman(getattr(exact, name))
    for name in ("kalman_filter", "kalman_smoother", "sample_kalman_paths")
}


def DRIVEN(w):
    """A linear chain that reads one input."""
    return tr.LinearGaussianTransition(w.linear.dim, input_size=1)


def noisy(**parts):
    """An emission of which one part is made of what it is in the world."""
    return lambda w: w.noisy._replace(**{k: v(getattr(w.noisy, k)) for k, v in parts.items()})


# ------------------------------------------------------------------------------------ the faults

SWEEP = {
    "transition class": (dict(transition=lambda w: tr.LSTMTransition), "transition is LSTMTran"),
    "transition of torch": (dict(transition=lambda w: w.torch), "transition is a LSTM"),
    "table itself": (dict(emission=lambda w: w.table), r"emission is a Tensor.*TableEmission\("),
    "emission of vectors": (dict(emission=lambda w: w.quadratic), "expected a GaussianTransition"),
    "transition of vectors": (
        dict(transition=lambda w: w.vectors),
        "expected a DiscreteTransition",
    ),
    "K": (
        dict(transition=lambda w: w.three),
        r"shape \(4, 3, 2\), expected \(4, 3, 3\)",
    ),
    "D": (
        dict(transition=lambda w: w.wide, emission=lambda w: w.quadratic),
        r"center has shape \(4, 3, 2\), expected \(4, 3, 3\)",
    ),
    "float32": (
        dict(emission=lambda w: smc.TableEmission(w.table.float())),
        r"table is torch.float32.*write table.to\(torch.float64\)",
    ),
    "meta": (dict(emission=lambda w: smc.TableEmission(w.table.to("meta"))), "table is on meta"),
    "P 0": (dict(num_particles=0), "num_particles is 0, expected a whole number of 1 or more"),
    "P -1": (dict(num_particles=-1), "num_particles is -1"),
    "P 2.5": (dict(num_particles=2.5), "num_particles is 2.5"),
    "P True": (dict(num_particles=True), "num_particles is True"),
    "P word": (dict(num_particles="ten"), "num_particles is ten"),
    "P None": (dict(num_particles=None), "num_particles is a NoneType"),
    "resampling": (dict(resampling="stratified"), 'resampling is "stratified", expected one of'),
    "ancestors -1": (dict(ancestor_sampling=-1), "ancestor_sampling is -1"),
    "ancestors 1.5": (dict(ancestor_sampling=1.5), "ancestor_sampling is 1.5"),
    "lag 0": (dict(proposal_lag=0), "proposal_lag is 0"),
    "seed -1": (dict(seed=-1), "seed is -1, expected a whole number of 0 or more"),
    "seed 1.5": (dict(seed=1.5), "seed is 1.5"),
    "seed 2^63": (dict(seed=2**63), r"expected less than 2\*\*63"),
    "sequences short": (dict(sequences=torch.arange(2)), r"sequences has shape \(2,\)"),
    "sequences int32": (dict(sequences=torch.arange(3).int()), "sequences is torch.int32"),
    "sequences list": (dict(sequences=[0, 1, 2]), "sequences is a list, expected a tensor"),
    "reference (B, T)": (
        dict(reference=lambda w: w.z.T),
        r"reference has shape \(3, 4\), expected \(4, 3\); write z.T",
    ),
    "reference short": (dict(reference=lambda w: w.z[:2]), r"reference has shape \(2, 3\)"),
    "reference K": (dict(reference=lambda w: w.z + 1), "reference holds numbers from . to 2"),
    "reference -1": (dict(reference=lambda w: w.z - 1), "reference holds numbers from -1"),
    "reference float": (dict(reference=lambda w: w.z + 0.5), "reference is torch.float64"),
    "reference list": (dict(reference=lambda w: w.z.tolist()), "reference is a list"),
    "reference vectors": (dict(reference=lambda w: w.path), r"shape \(4, 3, 2\), expected \(4, 3"),
    "lengths short": (dict(lengths=lambda w: w.n[:2]), r"lengths has shape \(2,\), expected \(3,"),
    "lengths long": (dict(lengths=lambda w: w.n + 1), "lengths holds numbers from 1 to 5"),
    "lengths -1": (dict(lengths=lambda w: w.n - 1), "lengths holds numbers from -1"),
    "lengths float": (dict(lengths=lambda w: w.n * 1.0), "lengths is torch.float64"),
    "lengths bool": (dict(lengths=lambda w: w.n > 1), "lengths is torch.bool"),
    "lengths list": (dict(lengths=lambda w: w.n.tolist()), "lengths is a list"),
    "inputs none read": (dict(inputs=lambda w: w.u), "input_size=0 inputs, but inputs were given"),
    "inputs none given": (dict(transition=lambda w: w.driven), "but inputs were not given"),
    "inputs short": (
        dict(transition=lambda w: w.driven, inputs=lambda w: w.u[:2]),
        r"inputs has shape \(2, 3, 1\), expected \(4, 3, 1\)",
    ),
    "inputs float32": (
        dict(transition=lambda w: w.driven, inputs=lambda w: w.u.float()),
        "inputs is torch.float32",
    ),
    "twist itself": (dict(twist=lambda w: w.table), "expected a TableEmission of"),
    "twist of vectors": (dict(twist=lambda w: w.quadratic), "expected a TableEmission of"),
    "twist T": (
        dict(twist=lambda w: smc.TableEmission(w.table[:2])),
        r"expected a TableEmission of \(4, 3, 2\)",
    ),
    "scale": (dict(transition_scale=lambda w: torch.ones(2)), "transition_scale has shape"),
}

ROLL = {
    "S 0": (dict(num_steps=0), "num_steps is 0, expected a whole number of 1 or more"),
    "S 1.5": (dict(num_steps=1.5), "num_steps is 1.5"),
    "no sweep": (dict(found=lambda w: w.z), "sweep is a Tensor, expected a Sweep"),
    "weights": (
        dict(found=lambda w: w.swept._replace(weights=torch.arange(1.0, 1 + P).expand(B, P))),
        "have weights",
    ),
    "vectors": (dict(transition=lambda w: w.vectors), r"expected \(T, B, P\) and \(2,\)"),
    "inputs": (dict(transition=lambda w: w.driven, inputs=lambda w: w.u), r"expected \(6, 3, 1\)"),
}

OF_HMM = {
    "no batch": (dict(table=lambda w: w.table[:, 0]), r"write log_emission\[:, None\]"),
    "T=0": (dict(table=lambda w: w.table[:0]), r"expected \(T, B, K\) with T and K at least 1"),
    "K=0": (dict(table=lambda w: w.table[..., :0]), "with T and K at least 1"),
    "half": (dict(table=lambda w: w.table.half()), "log_emission is torch.float16, expected"),
    "integers": (dict(table=lambda w: w.z.unsqueeze(-1)), "log_emission is torch.int64"),
    "nan": (dict(table=lambda w: w.table * NAN), "log_emission is nan at step 0 of sequence 0"),
    "inf": (dict(table=lambda w: w.table + INF), "log_emission is inf at step 0"),
    "list": (dict(table=lambda w: w.table.tolist()), "log_emission is a list, expected a tensor"),
    "initial K": (dict(initial=lambda w: torch.ones(3) / 3), r"initial has shape \(3,\), expected"),
    "initial logits": (dict(initial=lambda w: w.initial.log()), "least entry of -0.693"),
    "initial sum": (dict(initial=lambda w: w.initial * 2), "rows that add up to 2 to 2"),
    "initial float32": (dict(initial=lambda w: w.initial.float()), "initial is torch.float32"),
    "matrix K": (dict(matrix=lambda w: torch.ones(2, 3) / 3), r"matrix has shape \(2, 3\)"),
    "matrix columns": (
        dict(matrix=lambda w: torch.tensor([[0.9, 0.2], [0.1, 0.8]])),
        "matrix has a least entry of 0.1 and rows that add up to 0.9 to 1.1",
    ),
    "matrix nan": (dict(matrix=lambda w: w.matrix * NAN), "matrix has a least entry of nan"),
    "lengths long": (dict(lengths=lambda w: w.n + 1), "lengths holds numbers from 1 to 5"),
    "lengths short": (dict(lengths=lambda w: w.n[:1]), r"lengths has shape \(1,\), expected \(3"),
    "lengths float": (dict(lengths=lambda w: w.n + 0.5), "lengths is torch.float64"),
}

ENUMERATED = {
    "vectors": (dict(transition=lambda w: w.vectors), "expected a DiscreteTransition"),
    "K": (dict(transition=lambda w: tr.MarkovTransition(3)), r"expected \(T, B, 3\)"),
    "T=0": (dict(table=lambda w: w.table[:0]), "with T and K at least 1"),
    "too many": (dict(table=lambda w: torch.zeros(40, 1, K)), "2.40 paths are too many"),
    "nan": (dict(table=lambda w: w.table * NAN), "log_emission is nan"),
    "lengths": (dict(lengths=lambda w: w.n + 1), "lengths holds numbers from 1 to 5"),
    "inputs": (dict(inputs=lambda w: w.u), "but inputs were given"),
    "inputs T": (
        dict(transition=lambda w: w.driven, inputs=lambda w: w.u[:1]),
        r"inputs has shape \(3, 1, 1\), expected \(..., 4, 1\)",
    ),
}

OF_KALMAN = {
    "states": (dict(transition=lambda w: w.chain), "expected a LinearGaussianTransition"),
    "tuple": (dict(emission=lambda w: (1, 2, 3)), "emission is a tuple, expected a LinearEmis"),
    "matrix": (dict(emission=noisy(matrix=lambda C: C.T)), r"emission.matrix has shape \(2, 1"),
    "covariance": (dict(emission=noisy(covariance=lambda R: -R)), "symmetric and positive defin"),
    "covariance 0": (dict(emission=noisy(covariance=lambda R: 0 * R)), "positive definite"),
    "covariance nan": (dict(emission=noisy(covariance=lambda R: NAN * R)), "positive definite"),
    "no batch": (dict(x=lambda w: w.x[:, 0]), r"write x.unsqueeze\(1\) for one sequence"),
    "E": (dict(x=lambda w: w.path), r"expected \(T, B, 1\) with T at least 1"),
    "T=0": (dict(x=lambda w: w.x[:0]), "with T at least 1"),
    "float32": (dict(x=lambda w: w.x.float()), "x is torch.float32, expected torch.float64"),
    "inf": (dict(x=lambda w: w.x * INF), r"x is \[-?inf\] at step 0 of sequence 0"),
    "inputs none read": (
        dict(inputs=lambda w: w.u),
        "reads input_size=0 inputs, but inputs were given",
    ),
    "inputs none given": (dict(transition=DRIVEN), "input_size=1 inputs, but inputs were not"),
    "inputs nan": (dict(transition=DRIVEN, inputs=lambda w: w.u * NAN), "inputs hold NaN or inf"),
    "inputs short": (
        dict(transition=DRIVEN, inputs=lambda w: w.u[:2]),
        r"inputs has shape \(2, 3, 1\), expected \(4, 3, 1\)",
    ),
    "mask by sensor": (
        dict(mask=torch.ones(4, 3, 2).bool()),
        r"mask has shape \(4, 3, 2\), expected \(4, 3, 1\)",
    ),
    "mask": (dict(mask=lambda w: torch.ones(B, T).bool()), r"mask has shape \(3, 4\)"),
    "mask int": (dict(mask=lambda w: torch.ones(T, B).int()), "mask has dtype torch.int32"),
    "mask list": (dict(mask=lambda w: [True]), "mask is a list"),
    "lengths": (dict(lengths=lambda w: w.n + 1), "lengths holds numbers from 1 to 5"),
}

PATH = {
    "transition": (dict(transition=lambda w: w.torch), "transition is a LSTM"),
    "T -1": (dict(num_steps=-1), "num_steps is -1"),
    "T 1.5": (dict(num_steps=1.5), "num_steps is 1.5"),
    "lengths": (dict(lengths=lambda w: w.n + 1), "lengths holds numbers from 1 to 5"),
    "lengths float": (dict(lengths=lambda w: w.n / 2), "lengths is torch.float64"),
    "inputs": (dict(inputs=lambda w: w.u), "but inputs were given"),
    "inputs T": (
        dict(transition=lambda w: w.driven, inputs=lambda w: w.u),
        r"inputs has shape \(4, 3, 1\), expected \(..., 4, 1\)",
    ),
}

# Calls that have no good form of their own.
OTHERS = {
    "table (T, K)": (lambda w: smc.TableEmission(w.table[:, 0]), r"write table\[:, None\]"),
    "table K=0": (lambda w: smc.TableEmission(w.table[..., :0]), "with K at least 1"),
    "table half": (lambda w: smc.TableEmission(w.table.half()), "table is torch.float16"),
    "table bfloat16": (lambda w: smc.TableEmission(w.table.bfloat16()), "table is torch.bfloat16"),
    "table numpy": (lambda w: smc.TableEmission(w.table.numpy()), "table is a ndarray"),
    "split": (lambda w: w.emission.split(T + 1), "t is 5, expected 0 to T = 4"),
    "split -1": (lambda w: w.quadratic.split(-1), "t is -1, expected a whole number of 0 or more"),
    "constant": (
        lambda w: smc.QuadraticEmission(w.path, w.path, w.path, w.path),
        r"constant has shape \(4, 3, 2\), expected \(4, 3\)",
    ),
    "precision": (
        lambda w: smc.QuadraticEmission(*w.parts, torch.eye(D)),
        r"precision has shape \(2, 2\), expected \(4, 3, 2, 2\)",
    ),
    "linear float32": (
        lambda w: smc.QuadraticEmission(w.path, w.table[..., 0], w.path.float(), w.path),
        "linear is torch.float32",
    ),
    "sample 100": (
        lambda w: exact.sample_kalman_paths(w.linear, w.noisy, w.x, 100),
        r"sample_shape is 100, expected a tuple .* write sample_shape=\(100,\)",
    ),
    "draw -1": (lambda w: path(w).sample((-1,)), r"sample_shape is \(-1,\)"),
    "score T": (lambda w: path(w).log_prob(w.z[:2].T), r"value has shape \(3, 2\), expected"),
    "log_prob K": (lambda w: w.states.log_prob(w.z + 1), "z holds numbers from . to 2, expected 0"),
    "log_prob -1": (lambda w: w.chain.log_prob(w.z - 1), "z holds numbers from -1"),
    "log_prob float": (
        lambda w: w.states.log_prob(w.z + 0.5),
        "z is torch.float64, expected torch",
    ),
    "log_prob list": (lambda w: w.states.log_prob(w.z.tolist()), "z is a list"),
    "log_prob number": (lambda w: w.states.log_prob(w.z[0, 0]), r"shape \(\), expected \(..., T\)"),
    "log_prob D": (lambda w: w.vectors.log_prob(w.x), r"expected \(..., T, 2\)"),
    "log_prob int": (lambda w: w.linear.log_prob(w.path.long()), "z is torch.int64"),
    "log_prob inputs": (lambda w: w.driven.log_prob(w.z.T), "but inputs were not given"),
    "log_prob inputs T": (
        lambda w: w.driven.log_prob(w.z.T, w.u),
        r"inputs has shape \(4, 3, 1\), expected \(..., 4, 1\)",
    ),
    "stepper": (lambda w: w.driven.stepper(w.u[0]), r"inputs has shape \(3, 1\), expected \(T, N"),
    "stepper none": (lambda w: w.driven.stepper(), "but inputs were not given"),
    "stepper of chain": (lambda w: w.chain.stepper(w.u), "but inputs were given"),
    "stepper of vectors": (lambda w: w.vectors.stepper(w.u), "but inputs were given"),
    "stepper of linear": (lambda w: w.linear.stepper(w.u), "but inputs were given"),
    "K 0": (lambda w: tr.LSTMTransition(0, 3), "num_states is 0, expected"),
    "K 2.5": (lambda w: tr.LSTMTransition(2.5, 3), "num_states is 2.5, expected"),
    "K True": (lambda w: tr.MarkovTransition(True), "num_states is True, expected"),
    "H -1": (lambda w: tr.LSTMTransition(2, -1), "hidden_size is -1, expected"),
    "input_size -1": (lambda w: tr.LSTMTransition(2, 3, input_size=-1), "input_size is -1"),
    "dropout 2": (lambda w: tr.LSTMTransition(2, 3, dropout=2.0), "dropout is 2.0, expected"),
    "dropout 1": (lambda w: tr.MultiplicativeLSTMTransition(2, 3, dropout=1), "dropout is 1"),
    "dropout of D": (lambda w: tr.GaussianLSTMTransition(2, 3, dropout=-0.1), "dropout is -0.1"),
    "reads": (lambda w: tr.GaussianLSTMTransition(2, 3, reads="steps"), 'reads="steps"'),
    "min_scale": (
        lambda w: tr.GaussianMultiplicativeLSTMTransition(2, 3, min_scale=NAN),
        "min_scale must be positive, found nan",
    ),
    "squash": (lambda w: tr.MultiplicativeLSTMTransition(2, 3, squash="x"), 'squash is "x"'),
    "option": (lambda w: tr.GaussianLSTMTransition(2, 3, speed=1), "unexpected keyword"),
    "cell": (lambda w: tr.RecurrentTransition(2, w.torch), "the cell is a LSTM"),
    "cell dropout": (lambda w: tr.RecurrentTransition(K, w.states.cell, dropout=2), "dropout is 2"),
    "cell size": (lambda w: cells.LSTMCell(0, 3), "input_size is 0, expected"),
    "cell units": (lambda w: cells.IMVTensorLSTM(2, 1.5), "units is 1.5, expected"),
    "given logits": (
        lambda w: tr.MarkovTransition(K, initial=torch.tensor([-1.0, 2.0])),
        "initial has a least entry of -1",
    ),
    "given zeros": (lambda w: tr.MarkovTransition(K, matrix=0 * w.matrix), "add up to 0 to 0"),
    "given list": (lambda w: tr.MarkovTransition(K, initial=[0.5, 0.5]), "initial is a list"),
    "given dtypes": (
        lambda w: tr.MarkovTransition(K, initial=w.initial.float(), matrix=w.matrix),
        "matrix is torch.float64, expected torch.float32",
    ),
    "given dtypes of vectors": (
        lambda w: tr.LinearGaussianTransition(D, matrix=w.matrix, scale=torch.ones(D).float()),
        "scale is torch.float32, expected torch.float64",
    ),
    "path_logits -1": (lambda w: w.chain.path_logits(w.z - 1), "z holds numbers from -1"),
    "index K": (lambda w: enumerated(w).index(w.z.T + 1), "path holds numbers from . to 2"),
    "index T": (lambda w: enumerated(w).index(w.z), r"path has shape \(4, 3\), expected \(..., 4"),
    "given scale": (
        lambda w: tr.LinearGaussianTransition(D, scale=torch.tensor([1.0, -1.0])),
        "scale holds numbers that are not positive",
    ),
    "given A": (lambda w: tr.LinearGaussianTransition(D, matrix=w.x), r"expected \(2, 2\); write"),
}


def rows(call, table, name):
    """Calls with one fault each, and beside each the call without it."""

    def spoiled(changes):
        def run(w):
            return call(w, **{k: v(w) if callable(v) else v for k, v in changes.items()})

        return run

    return [
        pytest.param(spoiled(changes), call, told, id=f"{name}-{fault}")
        for fault, (changes, told) in table.items()
    ]


FAULTS = [
    *rows(sweep, SWEEP, "sweep"),
    *rows(roll, ROLL, "roll_out"),
    *(row for name, call in HMM.items() for row in rows(call, OF_HMM, name)),
    *rows(enumerated, ENUMERATED, "enumerate"),
    *(row for name, call in KALMAN.items() for row in rows(call, OF_KALMAN, name)),
    *rows(path, PATH, "path"),
    *(pytest.param(call, sweep, told, id=name) for name, (call, told) in OTHERS.items()),
]


@pytest.mark.parametrize("call, good, told", FAULTS)
def test_a_fault_is_told_and_changes_nothing(call, good, told):
    w = world()
    for _ in range(2):
        with nothing_changes(modules=w.modules):
            with pytest.raises((ValueError, TypeError), match=told) as caught:
                call(w)
    assert re.search("expected|must|write", str(caught.value))
    good(w)


def test_there_are_enough():
    assert len(FAULTS) >= 60
