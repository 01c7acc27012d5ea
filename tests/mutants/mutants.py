"""Wrong samplers that look right, each with the check that must notice it.

``EQUIVALENT`` lists changes that leave the distribution of the sampler as it is, with the reason;
all checks of their suite must pass on them.
"""

import copy

import torch

from pyro_ssl import LSTMTransition, ParticleGibbsKernel, StochasticEM
from pyro_ssl.infer import conjugate, dirichlet, inner, path_memory
from pyro_ssl.infer.dirichlet import DirichletSite, normalised
from pyro_ssl.infer.free import Conditional, FreeSite
from pyro_ssl.infer.globals import GlobalSites
from pyro_ssl.infer.globals_update import GlobalsUpdate
from pyro_ssl.infer.inner import _GradientBlock
from pyro_ssl.infer.scan import ScanKernel
from pyro_ssl.infer.scan_em import ScansPaths
from pyro_ssl.loop import Chain, SSLLoop
from pyro_ssl.reading import paths, reader
from pyro_ssl.reading.asks import BodyAsks
from pyro_ssl.reading.handlers import StateGrid
from pyro_ssl.reading.program import Program
from pyro_ssl.reading.reader import LaterReader
from pyro_ssl.reading.site import EmissionSite
from pyro_ssl.smc import TableEmission, ancestors, expanded, gaussian, resampling, sweep
from pyro_ssl.smc.ancestors import ReferencePath
from pyro_ssl.smc.discrete import StatesProposal
from pyro_ssl.smc.expanded import ExpandedProposal
from pyro_ssl.smc.future import Future
from pyro_ssl.smc.product import _Unrolled
from pyro_ssl.smc.resampling import RESAMPLING, first_above, invert_cdf
from pyro_ssl.smc.sweep import conditional_smc
from pyro_ssl.smc.twist import TwistedProposal
from pyro_ssl.transitions import product
from tests.mutants.inject import Mutant, edit, replace

MUTANTS: list[Mutant] = []
EQUIVALENT: list[Mutant] = []


def mutant(suite, check, name, *seams):
    """Register the wrong function that follows.

    :param seams: ``(owner, name)`` of all that it takes the place of, and gets as first argument.
    """

    def register(wrong):
        changes = tuple(replace(owner, attribute, wrong) for owner, attribute in seams)
        MUTANTS.append(Mutant(name, suite, check, changes))
        return wrong

    return register


def edited(suite, check, name, function, old_and_new, kind=MUTANTS):
    """Register an edit of one function, where there is no seam."""
    kind.append(Mutant(name, suite, check, (edit(function, *old_and_new),)))


SWEEP = sweep._sweep
ANCESTOR = ReferencePath.ancestor
LOOK_AHEAD = (StatesProposal, "look_ahead")
FINAL_SLOT = (sweep, "_final_slot")
SCORE, NEAR = (Future, "_score"), (ReferencePath, "_log_prior")
SCHEMES = ((RESAMPLING, "systematic"), (RESAMPLING, "multinomial"))


def but(value, **changed):
    """A shallow copy with other attributes."""
    twin = copy.copy(value)
    vars(twin).update(changed)
    return twin


# --------------------------------------------------------------------- the reference, and slots


@mutant("states", "kernel", "ancestor of the reference not pinned", (ReferencePath, "ancestor"))
def _(right, self, *args):
    found = right(self, *args)
    return found if isinstance(found, torch.Tensor) else None


edited(
    *("states", "kernel", "latent of the reference not pinned", SWEEP),
    ("z_t[:, 0].copy_(reference.steps[t])", "pass"),
)


@mutant("states", "record", "state not gathered", (sweep, "map_state"))
def _(right, function, state):
    return state


@mutant("vectors", "record, increments", "state gathered at its top alone", (sweep, "map_state"))
def _(right, function, state):
    return type(state)(*(v if isinstance(v, tuple) else function(v) for v in state))


