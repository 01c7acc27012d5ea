"""A call that is refused leaves everything as it was, whichever class is called, at any call."""

import pyro
import pyro.distributions as dist
import pytest
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
from pyro_ssl.errors import EmissionNotLocalError, LatentSiteError
from pyro_ssl.testing import invariance_test
from tests.faults.digest import nothing_changes

K, V, T, B = 3, 4, 3, 2


def make_model(*, wrong=False, drawn=True):
    """Draws, registers a parameter and a module, and then, if ``wrong``, looks at other steps."""
    transition = LSTMTransition(K, 4)

    def model(words, lengths=None):
        pyro.module("transition", transition)
        phi = pyro.param("scale", lambda: torch.rand(K, V) + 1.0)
        if drawn:
            phi = pyro.sample("phi", dist.Dirichlet(phi).to_event(1))
        with pyro.plate("sequences", words.shape[1]):
            for t, z in ssl_transition("z", transition, len(words), lengths=lengths):
                seen = z.roll(1, -2) if wrong else z
                pyro.sample("x", dist.Categorical(phi[seen]), obs=words[t])

    return model


def by_svi(make_loss):
    def call(model, words):
        SVI(model, MeanFieldGuide(model), Adam({"lr": 0.1}), loss=make_loss()).step(words)

    return call


def by_loss(method):
    def call(model, words):
        getattr(MeanFieldELBO(), method)(model, MeanFieldGuide(model), words)

    return call


def started_hmm():
    """An HMM whose model is never run here."""
    start = torch.ones(K) / K, torch.ones(K, K) / K
    return MarkovEM(lambda: None).start_from(*start, phi=torch.eye(K, V) / 2 + 1 / (2 * V))


CALLS = {
    "ParticleGibbs.run": lambda model, words: ParticleGibbs(model, 3).run(words, num_samples=1),
    "ParticleGibbsKernel.setup": lambda model, words: ParticleGibbsKernel(model, 3).setup(0, words),
    "MCMC": lambda model, words: MCMC(ParticleGibbsKernel(model, 3), num_samples=1).run(words),
    "StochasticEM.step": lambda model, words: StochasticEM(model, Adam({})).step(words),
    "StochasticEM.warm_start": lambda model, words: StochasticEM(model, Adam({})).warm_start(
        words, num_steps=2, transition_steps=2
    ),
    "MarkovEM.step": lambda model, words: MarkovEM(model).step(words),
    "MarkovEM.perplexity": lambda model, words: MarkovEM(model).perplexity(words),
    "MarkovEM.log_likelihood": lambda model, words: MarkovEM(model).log_likelihood(words),
    "MarkovEM.for_model": lambda model, words: started_hmm().for_model(model).step(words),
    "MeanFieldGuide": lambda model, words: MeanFieldGuide(model)(words),
    "MeanFieldGuide.marginals": lambda model, words: MeanFieldGuide(model).marginals(words),
    "MeanFieldGuide.start_from": lambda model, words: MeanFieldGuide(model).start_from(
        started_hmm(), words
    ),
    "MeanFieldELBO": by_svi(MeanFieldELBO),
    "MeanFieldELBO.loss": by_loss("loss"),
    "MeanFieldELBO.differentiable_loss": by_loss("differentiable_loss"),
    "MeanFieldELBO.loss_and_grads": by_loss("loss_and_grads"),
    "invariance_test": lambda model, words: invariance_test(model, words, num_replicates=10),
}
#: classes whose models may have no latent site but the path
WITHOUT_LATENTS = {
    "ParticleFilter.log_likelihood": lambda model, words: ParticleFilter(model, 3).log_likelihood(
        words
    ),
    "ParticleFilter.perplexity": lambda model, words: ParticleFilter(model, 3).perplexity(words),
    "ParticleFilter.forecast": lambda model, words: ParticleFilter(model, 3).forecast(
        words, start=1
    ),
    "ParticleGibbs.sweep": lambda model, words: ParticleGibbs(model, 3).sweep(None, words),
}


@pytest.fixture
def words():
    return torch.randint(V, (T, B))


