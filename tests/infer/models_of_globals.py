"""Models whose latent sites outside the loop are of every kind; called without x, they draw it."""

import functools

import pyro
import pyro.distributions as dist
import torch

from pyro_ssl import LSTMTransition, MarkovTransition, ssl_transition

T, B, K, V = 4, 2, 2, 3


@functools.cache
def lstm():
    """A transition far from a uniform one."""
    torch.manual_seed(5)
    transition = LSTMTransition(K, 4).requires_grad_(False)
    for parameter in transition.parameters():
        parameter *= 3
    return transition


def at(x, t):
    return None if x is None else x[t]


def loop(emit, x, transition=None):
    """The loop over sequences; ``emit(z, t)`` is p(x_t | z_t)."""
    with pyro.plate("sequences", B):
        for t, z in ssl_transition("z", transition or lstm(), T):
            pyro.sample("x", emit(z, t), obs=at(x, t))


def gamma_over_dirichlet(x=None):
    strength = pyro.sample("strength", dist.Gamma(3.0, 2.0))
    phi = pyro.sample("phi", dist.Dirichlet(strength * torch.ones(K, V)).to_event(1))
    loop(lambda z, t: dist.Categorical(phi[z]), x)


def normal_mean_and_scale(x=None):
    with pyro.plate("states", K):
        mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    loop(lambda z, t: dist.Normal(mean[z], scale[z]), x)


def poisson_rates(x=None):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0).expand([K]).to_event(1))
    loop(lambda z, t: dist.Poisson(rate[z]), x)


def variances(x=None):
    """Normal given an inverse Gamma: each has a closed form given the other."""
    variance = pyro.sample("variance", dist.InverseGamma(3.0, 2.0).expand([K]).to_event(1))
    mean = pyro.sample("mean", dist.Normal(0.0, (2.0 * variance).sqrt()).to_event(1))
    loop(lambda z, t: dist.Normal(mean[z], variance[z].sqrt()), x)


def student_t(x=None):
    df = pyro.sample("df", dist.Gamma(4.0, 1.0))
    mean = pyro.sample("mean", dist.Normal(torch.tensor([-2.0, 2.0]), 1.0).to_event(1))
    loop(lambda z, t: dist.StudentT(2.0 + df, mean[z], 0.5), x)


def beta_bernoulli(x=None):
    heads = pyro.sample("heads", dist.Beta(2.0, 3.0).expand([K]).to_event(1))
    loop(lambda z, t: dist.Bernoulli(heads[z]), x)


def regression(x=None):
    covariates = torch.linspace(-1.0, 1.0, T * B).reshape(T, B)
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0).expand([K, 2]).to_event(2))

    def emit(z, t):
        return dist.Normal(slope[z][..., 0] + slope[z][..., 1] * covariates[t], 0.5)

    loop(emit, x)


def random_effect(x=None):
    spread = pyro.sample("spread", dist.Gamma(3.0, 3.0))
    mean = torch.tensor([-1.0, 1.0])
    with pyro.plate("sequences", B):
        effect = pyro.sample("effect", dist.Normal(0.0, 1.0))
        for t, z in ssl_transition("z", lstm(), T):
            pyro.sample("x", dist.Normal(mean[z] + spread * effect, 0.5), obs=at(x, t))


def group_plate(x=None):
    mean = torch.tensor([-1.0, 1.0])
    with pyro.plate("groups", 2, dim=-2):
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("sequences", B, dim=-1):
            for t, z in ssl_transition("z", lstm(), T):
                pyro.sample("x", dist.Normal(mean[z] + shift, 0.5), obs=at(x, t))


def markov_rows(x=None):
    rows = pyro.sample("rows", dist.Dirichlet(torch.tensor([[3.0, 1.0], [1.0, 2.0]])).to_event(1))
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0).expand([K]).to_event(1))
    start = torch.full((K,), 1.0 / K)
    loop(lambda z, t: dist.Poisson(rate[z]), x, MarkovTransition(K, initial=start, matrix=rows))


def logistic_rows(x=None):
    """Rows by a logistic-normal prior, which no Dirichlet closes."""
    logits = pyro.sample("logits", dist.Normal(0.0, 1.0).expand([K, K]).to_event(2))
    start = torch.full((K,), 1.0 / K)
    transition = MarkovTransition(K, initial=start, matrix=logits.softmax(-1))
    loop(lambda z, t: dist.Normal(3.0 * z, 1.0), x, transition)


def lstm_head(x=None):
    """A prior on the output layer of an LSTM."""
    weight = pyro.sample("weight", dist.Normal(0.0, 1.0).expand([K, 4]).to_event(2))
    transition = lstm().given({"head.weight": weight})
    loop(lambda z, t: dist.Normal(3.0 * z, 1.0), x, transition)


def finite(x=None):
    """A mixture over models, and one over sequences."""
    shift = pyro.sample("shift", dist.Categorical(torch.tensor([0.5, 0.3, 0.2])))
    mean = torch.tensor([-1.0, 1.0])
    with pyro.plate("sequences", B):
        sign = pyro.sample("sign", dist.Bernoulli(0.3))
        for t, z in ssl_transition("z", lstm(), T):
            pyro.sample("x", dist.Normal(mean[z] * (1 + sign) + shift, 1.0), obs=at(x, t))


def not_conjugate(x=None):
    """A Dirichlet that enters through a mixture with the uniform."""
    phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, V)).to_event(1))
    loop(lambda z, t: dist.Categorical(0.8 * phi[z] + 0.2 / V), x)


def observed_elsewhere(x=None, y=None):
    """A global that is observed outside the loop too."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
    pyro.sample("y", dist.Normal(mean.sum(), 0.5), obs=y)
    loop(lambda z, t: dist.Normal(3 * mean[z], 1.0), x)


def two_chains(x=None):
    """A factorial model: a weight of each chain's state."""
    weight = pyro.sample("weight", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    chains = {"a": lstm(), "b": lstm()}
    with pyro.plate("sequences", B):
        for t, (a, b) in ssl_transition(chains, T):
            pyro.sample("x", dist.Normal(weight[0] * a + weight[1] * b, 0.7), obs=at(x, t))


def semi_supervised(x=None, known=None):
    """Some states are known; topics by a Dirichlet whose strength is latent."""
    strength = pyro.sample("strength", dist.Gamma(3.0, 2.0))
    phi = pyro.sample("phi", dist.Dirichlet(strength * torch.ones(K, V)).to_event(1))
    labels = {} if known is None else {"obs": known, "obs_mask": KNOWN_AT}
    with pyro.plate("sequences", B):
        for t, z in ssl_transition("z", lstm(), T, **labels):
            pyro.sample("x", dist.Categorical(phi[z]), obs=at(x, t))


#: steps and sequences at which the state is known
KNOWN_AT = (torch.arange(T * B).reshape(T, B) % 3) == 0

#: those whose paths are of one chain
MODELS = [
    gamma_over_dirichlet,
    normal_mean_and_scale,
    poisson_rates,
    variances,
    student_t,
    beta_bernoulli,
    regression,
    random_effect,
    group_plate,
    markov_rows,
    logistic_rows,
    lstm_head,
    finite,
    not_conjugate,
    observed_elsewhere,
]
