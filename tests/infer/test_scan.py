"""Paths that are not drawn together: each is swept given the others, and the joint is exact.

Statistical tests ask for p > 1e-6 of six chi-squares: no false alarm in 100,000 seeds.
"""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.optim import Adam

from pyro_ssl import (
    GaussianLSTMTransition,
    LSTMTransition,
    MarkovEM,
    MarkovTransition,
    ParticleFilter,
    ParticleGibbs,
    StochasticEM,
    loop,
    ssl_transition,
)
from pyro_ssl.errors import EmissionNotLocalError, LatentSiteError
from pyro_ssl.infer.free import Conditional
from pyro_ssl.reading.emission import read_emission
from pyro_ssl.reading.program import Program
from tests.enumeration import all_paths, repeated
from tests.faults.digest import nothing_changes
from tests.statistics import ALPHA, chi_square, p_value

T, K = 3, 2


@pytest.fixture
def chains():
    return make_chains()


def make_chains():
    made = {"z": LSTMTransition(K, 4), "w": MarkovTransition(K)}
    for transition in made.values():
        for parameter in transition.parameters():
            parameter.data.normal_()
    return made


def side_by_side(chains):
    def model(x, y=None):
        with pyro.plate("series", x.shape[1]):
            for t, (z, w) in ssl_transition(chains, len(x)):
                pyro.sample("x", dist.Normal(2.0 * (z - w), 1.0), obs=x[t])

    return model


def apart(chains):
    """The second loop reads nothing of the first."""

    def model(x, y):
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", chains["z"], len(x)):
                pyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=x[t])
            for t, w in ssl_transition("w", chains["w"], len(y)):
                pyro.sample("y", dist.Normal(-2.0 * w, 1.0), obs=y[t])

    return model


def reading(chains):
    """The second loop reads the path of the first one."""

    def model(x, y):
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", chains["z"], len(x)):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[t])
            for t, w in ssl_transition("w", chains["w"], len(y)):
                pyro.sample("y", dist.Normal(2.0 * (z - w), 1.0), obs=y[t])
                pyro.sample("of w alone", dist.Normal(w, 1.0), obs=x[t])

    return model


def few_tuples(monkeypatch):
    monkeypatch.setattr(loop, "MAX_TUPLES", 3)


@pytest.mark.stage("statistical")
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("make", [side_by_side, apart, reading], ids=lambda make: make.__name__)
def test_one_scan_keeps_the_exact_joint_posterior(make, chains, seed, monkeypatch, R=40_000):
    few_tuples(monkeypatch)
    pyro.set_rng_seed(seed)
    model, data = make(chains), (torch.randn(T), torch.randn(T))
    exact = all_paths(model, {"z": K, "w": K}, *data)
    start = exact.draw(R)
    sampler = ParticleGibbs(model, 2, ancestor_sampling=1, twist=None)
    sampler.run(
        *(repeated(x, R) for x in data), num_samples=1, initial_params=start, disable_progbar=True
    )
    paths = {name: z[0] for name, z in sampler.get_samples().items()}
    assert p_value([chi_square(exact.counts(paths), exact.posterior)]) > ALPHA
    other = exact.draw(R)
    for name in paths:
        moved, apart = ((z[name] != start[name]).double().mean() for z in (paths, other))
        assert moved > 0.3 * apart