@pytest.mark.parametrize("call", [*CALLS, *WITHOUT_LATENTS])
def test_a_body_that_looks_at_other_steps_is_refused(words, call):
    model = make_model(wrong=True, drawn=call in CALLS)
    with nothing_changes(), pytest.raises(EmissionNotLocalError, match='Site "x": log p'):
        (CALLS | WITHOUT_LATENTS)[call](model, words)


@pytest.mark.stage("system")
@pytest.mark.parametrize("call", [*CALLS, *WITHOUT_LATENTS])
def test_the_same_call_is_taken_where_the_body_is_right(words, call):
    """Else the test above would hold for another reason."""
    (CALLS | WITHOUT_LATENTS)[call](make_model(drawn=call in CALLS), words)


# --------------------------------------------------------------------------- under Pyro's own MCMC


def test_mcmc_checks_what_run_checks(words):
    def countable(words):
        shift = pyro.sample("shift", dist.Poisson(3.0))
        with pyro.plate("sequences", words.shape[1]):
            for t, z in ssl_transition("z", LSTMTransition(K, 4), len(words)):
                pyro.sample("x", dist.Poisson(1.0 + z + shift), obs=words[t])

    too_long = torch.tensor([1, T + 1])
    cases = [
        (countable, (words,), LatentSiteError, 'Site "shift"'),
        (make_model(), (words, too_long), ValueError, "lengths"),
    ]
    for model, args, error, match in cases:
        with nothing_changes(), pytest.raises(error, match=match):
            ParticleGibbs(model, 3).run(*args, num_samples=1, disable_progbar=True)
        mcmc = MCMC(ParticleGibbsKernel(model, 3), num_samples=1, disable_progbar=True)
        with nothing_changes(), pytest.raises(error, match=match):
            mcmc.run(*args)


def test_a_kernel_made_without_validation_checks_nothing(words):
    with pyro.validation_enabled(False):
        kernel = ParticleGibbsKernel(make_model(wrong=True), 3)
    kernel.setup(0, words)
    assert torch.distributions.Distribution._validate_args  # as it was


# ------------------------------------------------------------------------------------- second calls


def test_half_precision_is_refused_at_any_call(words):
    width = torch.float64

    def model(words):
        phi = torch.ones(K, V).to(width) / V
        with pyro.plate("sequences", words.shape[1]):
            for t, z in ssl_transition("z", LSTMTransition(K, 4), len(words)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=words[t])

    hmm, guide, elbo = MarkovEM(model), MeanFieldGuide(model), MeanFieldELBO()
    calls = {
        "step": lambda: hmm.step(words),
        "log_likelihood": lambda: hmm.log_likelihood(words),
        "marginals": lambda: guide.marginals(words),
        "loss": lambda: elbo.loss(model, guide, words),
    }
    for call in calls.values():
        call()
    width = torch.bfloat16
    for call in calls.values():
        with nothing_changes(), pytest.raises(ValueError, match="bfloat16, expected float32"):
            call()


def test_a_fit_checks_another_model_before_it_is_used_for_that(words):
    hmm = MarkovEM(make_model())
    hmm.step(words)
    other = hmm.for_model(make_model(wrong=True))
    for call in (other.step, other.perplexity):
        with nothing_changes(), pytest.raises(EmissionNotLocalError, match='Site "x": log p'):
            call(words)


def test_a_perplexity_of_nothing_draws_nothing(words):
    model = make_model(drawn=False)
    score = ParticleFilter(model, 3)
    score.log_likelihood(words)
    hmm = started_hmm().for_model(make_model())
    for ask in (score.perplexity, hmm.perplexity):
        with nothing_changes(), pytest.raises(ValueError, match=f"expected 0 to T - 1 = {T - 1}"):
            ask(words, start=T)


def test_a_guide_that_cannot_start_from_an_hmm_keeps_its_estimates(words):
    guide = MeanFieldGuide(make_model())
    guide(words)
    before = guide.values["phi"].clone()
    even = torch.ones(2) / 2, torch.ones(2, 2) / 2
    other = MarkovEM(make_model()).start_from(*even, phi=torch.ones(2, V) / V)
    with nothing_changes(), pytest.raises(ValueError, match=r'"phi": .* \(2, 4\), expected \(3, 4'):
        guide.start_from(other, words)
    assert torch.equal(guide.values["phi"], before) and not guide.counts
