"""The models of series: each fault has its documented result or its error, and changes nothing."""

import numpy as np
import pytest
import torch

from pyro_ssl import IMVLSTM, GaussianSSL
from pyro_ssl.models import GaussianForecast
from tests.faults.models import NAN, B, D, T, fit, goes_on, refit, rows, told_or_right

FORECAST = GaussianForecast(torch.zeros(3, 1, 1, 2), torch.zeros(1, 1, 2), torch.eye(2))

GAUSSIAN = {
    "inference": (fit(inference="svi"), 'inference is "svi", expected one of'),
    "num_particles 0": (fit(num_particles=0), "num_particles is 0"),
    "num_paths 0": (fit(num_paths=0), "num_paths is 0"),
    "num_paths True": (fit(num_paths=True), "num_paths is True"),
    "averaging -1": (fit(averaging=-1.0), "averaging is -1.0"),
    "num_valid_particles 0": (fit(num_valid_particles=0), "num_valid_particles is 0"),
    "(T, E)": (fit(D.s[:, 0]), r"write x\[:, None\] for one series of E sensors, or x\[..., "),
    "(T,)": (fit(D.s[:, 0, 0]), r"write x\[:, None, None\]"),
    "empty B": (fit(D.s[:, :0]), "one of each at least"),
    "empty T": (fit(D.s[:0]), "one of each at least"),
    "one point": (fit(D.s[:1, :1]), "1 steps observed, expected .* 2 at least"),
    "T=1": (fit(D.s[:1]), None),
    "one sensor": (fit(D.s[..., :1]), "and E >= D = 2"),
    "all nan": (fit(D.s * NAN), "0 steps observed"),
    "one nan sensor": (
        fit(torch.cat([D.s, D.s[..., :1] * NAN], -1)),
        r"1 of 3 sensors were never observed; write x\[..., \[0, 1\]\]",
    ),
    "lengths 0": (fit(D.s, [0] * B), "0 steps observed"),
    "lengths short": (fit(D.s, [1]), r"lengths are torch.int64 \(1,\)"),
    "lengths long": (fit(D.s, [9] * B), "lengths run from 9 to 9"),
    "nan padding": (fit(torch.cat([D.s[:3], D.s[3:] * NAN]), [3] * B), None),
    "float64": (fit(D.s.double()), None),
    "integers": (fit((9 * D.s).long()), None),
    "numpy": (fit(D.s.numpy(), mask=np.ones((T, B))), None),
    "list": (fit(D.s.tolist()), None),
    "too coarse": (fit(D.s.double() + 1e9), r"too coarse for it.*write model.double"),
    "mask of 2": (fit(D.s, mask=torch.full((T, B), 2)), "mask holds other numbers than 0"),
    "mask shape": (fit(D.s, mask=torch.ones(T, B, 3)), "mask has shape"),
    "mask by sensor": (fit(D.s, mask=torch.ones(T, B, 2)), None),
    "batch_size 0": (fit(D.s, batch_size=0), "batch_size is 0"),
    "linear_steps 0": (fit(D.s, linear_steps=0), "linear_steps is 0"),
    "inputs": (fit(D.s, inputs=torch.ones(T, B, 1)), "reads 0 inputs, but inputs were given"),
    "filter inputs": (lambda m: m.filter(D.s, inputs=D.s), "reads 0 inputs, but inputs were"),
    "forecast lengths": (lambda m: m.forecast(D.s, 2, [9] * B), "lengths run from 9 to 9"),
    "valid of 4": (fit(valid=(D.s, None, None, None)), "valid is a tuple"),
    "loading shape": (fit(loading=torch.eye(3)), r"loading has shape \(3, 3\), expected"),
    "loading nan": (fit(loading=NAN * torch.eye(2)), "loading has shape .* finite"),
    "loading 0": (fit(loading=torch.zeros(2, 2)), "no latent moves x, as loading is 0"),
    "loading list": (fit(loading=[[1, 0], [0, 1]], offset=[0.0, 1]), None),
    "offset shape": (fit(offset=torch.zeros(3)), r"offset has shape \(3,\)"),
    "valid (T, E)": (fit(valid=(D.s[:, 0], None)), r"fit\(valid=\): x has shape"),
    "valid nan": (fit(valid=(D.s * NAN, None)), "no step was observed"),
    "valid sensors": (fit(valid=(D.s[..., :1], None)), "the sensors of the fit"),
    "filter (T, E)": (lambda m: m.filter(D.s[:, 0]), r"write x\[:, None\]"),
    "filter sensors": (lambda m: m.filter(D.s[..., :1]), r"expected \(T, B, 2\), the sensors"),
    "filter P=0": (lambda m: m.filter(D.s, num_particles=0), "num_particles is 0"),
    "filter P=1": (lambda m: m.filter(D.s, num_particles=1), None),
    "filter T=1": (lambda m: m.filter(D.s[:1]), None),
    "filter all nan": (lambda m: m.filter(D.s * NAN), None),
    "filter empty": (lambda m: m.filter(D.s[:0]), "one of each at least"),
    "score T=1": (lambda m: m.log_likelihood(D.s[:1].numpy()), None),
    "score lengths 0": (lambda m: m.log_likelihood(D.s, [0] * B), None),
    "smooth S=0": (lambda m: m.smooth(D.s, num_samples=0), "num_samples is 0"),
    "smooth chains": (lambda m: m.smooth(D.s, num_chains=0), "num_chains is 0"),
    "smooth (T, E)": (lambda m: m.smooth(D.s[:, 0]), r"write x\[:, None\]"),
    "forecast 0": (lambda m: m.forecast(D.s, 0), "horizon is 0"),
    "forecast 1.5": (lambda m: m.forecast(D.s, 1.5), "horizon is 1.5"),
    "forecast mask": (lambda m: m.forecast(D.s, 2, mask=[1]), "mask has shape"),
    "forecast level": (lambda m: FORECAST.interval(1.5), "found level=1.5"),
    "start (T, E)": (lambda m: m.start(D.s[:, 0]), r"write x\[:, None\]"),
    "dim 0": (lambda m: GaussianSSL(0), "dim is 0"),
    "reads": (lambda m: GaussianSSL(2, reads="steps"), 'reads="steps"'),
    "all 1": (
        lambda m: refit(GaussianSSL(1, hidden_size=1), D.s[..., :1], num_particles=1),
        None,
    ),
}