edited(
    *("states", "record", "states gathered across sequences", SWEEP),
    ("rows = (first_rows + a)", "rows = (0 * first_rows + a)"),
)


@mutant(
    *("states", "kernel", "latent drawn by the slot, not by its ancestor"), (StatesProposal, "draw")
)
def _(right, self, t, gamma, rows):
    return right(self, t, gamma, torch.arange(len(rows)))


edited(
    *("states", "kernel", "one uniform for ancestor and latent", SWEEP),
    (
        "z_t.copy_(proposal.draw(t, ahead.gamma, rows))",
        "proposal.u_z[t].copy_(u_t.view(-1, 1)); z_t.copy_(proposal.draw(t, ahead.gamma, rows))",
    ),
)


# ------------------------------------------------------------------------------- the final path


@mutant("states", "kernel", "returns the reference", FINAL_SLOT)
def _(right, weights, shape, move, device):
    return torch.zeros(shape[0], dtype=torch.long)


@mutant("states", "kernel", "no trace-back", (sweep, "_trace_back"))
def _(right, z, ancestors, slot):
    return z[:, torch.arange(len(slot)), slot]


@mutant("states", "kernel", "trace-back one step early", (sweep, "_trace_back"))
def _(right, z, ancestors, slot):
    return right(z, ancestors, ancestors[-1, torch.arange(len(slot)), slot])


@mutant("states", "kernel, free move", "forced move always", FINAL_SLOT)
def _(right, weights, shape, move, device):
    return right(weights, shape, shape[1] > 1, device)


@mutant("states", "kernel", "forced move never", FINAL_SLOT)
def _(right, weights, shape, move, device):
    return right(weights, shape, False, device)


edited(
    *("states", "kernel", "final slot by the last look-ahead weights", SWEEP),
    ("chosen_by, weights, by_step)", "chosen_by, alpha.nan_to_num(1.0) + 1e-9, by_step)"),
)


# ------------------------------------------------------------------------------------- the twist

LOG_WEIGHT = (TwistedProposal, "log_weight")


@mutant("states", "kernel, twisted", "twist: never taken back", LOG_WEIGHT)
def _(right, self, t, gamma, rows, z):
    return self.proposal.log_weight(t, gamma, rows, z)


@mutant("states", "kernel, twisted", "twist: taken back twice", LOG_WEIGHT)
def _(right, self, t, gamma, rows, z):
    log_w = yield from right(self, t, gamma, rows, z)
    return 2.0 * log_w


@mutant("states", "kernel, twisted", "twist: that of the step before", LOG_WEIGHT)
def _(right, self, t, gamma, rows, z):
    return right(self, max(t - 1, 0), gamma, rows, z)


@mutant("states", "kernel, twisted", "twist: last step taken for 1", FINAL_SLOT)
def _(right, weights, *args):
    return right(None, *args)


@mutant("states", "kernel, twisted", "twist: reference's own weight left out", LOG_WEIGHT)
def _(right, self, t, gamma, rows, z):
    log_w = yield from right(self, t, gamma, rows, z)
    return torch.cat([torch.zeros_like(log_w[:, :1]), log_w[:, 1:]], 1)


@mutant("states", "kernel, twisted", "twist: it knows the reference", LOG_WEIGHT)
def _(right, self, t, gamma, rows, z):
    log_w = yield from right(self, t, gamma, rows, z)
    return log_w + (z == z[:, :1]).to(log_w.dtype)


edited(
    *("states", "kernel, twisted, Gibbs", "twist: forgotten in ancestor sampling", ANCESTOR),
    ("weight = weight * weights", "pass"),
)


# ---------------------------------------------------------------------------------- the weights


@mutant("states", "kernel", "prior left out", LOOK_AHEAD)
def _(right, self, t, prior):
    return right(self, t, 0 * prior)


@mutant("states", "kernel", "emission left out", LOOK_AHEAD)
def _(right, self, t, prior):
    flat = torch.zeros_like(self.log_emission)
    return right(but(self, log_emission=flat, emission=flat.exp().unsqueeze(2)), t, prior)