@pytest.mark.parametrize("make", [side_by_side, apart, reading], ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", ["z", "w"])
def test_what_a_block_sees_is_the_joint(make, chains, name, verify=True):
    """log p of its path given the other, but for a constant: by Pyro's own trace."""
    model, data = make(chains), (torch.randn(T), torch.randn(T))
    exact = all_paths(model, {"z": K, "w": K}, *data)
    args = tuple(repeated(x, len(exact.log_joint)) for x in data)
    (other,) = {"z", "w"} - {name}
    run = Program(model, args, paths={other: exact.paths[other]}).run()
    read_emission(run, verify=verify)
    path = run.flatten(exact.paths[name])
    with torch.no_grad():
        gap = exact.log_joint - run.log_transition(path) - run.log_emission(path)
        assert run.log_joint(path).item() == pytest.approx(exact.log_joint.sum().item())
    for value in exact.paths[other].unique(dim=0):
        among = gap[(exact.paths[other] == value).all(-1)]
        torch.testing.assert_close(among, among[:1].expand_as(among))


@pytest.mark.parametrize("num_chains", [1, 2])
@pytest.mark.parametrize("make", [side_by_side, apart, reading], ids=lambda make: make.__name__)
def test_results_are_by_site(make, chains, num_chains, monkeypatch):
    few_tuples(monkeypatch)
    sampler, data = ParticleGibbs(make(chains), 3), (torch.randn(T, 4), torch.randn(T, 4))
    run = {"num_chains": num_chains, "warmup_steps": 2, "disable_progbar": True}
    sampler.run(*data, num_samples=3, **run)
    draws = sampler.get_samples(group_by_chain=True)
    shape = (num_chains, 3, 4, T)
    assert {n: z.shape for n, z in draws.items()} == dict.fromkeys(["z", "w"], shape)
    assert sampler.diagnostics().keys() == {"z", "w"}
    sampler.summary()


def test_sites_outside_the_loops_are_drawn(chains, monkeypatch):
    """Rows that both loops look up: their counts are those of both."""

    def model(x, y):
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, 4)).to_event(1))
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", chains["z"], len(x)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])
        with pyro.plate("others", y.shape[1]):
            for t, w in ssl_transition("w", chains["w"], len(y)):
                pyro.sample("y", dist.Categorical(phi[w]), obs=y[t])

    x, y = torch.randint(4, (T, 3)), torch.randint(4, (5, 2))
    sampler = ParticleGibbs(model, 3)
    sampler.run(x, y, num_samples=2, num_chains=2, disable_progbar=True)
    draws = sampler.get_samples()
    assert draws["w"].shape == (4, 2, 5) and draws["phi"].shape == (4, K, 4)
    kernel = sampler.kernel.kernels[0]
    z, w = draws["z"][0], draws["w"][0]
    run = Program(model, (x, y), paths={"w": w}).run({"phi": draws["phi"][0]})
    found = kernel._update._counts(run, run.flatten(z))["phi"]
    expected = torch.zeros(K, 4)
    for path, words in ((z.T, x), (w.T, y)):
        expected.index_put_((path, words), torch.ones(()), accumulate=True)
    torch.testing.assert_close(found, expected)


def test_a_continuous_site_sees_both_loops(chains):
    """Given the paths its potential is the log-joint of all, whichever block is drawn."""

    def model(x, y):
        gap = pyro.sample("gap", dist.Normal(0.0, 2.0))
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", chains["z"], len(x)):
                pyro.sample("x", dist.Normal(gap * z, 1.0), obs=x[t])
            for t, w in ssl_transition("w", chains["w"], len(y)):
                pyro.sample("y", dist.Normal(-gap * w, 1.0), obs=y[t])

    data = torch.randn(T, 4), torch.randn(T, 4)
    sampler = ParticleGibbs(model, 3)
    sampler.run(*data, num_samples=3, num_chains=2, warmup_steps=3, disable_progbar=True)
    draws = sampler.get_samples()
    assert draws["gap"].shape == (6,) and len(draws["gap"].unique()) > 1
    values = {name: value[0] for name, value in draws.items()}
    log_p = []
    for gap in (values["gap"], values["gap"] + 1.0):
        now = {**values, "gap": gap}
        trace = poutine.trace(pyro.condition(model, now)).get_trace(*data)
        log_p.append(trace.log_prob_sum())
        for name, other in (("z", "w"), ("w", "z")):
            run = Program(model, data, paths={other: now[other]}).run({"gap": gap})
            target = Conditional(run, run.flatten(now[name]), {}, reach_transition=True)
            assert target.log_prob({"gap": gap}).item() == pytest.approx(log_p[-1].item())
    assert log_p[0] != log_p[1]


def test_labels_are_kept_by_every_block(chains):
    labels, seen = torch.randint(K, (T, 4)), torch.rand(T, 4) < 0.5

    def model(x):
        with pyro.plate("series", x.shape[1]):
            for name in ("z", "w"):
                steps = ssl_transition(name, chains[name], len(x), obs=labels, obs_mask=seen)
                for t, z in steps:
                    pyro.sample("x" + name, dist.Normal(z, 1.0), obs=x[t])

    sampler = ParticleGibbs(model, 3)
    sampler.run(torch.randn(T, 4), num_samples=3, disable_progbar=True)
    for path in sampler.get_samples().values():
        assert (path.transpose(1, 2)[:, seen] == labels[seen]).all()


# --------------------------------------------------------------------------------- stochastic EM


