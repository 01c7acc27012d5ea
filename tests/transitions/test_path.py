"""A whole path as one distribution, over vectors and over states."""

import pyro
import torch
from torch.distributions import constraints

from pyro_ssl.transitions import GaussianLSTMTransition, LSTMTransition, PathDistribution

D, H, T = 2, 4, 5


def test_path_is_one_distribution():
    transition = GaussianLSTMTransition(D, H, input_size=1)
    lengths, inputs = torch.tensor([0, 2, T]), torch.randn(3, T, 1)
    paths = PathDistribution(transition, T, inputs=inputs, lengths=lengths)
    assert paths.batch_shape == (3,) and paths.event_shape == (T, D)
    assert paths.support.event_dim == 2 and paths.support.base_constraint is constraints.real
    z = paths.sample((4,))
    past = torch.arange(T) >= lengths.unsqueeze(-1)
    assert z.shape == (4, 3, T, D) and not z[:, past].any() and z[:, ~past].all()
    each = transition.log_prob(z, inputs.expand(4, -1, -1, -1))
    torch.testing.assert_close(paths.log_prob(z), each.masked_fill(past, 0.0).sum(-1))
    garbage = torch.where(past.unsqueeze(-1), 1e3, z)
    torch.testing.assert_close(paths.log_prob(garbage), paths.log_prob(z))
    wider = paths.expand((4, 3))
    assert wider.batch_shape == (4, 3) and wider.sample().shape == (4, 3, T, D)
    torch.testing.assert_close(wider.log_prob(z[0]), paths.log_prob(z[0]).expand(4, 3))


def test_support_of_discrete_paths_is_what_it_was():
    support = PathDistribution(LSTMTransition(3, H), T).support
    assert support.event_dim == 1 and support.is_discrete
    assert support.check(torch.tensor([0, 1, 2, 0, 1])) and not support.check(torch.full((T,), 3))


def test_path_is_a_pyro_site():
    transition = GaussianLSTMTransition(D, H)

    def model(z=None):
        with pyro.plate("sequences", 3):
            return pyro.sample("z", PathDistribution(transition, T), obs=z)

    z = model()
    trace = pyro.poutine.trace(model).get_trace(z)
    assert z.shape == (3, T, D)
    torch.testing.assert_close(trace.log_prob_sum(), transition.log_prob(z).sum())