@mutant("states", "kernel", "proposal from the prior, weights as they were", LOOK_AHEAD)
def _(right, self, t, prior):
    found = yield from right(self, t, prior)
    return found._replace(gamma=prior.exp().cumsum(-1).flatten(0, 1))


@mutant("states", "kernel", "weights to the power .9", *SCHEMES)
def _(right, weights, first, u):
    return right(weights**0.9, first, u)


@mutant("states", "kernel", "no weights at all", *SCHEMES)
def _(right, weights, first, u):
    return right(weights**0, first, u)


@mutant("states", "edges", "1e-6 added to the weights", LOOK_AHEAD)
def _(right, self, t, prior):
    found = yield from right(self, t, prior)
    return found._replace(alpha=found.alpha + 1e-6)


@mutant("states", "edges", "weights in float16", LOOK_AHEAD)
def _(right, self, t, prior):
    found = yield from right(self, t, prior)
    return found._replace(alpha=found.alpha.half().double())


@mutant("states", "kernel", "weights of each particle shifted by its own", LOOK_AHEAD)
def _(right, self, t, prior):
    own = (prior.log_softmax(-1) + self.log_emission[t].unsqueeze(1)).amax(-1)
    found = yield from right(self, t, prior)
    return found._replace(alpha=found.alpha * (found.shift.unsqueeze(-1) - own).exp())


edited(
    *("states", "record", "evidence by the sum", SWEEP),
    ("alpha.mean(-1).log_()", "alpha.sum(-1).log_()"),
)


@mutant("states", "record", "shift not added back", LOOK_AHEAD)
def _(right, self, t, prior):
    found = yield from right(self, t, prior)
    return found._replace(shift=0 * found.shift)


edited(
    *("states", "edges", "dead particles are NaN", StatesProposal._in_logarithms),
    (".clamp_(min=torch.finfo(prior.dtype).min)", ""),
)


edited(
    *("states", "underflow", "underflow taken for weight zero", StatesProposal.look_ahead),
    ("if self.may_underflow[t]:", "if False:"),
)
edited(
    *("states", "underflow", "underflow looked for where all is well", StatesProposal.__init__),
    ("(~(least > ", "((least > "),
)


@mutant("states", "kernel, padded", "scale left out of the weights", LOOK_AHEAD)
def _(right, self, t, prior):
    return right(but(self, scale=None), t, prior)


# -------------------------------------------------------------------------------- ragged, inputs

edited(
    *("states", "kernel, padded", "no freeze at the length", SWEEP),
    ("torch.where(active[t], a, slots)", "a"),
)
edited(
    *("states", "edges", "path not 0 past the length", conditional_smc),
    ("path.masked_fill_(", "path.masked_fill("),
)
edited(
    *("states", "edges", "evidence past the length", conditional_smc),
    ("log_likelihood.masked_fill_(", "log_likelihood.masked_fill("),
)
edited(
    *("states", "record", "inputs of another sequence", sweep._stepper),
    ("repeat_interleave(P, 1)", "repeat(1, P, 1)"),
)


# ----------------------------------------------------------------------------- ancestor sampling

edited(
    *("states", "kernel, Gibbs", "ancestor sampling: uniform", ANCESTOR),
    ("weight = (near - near.amax(-1, keepdim=True)).exp_()", "weight = torch.ones_like(near)"),
)
edited(
    *("states", "kernel, Gibbs", "ancestor sampling: times the look-ahead weight", SWEEP),
    ("(t, state, prior, weights)", "(t, state, prior, alpha)"),
)
edited(
    *("states", "kernel, Gibbs", "ancestor sampling: over the look-ahead weight", SWEEP),
    ("(t, state, prior, weights)", "(t, state, prior, 1 / alpha)"),
)