@pytest.mark.parametrize("make", [side_by_side, apart, reading], ids=lambda make: make.__name__)
def test_em_steps_each_in_turn(make, chains, monkeypatch):
    few_tuples(monkeypatch)
    body, data = make(chains), (torch.randn(T, 4), torch.randn(T, 4))

    def model(x, y):
        for name, transition in chains.items():
            pyro.module(name, transition)
        body(x, y)

    em = StochasticEM(model, Adam({"lr": 0.005}), 3)
    before = {name: [p.clone() for p in c.parameters()] for name, c in chains.items()}
    em.step(*data)
    em.step(*data)
    last = {name: copy.deepcopy(c.state_dict()) for name, c in chains.items()}
    loss, paths = em.step(*data), em.paths
    assert {name: z.shape for name, z in paths.items()} == {"z": (4, T), "w": (4, T)}
    assert em.change_rate == em.change_rate
    for name, transition in chains.items():  # both learn, whichever block comes last
        after = transition.parameters()
        assert not any(torch.equal(p, q) for p, q in zip(before[name], after, strict=True))
    for name, transition in chains.items():
        transition.load_state_dict(last[name])
    trace = poutine.trace(pyro.condition(model, paths)).get_trace(*data)
    # Of all, when the last one to learn began: the others had taken their step.
    assert loss == pytest.approx(-trace.log_prob_sum().item(), abs=0.5)
    em.step(*(x[:, :2] for x in data))  # other data
    assert em.paths["z"].shape == (2, T)


def test_em_counts_all_look_ups(chains):
    """Rows that both loops look up, at the paths that were drawn last."""

    def model(x, y):
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(K, 4)).to_event(1))
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", chains["z"], len(x)):
                pyro.sample("x", dist.Categorical(phi[z]), obs=x[t])
        with pyro.plate("others", y.shape[1]):
            for t, w in ssl_transition("w", chains["w"], len(y)):
                pyro.sample("y", dist.Categorical(phi[w]), obs=y[t])

    for transition in chains.values():
        transition.requires_grad_(False)
    x, y = torch.randint(4, (T, 3)), torch.randint(4, (5, 2))
    em = StochasticEM(model, Adam({"lr": 0.05}), 3)
    for _ in range(2):
        em.step(x, y)
    expected = torch.zeros(K, 4)
    for path, words in ((em.paths["z"].T, x), (em.paths["w"].T, y)):
        expected.index_put_((path, words), torch.ones(()), accumulate=True)
    torch.testing.assert_close(em.counts["phi"], expected)


class FailsLater(torch.optim.SGD):
    """Makes the steps of the first block, and then none."""

    num_calls = 0

    def step(self, closure=None):
        type(self).num_calls += 1
        if type(self).num_calls > 6:
            raise ArithmeticError("no further")
        super().step(closure)