IMV = {
    "batch_size 0": (fit(batch_size=0), "batch_size is 0"),
    "decay 0": (fit(decay=0.0), "decay is 0.0"),
    "squared_error": (fit(squared_error=-1.0), "squared_error is -1.0"),
    "monitor": (fit(monitor="mae"), 'monitor is "mae"'),
    "no y": (fit(D.x), "found no y"),
    "y short": (fit(D.x, D.y[:3]), r"y has shape \(3, 1\), expected \(9, 1\)"),
    "y nan": (fit(D.x, D.y * NAN), "target that is not finite"),
    "two dims": (fit(D.x[0], D.y), r"x has shape \(6, 2\)"),
    "variables": (fit(D.x[..., :1], D.y), r"expected \(M, T, 2\)"),
    "no step": (fit(D.x[:, :0], D.y), r"x has shape \(9, 0, 2\)"),
    "no window": (fit(D.x[:0], D.y[:0]), "found 0 windows"),
    "one window": (fit(D.x[:1], D.y[:1]), None),
    "T=1": (fit(D.x[:, :1], D.y), None),
    "float64": (fit(D.x.double(), D.y.double()), None),
    "numpy and list": (fit(D.x.numpy(), D.y.tolist(), mask=np.ones((9, T, 2))), None),
    "mask of 2": (fit(D.x, D.y, mask=2 * torch.ones(9, T, 2)), "other numbers than 0 and 1"),
    "mask shape": (fit(D.x, D.y, mask=torch.ones(9, T)), r"mask has shape \(9, 6\)"),
    "valid windows": (fit(valid=(D.x[:0], D.y[:0])), "valid has 0 windows"),
    "valid no y": (fit(valid=(D.x,)), "found no y"),
    "optim class": (fit(optim=torch.optim.SGD), None),
    "optim instance": (fit(optim=torch.optim.AdamW([torch.zeros(1)], lr=0.1)), None),
    "optim word": (fit(optim="adam"), "optim is a str, expected an optimiser"),
    "optim LBFGS": (fit(optim=torch.optim.LBFGS), "optim is a LBFGS"),
    "predict empty": (lambda m: m.predict(D.x[:0]), None),
    "predict dims": (lambda m: m.predict(D.x[0]), r"x has shape \(6, 2\)"),
    "score no y": (lambda m: m.log_likelihood(D.x), "found no y"),
    "score empty": (lambda m: m.log_likelihood(D.x[:0], D.y[:0]), None),
    "importance": (lambda m: m.importance(D.x[:0], D.y[:0]), "found 0 windows"),
    "temporal": (lambda m: m.temporal_importance(D.x[:0]), "found 0 windows"),
    "posterior one": (lambda m: m.posterior(D.x[:1].tolist(), [0.5]), None),
    "quantile": (lambda m: m.predict(D.x).quantile(1.0), "strictly between 0 and 1"),
    "one of all": (lambda m: refit(IMVLSTM(1, 1), D.x[..., :1], D.y), None),
    "importance of one": (lambda m: IMVLSTM(1, 1).importance(D.x[..., :1], D.y), None),
    "units 0": (lambda m: IMVLSTM(2, 0), "units is 0"),
    "num_targets 0": (lambda m: IMVLSTM(2, 2, num_targets=0), "num_targets is 0"),
    "min_scale 0": (lambda m: IMVLSTM(2, 2, min_scale=0.0), "min_scale is 0.0"),
    "cell": (lambda m: IMVLSTM(2, 2, cell="gru"), 'cell is "gru"'),
}


@pytest.mark.parametrize("kind, call, told", rows(GaussianSSL=GAUSSIAN, IMVLSTM=IMV))
def test_a_fault_has_its_error_and_changes_nothing(kind, call, told):
    told_or_right(kind, call, told)


@pytest.mark.parametrize("kind", [GaussianSSL, IMVLSTM])
def test_after_all_errors_the_model_scores_as_before(kind):
    goes_on(kind)