@mutant(
    *("states", "kernel, Gibbs", "ancestor sampling: drawn after the other slots"),
    (RESAMPLING, "systematic"),
)
def _(right, weights, first, u):
    found = right(weights, None if first is None else 0, u)
    if first is not None:
        found[:, 0] = first
    return found


edited(
    *("states", "kernel, lag", "ancestor sampling: future cut", ANCESTOR),
    ("if middle == T:", "if True:"),
)
edited(
    *("states", "kernel, lag", "ancestor sampling: last step of the future left out", ANCESTOR),
    ("far.sum(0) - own.sum(0)", "far[:-1].sum(0) - own[:-1].sum(0)"),
)


@mutant(
    *("states", "kernel, lag", "ancestor sampling: reference one step late"),
    (LSTMTransition, "replay"),
)
def _(right, self, z, z_prev, state, inputs=None):
    out = []
    for now in z.unbind(1):  # reads what it is about to score
        p, state = self.step(now, state)
        out.append(p.log_prob(now).detach())
    return torch.stack(out, 1)


edited(
    *("states", "kernel, lag", "ancestor sampling: ratio upside down", ANCESTOR),
    ("far.sum(0) - own.sum(0)", "own.sum(0) - far.sum(0)"),
)
edited(
    *("states", "kernel, lag", "ancestor sampling: always accepted", ANCESTOR),
    ("torch.where(accepted, proposed, 0)", "torch.where(accepted | True, proposed, 0)"),
)
edited(
    *("states", "kernel, lag", "ancestor sampling: never accepted", ANCESTOR),
    ("torch.where(accepted, proposed, 0)", "torch.where(accepted & False, proposed, 0)"),
)
edited(
    *("states", "kernel, lag", "ancestor sampling: first lag counted in the ratio too", ANCESTOR),
    (
        "far.sum(0) - own.sum(0)",
        "far.sum(0) - own.sum(0) + near.gather(-1, proposed) - near[:, :1]",
    ),
)
edited(
    *("states", "kernel, lag", "ancestor sampling: states of other sequences", ANCESTOR),
    ("rows = first_rows + proposed", "rows = proposed"),
)


@mutant("states", "kernel, padded", "ancestor sampling: future past the length", SCORE, NEAR)
def _(right, self, *args):
    return right(but(self, active=None), *args)


@mutant(
    *("states", "kernel, padded", "ancestor sampling: scaled distribution normalised"),
    (StatesProposal, "log_prior"),
)
def _(right, self, prior, z):
    return right(but(self, scale=None), prior if self.scale is None else prior * self.scale, z)


@mutant("states", "invariance", "ancestor sampling: inputs of another sequence", SCORE)
def _(right, self, *args):
    return right(self if self.inputs is None else but(self, inputs=self.inputs.flip(1)), *args)


@mutant("states", "invariance", "ancestor sampling: inputs of another step", SCORE)
def _(right, self, *args):
    return right(self if self.inputs is None else but(self, inputs=self.inputs.roll(1, 0)), *args)


edited(
    *("states", "kernel, echo", "ancestor sampling: own past never learnt anew", ANCESTOR),
    ("self.future.accept(middle, accepted, far)", "pass"),
)
edited(
    *("states", "kernel, echo", "ancestor sampling: refused past taken for one's own", ANCESTOR),
    (
        "self.future.accept(middle, accepted, far)",
        "self.future.accept(middle, accepted | True, far)",
    ),
)


edited(
    *("states", "kernel, marked", "ancestor sampling: replay ends while states differ"),
    Future.proposed,
    ("while s < T and len(which):", "while s < min(T, start + 1):"),
)
edited(
    *("states", "kept", "ancestor sampling: states of a refused past compared with"),
    Future.accept,
    ("chosen = accepted[which, 0]", "chosen = accepted[which, 0] | True"),
)
edited(
    *("states", "kept", "ancestor sampling: states of a past that is gone"),
    Future.accept,
    ("mark[which[chosen]] = value[chosen]", "pass"),
)