def test_a_step_is_made_whole_or_not_at_all(chains):
    """The second block's gradient step fails: what the first one did is undone."""
    body = apart(chains)

    def model(x, y):
        for name, transition in chains.items():
            pyro.module(name, transition)
        body(x, y)

    data = torch.randn(T, 4), torch.randn(T, 4)
    em = StochasticEM(model, pyro.optim.PyroOptim(FailsLater, {"lr": 0.05}), 3)
    FailsLater.num_calls = -100
    em.step(*data)
    calls = FailsLater.num_calls + 100
    for allowed in (calls // 2, calls - 1):  # in either block
        FailsLater.num_calls = 6 - allowed
        with nothing_changes(modules=chains.values(), objects=[em]):
            with pytest.raises(ArithmeticError):
                em.step(*data)
    FailsLater.num_calls = -100
    em.step(*data)


def test_em_takes_no_minibatches_of_several(chains):
    def model(x, y):
        with pyro.plate("series", 8, subsample_size=x.shape[1]):
            for name, data in (("z", x), ("w", y)):
                for t, z in ssl_transition(name, chains[name], len(x)):
                    pyro.sample(name + "x", dist.Normal(1.0 * z, 1.0), obs=data[t])

    with pytest.raises(ValueError, match='Site "z": its plate "series" is subsampled, .*write'):
        StochasticEM(model, Adam({"lr": 0.1}), 3).step(torch.randn(T, 4), torch.randn(T, 4))


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("make", [side_by_side, apart], ids=lambda make: make.__name__)
def test_all_else_takes_one_with_the_others_given(make, chains, monkeypatch):
    few_tuples(monkeypatch)
    model, data = make(chains), (torch.randn(T, 4), torch.randn(T, 4))
    for call in (
        ParticleFilter(model, 3).log_evidence,
        MarkovEM(model).step,
        lambda *data: ParticleGibbs(model, 3).sweep(None, *data),
    ):
        with pytest.raises(LatentSiteError, match=r'Site "w": .*expected .*condition\(model, {"w"'):
            call(*data)
    given = pyro.condition(model, {"w": torch.randint(K, (4, T))})
    assert ParticleFilter(given, 3).log_evidence(*data).shape == (4,)


def test_a_later_loop_must_read_elementwise(chains):
    def model(x):
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", chains["z"], len(x)):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[t])
            before = z.roll(1, -2)
            for t, w in ssl_transition("w", chains["w"], len(x)):
                pyro.sample("y", dist.Normal(2.0 * (before - w), 1.0), obs=x[t])

    with pytest.raises(EmissionNotLocalError, match='Site "x": .*without roll'):
        ParticleGibbs(model, 3).run(torch.randn(T, 4), num_samples=1, disable_progbar=True)


@pytest.mark.parametrize("how", ["labelled", "unseen"])
def test_a_later_loop_may_read_a_path_that_is_labelled_or_seen_there_alone(chains, how):
    """-inf where a label says so, or nothing at all in the first body, is still a table."""
    label = {"obs": torch.tensor([[0], [1], [0]]), "obs_mask": torch.tensor([[0], [1], [1]]) > 0}

    def model(y):
        seen = {name: value.expand(T, y.shape[1]) for name, value in label.items()}
        with pyro.plate("series", y.shape[1]):
            loop = ssl_transition("z", chains["z"], T, **(seen if how == "labelled" else {}))
            for t, z in loop:  # noqa: B007
                if how == "labelled":
                    pyro.sample("x", dist.Normal(z, 1.0), obs=y[t])
            for t, w in ssl_transition("w", chains["w"], T):
                pyro.sample("y", dist.Normal(2.0 * (z - w), 1.0), obs=y[t])

    y = torch.randn(T)
    exact = all_paths(model, {"z": K, "w": K}, y)
    at = (exact.paths["w"] == torch.tensor([1, 0, 1])).all(-1) & exact.log_joint.isfinite()
    z, w = (exact.paths[name][at] for name in ("z", "w"))
    run = Program(model, (repeated(y, len(z)),), paths={"w": w}).run()
    read_emission(run, verify=True)
    path = run.flatten(z)
    gap = exact.log_joint[at] - run.log_transition(path) - run.log_emission(path)
    torch.testing.assert_close(gap, gap[:1].expand_as(gap))
    sampler = ParticleGibbs(model, 3)
    sampler.run(repeated(y, 2), num_samples=2, disable_progbar=True)
    assert how == "unseen" or (sampler.get_samples()["z"][..., 1:] == torch.tensor([1, 0])).all()


def test_a_body_must_still_be_local_beside_another_loop(chains):
    """The weaker check is for bodies that read another path alone."""

    def model(x):
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", chains["z"], len(x)):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[t])
            for t, w in ssl_transition("w", chains["w"], len(x)):
                centred = x[t] - x[t].mean(0)
                pyro.sample("y", dist.Normal(w, 1.0), obs=centred)

    with pytest.raises(EmissionNotLocalError, match='Site "y": .*centres'):
        ParticleGibbs(model, 3).run(torch.randn(T, 4), num_samples=1, disable_progbar=True)


def test_a_later_loop_of_another_length_cannot_read(chains):
    def model(x):
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", chains["z"], len(x)):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[t])
            for _, w in ssl_transition("w", chains["w"], 1):
                pyro.sample("y", dist.Normal(2.0 * (z - w), 1.0), obs=x[:1])

    given = pyro.condition(model, {"w": torch.zeros(4, 1, dtype=torch.long)})
    with pytest.raises(EmissionNotLocalError, match='Site "y": in the loop of "w", .*same steps'):
        ParticleFilter(given, 3).log_evidence(torch.randn(T, 4))


def test_vectors_and_states_in_turn():
    """A loop over vectors, of which a later one over states observes a linear function."""
    track, regime = GaussianLSTMTransition(2, 4), MarkovTransition(K)

    def model(x, y):
        with pyro.plate("series", x.shape[1]):
            for t, z in ssl_transition("z", track, len(x)):
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[t])
            for t, w in ssl_transition("w", regime, len(x)):
                pyro.sample("y", dist.Normal(z[..., 0] + w, 1.0), obs=y[t])

    x, y = torch.randn(T, 4, 2), torch.randn(T, 4)
    sampler = ParticleGibbs(model, 3)
    sampler.run(x, y, num_samples=2, disable_progbar=True)
    assert sampler.get_samples()["z"].shape == (2, 4, T, 2)
    z, w = sampler.get_samples()["z"][0], sampler.get_samples()["w"][0]
    run = Program(model, (x, y), paths={"w": w}).run()
    trace = poutine.trace(pyro.condition(model, {"z": z, "w": w})).get_trace(x, y)
    found = run.log_joint(run.flatten(z)).item()
    assert found == pytest.approx(trace.log_prob_sum().item())
