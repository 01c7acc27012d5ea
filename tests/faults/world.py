"""A small model that can be spoilt in one place, and every way to infer something about it."""

import copy
import inspect
import warnings
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, SVI
from pyro.optim import Adam

from pyro_ssl import (
    LSTMTransition,
    MarkovEM,
    MeanFieldELBO,
    MeanFieldGuide,
    ParticleFilter,
    ParticleGibbs,
    ParticleGibbsKernel,
    StochasticEM,
    ssl_transition,
)
from pyro_ssl.testing import invariance_test

K, V, T, B, P = 2, 3, 3, 2, 2


def symbols(t, z, w):
    return pyro.sample("x", dist.Categorical(w.phi[z]), obs=w.x[t])


def numbers(t, z, w):
    return pyro.sample("x", dist.Normal(w.loc[z], w.sd), obs=w.x[t])


def sequences(w):
    """The plate and the loop, as in the README."""
    with pyro.plate("sequences", w.size, subsample=w.subsample):
        for t, z in ssl_transition("z", w.transition, w.T, lengths=w.lengths, inputs=w.inputs):
            w.body(t, z, w)


def topics(w):
    """The same with the words' distributions latent."""
    phi = pyro.sample("phi", w.prior())
    with pyro.plate("sequences", w.size):
        for t, z in ssl_transition("z", w.transition, w.T):
            pyro.sample("x", dist.Categorical(w.use(phi, z)), obs=w.x[t])


class World:
    """A model without arguments, that is right but where it was spoilt.

    :param fault: a function that spoils a part of the world; what stands before its ``yield``,
        where it has one, belongs to the right world too.
    """

    def __init__(self, fault):
        parts = SimpleNamespace(
            T=T,
            x=torch.tensor([[0, 1], [2, 0], [1, 2]]),
            phi=torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]),
            loc=torch.tensor([-1.0, 1.0]),
            sd=torch.ones(()),
            size=B,
            subsample=None,
            lengths=None,
            inputs=None,
            transition=LSTMTransition(K, 3),
            bias=0.0,  # of the transition's output layer
            body=symbols,
            run=sequences,
            prior=lambda: dist.Dirichlet(torch.ones(K, V)).to_event(1),
            use=lambda phi, z: phi[z],
            num_runs=0,
        )
        steps = fault(parts) if inspect.isgeneratorfunction(fault) else None
        if steps:
            next(steps)
        self.right, self.wrong = copy.copy(parts), parts
        next(steps, None) if steps else fault(parts)
        self.mend()

    def spoil(self):
        self._use(self.wrong)

    def mend(self):
        self._use(self.right)

    def _use(self, parts):
        self.parts, parts.num_runs = parts, 0
        head = getattr(parts.transition, "head", None)
        if head is not None:
            with torch.no_grad():
                head.bias.fill_(parts.bias)

    def model(self):
        w = self.parts
        w.num_runs += 1
        if isinstance(w.transition, torch.nn.Module):
            pyro.module("transition", w.transition)
        return w.run(w)

    @property
    def modules(self):
        both = (self.right.transition, self.wrong.transition)
        return [module for module in both if isinstance(module, torch.nn.Module)]


def attempt(call):
    """Return the result of a call, and the error that it raised, one of them None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call(), None
        except (Exception, KeyboardInterrupt) as error:
            # A frame that a traceback keeps is not what is tested here.
            return None, error.with_traceback(None)


# ------------------------------------------------------------------------------- what is called

# Of a model: the objects whose state is watched, and a call.


def particle_gibbs(model):
    pg = ParticleGibbs(model, P)
    return [pg], lambda: pg.run(num_samples=2, disable_progbar=True)


def sweep(model):
    pg = ParticleGibbs(model, P)
    return [pg], lambda: pg.sweep(None)


def mcmc(model):
    kernel = ParticleGibbsKernel(model, P)
    return [kernel], lambda: MCMC(kernel, num_samples=2, disable_progbar=True).run()


def em_step(model):
    em = StochasticEM(model, Adam({"lr": 0.01}), P, num_gradient_steps=2)
    return [em], em.step


def warm_start(model):
    em = StochasticEM(model, Adam({"lr": 0.01}), P)
    return [em], lambda: em.warm_start(num_steps=2, transition_steps=2)


def hmm(method):
    def make(model):
        fit = MarkovEM(model)
        return [fit], getattr(fit, method)

    return make


def svi(model):
    guide, optim = MeanFieldGuide(model), Adam({"lr": 0.01})
    return [guide, optim], SVI(model, guide, optim, loss=MeanFieldELBO()).step


def elbo(method):
    def make(model):
        guide, loss = MeanFieldGuide(model), MeanFieldELBO()
        return [guide, loss], lambda: getattr(loss, method)(model, guide)

    return make


def guide(model):
    guide = MeanFieldGuide(model)
    return [guide], guide


def particle_filter(method, **how):
    def make(model):
        score = ParticleFilter(model, P)
        return [score], lambda: getattr(score, method)(**how)

    return make


def invariance(model):
    return [], lambda: invariance_test(model, num_replicates=20)


CALLS = {
    "ParticleGibbs.run": particle_gibbs,
    "ParticleFilter.log_likelihood": particle_filter("log_likelihood"),
    "MarkovEM.step": hmm("step"),
    "MeanFieldELBO.loss_and_grads": elbo("loss_and_grads"),
    "StochasticEM.step": em_step,
    "ParticleFilter.perplexity": particle_filter("perplexity"),
    "MeanFieldGuide": guide,
    "MarkovEM.perplexity": hmm("perplexity"),
    "MCMC": mcmc,
    "ParticleFilter.forecast": particle_filter("forecast", start=1),
    "ParticleGibbs.sweep": sweep,
    "SVI": svi,
    "StochasticEM.warm_start": warm_start,
    "ParticleFilter.log_evidence": particle_filter("log_evidence"),
    "MeanFieldELBO.loss": elbo("loss"),
    "invariance_test": invariance,
    "ParticleFilter.sweep": particle_filter("sweep"),
}