# -------------------------------------------------------------------------- weights that differ

edited(
    *("vectors", "sensor", "weights of the last step forgotten", SWEEP),
    ("alpha.mul_(weights)", "pass"),
)


@mutant("vectors", "sensor's evidence", "weights left out of the evidence", (sweep, "normalised"))
def _(right, log_w):
    weights, log_mean = right(log_w)
    return weights, 0 * log_mean


@mutant("vectors", "sensor", "final slot: whatever its weight", FINAL_SLOT)
def _(right, weights, *args):
    return right(None, *args)


edited(
    *("vectors", "sensor", "final slot: move always accepted", sweep._final_slot),
    ("possible & (u[1] * right < left)", "possible | (u[1] * right < left)"),
)


@mutant(
    *("vectors", "sensor, ancestors", "ancestor sampling: weights left out"),
    (ReferencePath, "ancestor"),
)
def _(right, self, t, state, prior, weights):
    return right(self, t, state, prior, None)


# --------------------------------------------------------------------------------------- vectors

PRODUCT = (gaussian, "product")


def log_integral_of_the_square(mean, scale, gradient, precision):
    """½ |w|², the part of the log integral that the gradient adds."""
    full = precision + torch.diag_embed(scale.square().reciprocal())
    return 0.5 * (gradient * torch.linalg.solve(full, gradient)).sum(-1)


@mutant("vectors", "evidence", "look-ahead without its width", PRODUCT)
def _(right, *parts):
    found = right(*parts)
    found.log_mass = log_integral_of_the_square(*parts)
    return found


@mutant("vectors", "evidence", "look-ahead without the gap", PRODUCT)
def _(right, *parts):
    found = right(*parts)
    found.log_mass = found.log_mass - log_integral_of_the_square(*parts)
    return found


@mutant("vectors", "sweep", "vector drawn about the wrong mean", PRODUCT)
def _(right, mean, scale, gradient, precision):
    found = right(mean, scale, gradient, precision)
    found.draw = right(mean, scale, 0 * gradient, precision).draw
    return found


@mutant("vectors", "sweep", "vector drawn by the slot, not by its ancestor", (_Unrolled, "draw"))
def _(right, self, rows, noise):
    return right(self, torch.arange(len(rows)), noise)


@mutant("vectors", "product", "vector drawn too wide", (_Unrolled, "draw"))
def _(right, self, rows, noise):
    return right(self, rows, 1.1 * noise)


edited(
    *("vectors", "sweep", "vector drawn with its coordinates uncoupled", _Unrolled.solve),
    ("for k in range(i + 1, D):", "for k in range(0):"),
)


@mutant("vectors", "sensor", "expansion taken for exact", (ExpandedProposal, "log_weight"))
def _(right, self, *args):
    return torch.zeros_like((yield from right(self, *args)))


edited(
    *("vectors", "sensor", "defence left out of the density", ExpandedProposal.log_weight),
    ("mixed = torch.logaddexp(share[0] + plain, share[1] + expanded)", "mixed = expanded"),
)


@mutant("vectors", "sensor", "defence too often", (ExpandedProposal, "__init__"))
def _(right, self, *args, **kwargs):
    right(self, *args, **kwargs)
    T, B, P = args[1]
    self.defend = torch.rand(T, B * P, 1) < 3 * expanded.DEFENSIVE_SHARE


edited(
    *("vectors", "sensor", "look-ahead of another particle in the weight"),
    ExpandedProposal.log_weight,
    ("gamma.log_alpha[rows].view(", "gamma.log_alpha.view("),
)


# ------------------------------------------------------------------------------------ resampling


@mutant(
    *("resampling", "systematic", "systematic, then slot 0 overwritten"), (RESAMPLING, "systematic")
)
def _(right, weights, first, u):
    found = right(weights, None, u)
    found[:, 0] = first
    return found


@mutant(
    *("resampling", "systematic", "systematic over the other slots"), (RESAMPLING, "systematic")
)
def _(right, weights, first, u):
    P = weights.shape[-1]
    points = (u[:, :1] + torch.arange(P - 1) / max(P - 1, 1)).remainder(1.0)
    return torch.cat([first.unsqueeze(-1), invert_cdf(weights.cumsum(-1), points)], -1)


@mutant(
    *("resampling", "systematic", "systematic from the start of the arc"),
    (RESAMPLING, "systematic"),
)
def _(right, weights, first, u):
    return right(weights, first, 0 * u)


edited(
    *("resampling", "systematic", "systematic from the wrong arc", resampling.systematic),
    ("(end - arc,", "(0 * arc,"),
)
edited(
    *("resampling", "systematic", "systematic, points off", resampling.systematic),
    ("addcmul(start, total,", "addcmul(start, 0.9 * total,"),
)
edited(
    *("resampling", "systematic", "systematic, not round the circle", resampling.systematic),
    ("points.remainder_(total)", "points.minimum((1 - 1e-9) * total)"),
)


@mutant(
    *("resampling", "multinomial", "sorted multinomial, then slot 0 overwritten"),
    (RESAMPLING, "multinomial"),
)
def _(right, weights, first, u):
    return right(weights, first, u.sort(-1).values)


@mutant("resampling", "multinomial", "multinomial, slot 0 free", (RESAMPLING, "multinomial"))
def _(right, weights, first, u):
    return right(weights, None, u)


edited(
    *("resampling", "inversion", "inversion: weight 0 at a uniform of 0", first_above),
    ("right=True", "right=False"),
)
edited(
    *("resampling", "inversion", "inversion: rounding to the total", invert_cdf),
    ("torch.nextafter(total, torch.zeros_like(total))", "total"),
)
edited(
    *("resampling", "inversion", "inversion in float32", first_above),
    (
        "torch.searchsorted(cdf, point, right",
        "torch.searchsorted(cdf.float(), point.float(), right",
    ),
)


# -------------------------------------------------------------------------------------- emission

WEIGH = (EmissionSite, "_weigh")


@mutant("reading", "masked", "mask ignored", WEIGH)
def _(right, self, *args):
    return right(self._replace(mask=None) if self.mask is not False else self, *args)


@mutant("reading", "masked by bool", "mask=False ignored", WEIGH)
def _(right, self, *args):
    return right(self._replace(mask=None) if self.mask is False else self, *args)


@mutant("reading", "scaled", "scale ignored", WEIGH)
def _(right, self, *args):
    return right(self._replace(scale=1.0), *args)


@mutant(
    *("reading", "subsampled", "subsampling tempers the posterior"),
    *((module, "user_scale") for module in (reader, paths)),
)
def _(right, site, num_inner=0):
    return site["scale"]


@mutant("reading", "masked", "last site alone", (StateGrid, "table"))
def _(right, self):
    return right(but(self, sites=self.sites[-1:]))


@mutant("reading", "masked", "rows of states reversed", (EmissionSite, "_rows"))
def _(right, self):
    return right(self).flip(0)


@mutant("reading", "masked outside", "mask of a sequence ignored", (StateGrid, "lengths"))
def _(right, self):
    sites = {name: {**site, "mask": None} for name, site in self._path_sites.items()}
    return right(but(self, _path_sites=sites))


# ------------------------------------------------------------------- Dirichlet sites, and chains


@mutant("dirichlet", "counts", "counts without their total", (dirichlet, "_ratio"))
def _(right, a, b):
    return 0 * right(a, b)


@mutant("dirichlet", "paths", "draw without the prior", (DirichletSite, "draw"))
def _(right, self, counts):
    return right(DirichletSite(torch.ones_like(self.concentration)), counts)


@mutant("dirichlet", "paths", "draw without the data", (DirichletSite, "draw"))
def _(right, self, counts):
    return right(self, 0 * counts)


@mutant("dirichlet", "paths", "draw is the posterior mean", (DirichletSite, "draw"))
def _(right, self, counts):
    return normalised(self.concentration + counts)


@mutant("dirichlet", "counts", "transition left out of the counts", (GlobalSites, "log_path"))
def _(right, self, run, path):
    return run.log_emission(path)


@mutant(
    *("dirichlet", "labels", "one chain's parameters for all"),
    (ParticleGibbsKernel, "_read_chains"),
)
def _(right, self, values):
    return right(self, {name: value[:1].expand_as(value) for name, value in values.items()})


edited(
    *("dirichlet", "labels", "one chain's path for the counts of all", GlobalsUpdate.draw),
    ("self._counts(run, path)", "self._counts(run, paths[0])"),
)


@mutant("dirichlet", "labels", "chains side by side in another order", (TableEmission, "beside"))
def _(right, self, others):
    *rest, last = (self, *others)
    return right(last, rest)


@mutant("dirichlet", "labels", "the model runs with the last run's values", (Program, "run"))
def _(right, self, values=None, states=None):
    stale = vars(self).get("stale", values)
    self.stale = values
    return right(self, stale, states)


edited(
    *("vectors", "chains of a body", "chains of a body laid out sequence by sequence"),
    BodyAsks._meet,
    ("log_p.view(B, C, P).transpose(0, 1)", "log_p"),
)


# ---------------------------------------------------------------------------------- stochastic EM


@mutant(
    "em", "minibatches", "paths kept by place in the minibatch", (path_memory, "sequence_index")
)
def _(right, run):
    return torch.arange(run.num_sequences)


@mutant("em", "minibatches", "old paths stay in the counts", (StochasticEM, "_count"))
def _(right, self, run, path, old=None, known=None):
    return right(self, run, path)


# ------------------------------------------------------------------- several chains, and labels


@mutant("chains", "joint of two alike", "the body meets chains in reverse", (SSLLoop, "meet"))
def _(right, self, t, z):
    return right(self, t, z)[::-1]


edited(
    *("chains", "joint of two alike", "the first chain runs fastest", product.split_states),
    ("tuple(reversed(parts))", "tuple(parts)"),
)
edited(
    *("chains", "products", "tuples of the other order", product._outer_sum),
    ("total.unsqueeze(-1) + more.unsqueeze(-2)", "total.unsqueeze(-2) + more.unsqueeze(-1)"),
)
edited(
    *("chains", "products", "the last chain alone", product._outer_sum),
    ("(total.unsqueeze(-1) + more", "(0.0 * total.unsqueeze(-1) + more"),
)


@mutant("chains", "joint, scaled", "scale of the paths ignored", (StateGrid, "transition_scale"))
def _(right, self):
    return None


@mutant("chains", "joint, ragged", "lengths of the paths ignored", (StateGrid, "lengths"))
def _(right, self):
    return None


edited(
    *("chains", "labels", "mask of labels inverted", Chain.observe),
    ("mask=self.known_at[t]", "mask=~self.known_at[t]"),
)


@mutant("chains", "labels", "labels ignored", (Chain, "observe"))
def _(right, self, t, z):
    return None


edited(
    *("chains", "labels", "labels of the step before", Chain.observe),
    ("self.known[t].to", "self.known[t - 1].to"),
)
edited(
    *("chains", "one given", "a given path backwards", SSLLoop.meet),
    ("path[t]", "path[t.flip(0)]"),
)


@mutant(
    *("chains", "read by a later loop", "what a later loop sees ignored"),
    (LaterReader, "_pyro_post_sample"),
)
def _(right, self, msg):
    return None


edited(
    *("chains", "scan", "all blocks given the paths before the scan", ScanKernel.update),
    ("self._apart(self.kernels, params)[i]", "self._apart(self.kernels, self.initial_params)[i]"),
)


@mutant(
    *("chains", "counts of two loops", "each block given the others' first paths"),
    (ScansPaths, "_by_site"),
)
def _(right, self):
    return self._start


# -------------------------------------------------------------------------------- not wrong at all

# softmax(a ⊕ b) = softmax(a) ⊗ softmax(b), whatever constants are in a and b.
edited(
    *("chains", None, "logits of each chain normalised", product._outer_sum),
    ("total = logits[0]", "logits = [l.log_softmax(-1) for l in logits]; total = logits[0]"),
    kind=EQUIVALENT,
)

# u_0 lies in the arc of a_0, so the inversion gives a_0 by itself, but for rounding at an edge.
edited(
    *("resampling", None, "systematic: a_0 left to the inversion", resampling.systematic),
    ("ancestors[:, :1] = first", "pass"),
    kind=EQUIVALENT,
)
# Before the first latent all prefixes are empty: any of them is as good an ancestor.
edited(
    *("states", None, "ancestor sampling at step 0 too", ancestors.schedule),
    ("range(phase if phase else every,", "range(phase,"),
    kind=EQUIVALENT,
)
# The reference's own emission is one factor for all prefixes, and cancels.
edited(
    *("states", None, "ancestor sampling: with the emission", ReferencePath._log_prior),
    (
        "self.proposal.log_prior(prior, self.steps[s])",
        "(self.proposal.log_prior(prior, self.steps[s]) + getattr(self.proposal, 'proposal', "
        "self.proposal).log_emission[s].gather(-1, self.steps[s].unsqueeze(-1)))",
    ),
    kind=EQUIVALENT,
)


# ------------------------------------------------------------ sites outside the loop, no Dirichlet


edited(
    *("globals", "potential", "a prior that counts twice", Conditional.at),
    (
        "elsewhere = run.log_elsewhere(observed=True) + latent",
        "elsewhere = run.log_elsewhere(observed=True) + 2.0 * latent",
    ),
)
edited(
    *("globals", "potential", "no Jacobian", FreeSite.constrained),
    ("transform.log_abs_det_jacobian(free, value).sum()", "0.0 * free.sum()"),
)
edited(
    *("globals", "potential", "the data of one sequence", Conditional.at),
    ("inside.double().sum()", "inside.double()[:1].sum()"),
)
edited(
    *("globals", "potential, of the transition too", "a transition left out", Conditional.at),
    ("if self.reach_transition:", "if False:"),
)
edited(
    *("globals", "potential, given Dirichlet rows", "no prior", Conditional.at),
    ("+ latent", ""),
)
edited(
    *("globals", "path", "the potential of the last path", _GradientBlock.update),
    ("self.kernel.clear_cache()", "pass"),
)
edited(
    *("globals", "finite", "values drawn without their weights", inner._try_all),
    ("logits=torch.stack(log_p)", "logits=0.0 * torch.stack(log_p)"),
)
edited(
    *("globals", "finite", "elements tried beside those of the start", inner._try_all),
    ("tried = now.clone()", "tried = values[site.name].clone()"),
)
edited(
    *("globals", "blocks", "the other block's values of the first update", _GradientBlock.update),
    (
        "self._target.aim(conditional, moving, rest)",
        "self.first = getattr(self, 'first', rest); "
        "self._target.aim(conditional, moving, self.first)",
    ),
)
edited(
    *("globals", "chains", "the first chain's values for all", GlobalsUpdate.draw),
    ("values[name][c]", "values[name][0]"),
)
edited(
    *("globals", "chains", "the first chain's Dirichlet prior for all", GlobalsUpdate.draw),
    ("self.sites.find(run)", "self.sites.find(runs[0])"),
)
edited(
    *("globals", "closed form", "a prior that counts twice in a closed form", conjugate._slope),
    ("conditional.at(values | {name: at}, without=name)", "conditional.at(values | {name: at})"),
)
edited(
    *("globals", "closed form", "statistics of one point", conjugate._statistics),
    (
        "_slope(conditional, name, form, values, far)",
        "_slope(conditional, name, form, values, near)",
    ),
)
