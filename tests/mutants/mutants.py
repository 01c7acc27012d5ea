"""Wrong samplers that look right: edits of the package, each of which the kill suite must notice.

Every ``old`` stands exactly once in its file. ``EQUIVALENT`` lists edits that leave the law of the
sampler as it is, with the reason; the kill suite must pass on them.
"""

from typing import NamedTuple

SWEEP, STATES, RESAMPLING = "smc/sweep.py", "smc/discrete.py", "smc/resampling.py"
GAUSSIAN, EXPANDED, PRODUCT = "smc/gaussian.py", "smc/expanded.py", "smc/product.py"
RECURRENT = "transitions/recurrent_base.py"
EMISSION, CONJUGATE, GIBBS = (
    "reading/handlers.py",
    "infer/dirichlet.py",
    "infer/particle_gibbs_kernel.py",
)


class Mutant(NamedTuple):
    """``suite``: whose checks must notice it, where these are not the file's own."""

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]
    suite: str


def mutant(name, file, *edits, suite=None):
    return Mutant(name, file, tuple(edits), suite or file)


GATHER = (
    "state = map_state(partial(torch.index_select, dim=0, index=rows), state)\n        z_history"
)
RESAMPLE = "ancestors = resample(alpha, first, u_ancestor[t])"
WEIGHTS = "prior = (near - near.amax(-1, keepdim=True)).exp_()"
FINAL_SLOT = "return torch.randint(1 if move else 0, P, (B,), device=device)"
TRACE_BACK = """path[t] = z[t, sequences, slot]
        slot = ancestors[t, sequences, slot]"""
JOINT = "log_joint = law + self.log_emission[t].unsqueeze(1)"
ALPHA = "return cdf[..., -1].double(), shift"

MUTANTS = [
    # ------------------------------------------------------------------- the reference, and slots
    mutant(
        "ancestor of the reference not pinned",
        SWEEP,
        ("if t in redraw_at else 0", "if t in redraw_at else None"),
    ),
    mutant("latent of the reference not pinned", SWEEP, ("z[:, 0] = reference[t]", "pass")),
    mutant("state not gathered", SWEEP, (GATHER, "z_history")),
    mutant(
        "states gathered across sequences",
        SWEEP,
        ("rows = (first_rows + ancestors)", "rows = (0 * first_rows + ancestors)"),
    ),
    mutant(
        "latent drawn by the slot, not by its ancestor",
        SWEEP,
        (
            "local.draw(t, proposal, rows)",
            "local.draw(t, proposal, (first_rows + slots).view(-1))",
        ),
    ),
    mutant(
        "one uniform for ancestor and latent",
        SWEEP,
        (
            "z = local.draw(t, proposal, rows)",
            "local.u_z[t] = u_ancestor[t].view(-1, 1)\n        z = local.draw(t, proposal, rows)",
        ),
    ),
    # ---------------------------------------------------------------------------- the final path
    mutant("returns the reference", SWEEP, (FINAL_SLOT, "return torch.zeros(B, dtype=torch.long)")),
    mutant("no trace-back", SWEEP, ("slot = ancestors[t, sequences, slot]", "pass")),
    mutant(
        "trace-back one step early",
        SWEEP,
        (TRACE_BACK, "\n        ".join(reversed(TRACE_BACK.split("\n        ")))),
    ),
    mutant("forced move always", SWEEP, ("move and P > 1", "P > 1")),
    mutant("forced move never", SWEEP, ("move and P > 1", "False")),
    mutant(
        "final slot by the last look-ahead weights",
        SWEEP,
        (
            "path = _trace_back(z_history, ancestor_history, weights, move)",
            "path = _trace_back(z_history, ancestor_history, alpha.nan_to_num(1.0) + 1e-9, move)",
        ),
    ),
    # --------------------------------------------------------------------------------- the weights
    mutant(
        "prior left out",
        STATES,
        (JOINT, JOINT.replace("law +", "0 * law +")),
    ),
    mutant(
        "emission left out",
        STATES,
        (JOINT, "log_joint = law.clone()"),
    ),
    mutant(
        "proposal from the prior, weights as they were",
        STATES,
        ("shift, cdf.view(B * P, K)", "shift, law.exp().cumsum(-1).view(B * P, K)"),
    ),
    mutant("weights to the power .9", SWEEP, (RESAMPLE, RESAMPLE.replace("alpha", "alpha**0.9"))),
    mutant("no weights at all", SWEEP, (RESAMPLE, RESAMPLE.replace("alpha", "alpha**0"))),
    mutant(
        "1e-6 added to the weights",
        STATES,
        (ALPHA, ALPHA.replace(".double()", ".double() + 1e-6")),
    ),
    mutant("weights in float16", STATES, (ALPHA, ALPHA.replace(".double()", ".half().double()"))),
    mutant(
        "weights of each particle shifted by its own",
        STATES,
        ("log_joint.sub_(shift.view(B, 1, 1))", "log_joint.sub_(log_joint.amax(-1, keepdim=True))"),
    ),
    mutant("evidence by the sum", SWEEP, ("alpha.mean(-1).log_()", "alpha.sum(-1).log_()")),
    mutant("shift not added back", SWEEP, (".log_().add_(shift)", ".log_()")),
    mutant("dead particles are NaN", STATES, (".clamp_(min=torch.finfo(law.dtype).min)", "")),
    mutant(
        "scale left out of the weights",
        STATES,
        (JOINT, JOINT.replace("law +", "(law if self.scale is None else law / self.scale) +")),
    ),
    # ------------------------------------------------------------------------------ ragged, inputs
    mutant(
        "no freeze at the length",
        SWEEP,
        (
            "torch.where(active[t], ancestors, slots)",
            "torch.where(active[t] | True, ancestors, slots)",
        ),
    ),
    mutant(
        "path not 0 past the length",
        SWEEP,
        ("path.masked_fill_(past.view(T, B, *(1,) * len(event)), 0)", "pass"),
    ),
    mutant(
        "evidence past the length",
        SWEEP,
        (
            "log_likelihood.masked_fill_(past, 0.0)",
            "pass",
        ),
    ),
    mutant(
        "inputs of another sequence",
        SWEEP,
        (
            "inputs.repeat_interleave(P, 1))\n    state = transition.initial_state((B * P,))",
            "inputs.repeat(1, P, 1))\n    state = transition.initial_state((B * P,))",
        ),
    ),
    # --------------------------------------------------------------------------- ancestor sampling
    mutant("ancestor sampling: uniform", SWEEP, (WEIGHTS, "prior = torch.ones_like(near)")),
    mutant(
        "ancestor sampling: times the look-ahead weight",
        SWEEP,
        (
            "redraw(t, state, law, weights)",
            "redraw(t, state, law + alpha.log().unsqueeze(-1), weights)",
        ),
    ),
    mutant(
        "ancestor sampling: over the look-ahead weight",
        SWEEP,
        (
            "redraw(t, state, law, weights)",
            "redraw(t, state, law - alpha.log().unsqueeze(-1), weights)",
        ),
    ),
    mutant(
        "ancestor sampling: drawn after the other slots",
        SWEEP,
        (
            RESAMPLE,
            "ancestors = resample(alpha, None if first is None else slots[:, 0], u_ancestor[t])\n"
            "        if first is not None:\n"
            "            ancestors[:, 0] = first",
        ),
    ),
    mutant("ancestor sampling: future cut", SWEEP, ("if middle == T:", "if True:")),
    mutant(
        "ancestor sampling: last step of the future left out",
        SWEEP,
        (
            "accepted = u[1].log() < far.sum(0) - own.sum(0)",
            "accepted = u[1].log() < far[:-1].sum(0) - own[:-1].sum(0)",
        ),
    ),
    mutant(
        "ancestor sampling: reference one step late",
        RECURRENT,
        ("self._replay_cell(previous,", "self._replay_cell(z,"),
        suite=SWEEP,
    ),
    mutant(
        "ancestor sampling: ratio upside down",
        SWEEP,
        (
            "far.sum(0) - own.sum(0)",
            "own.sum(0) - far.sum(0)",
        ),
    ),
    mutant(
        "ancestor sampling: always accepted",
        SWEEP,
        (
            "torch.where(accepted, proposed, 0)",
            "torch.where(accepted | True, proposed, 0)",
        ),
    ),
    mutant(
        "ancestor sampling: never accepted",
        SWEEP,
        (
            "torch.where(accepted, proposed, 0)",
            "torch.where(accepted & False, proposed, 0)",
        ),
    ),
    mutant(
        "ancestor sampling: first lag counted in the ratio too",
        SWEEP,
        (
            "far.sum(0) - own.sum(0)",
            "far.sum(0) - own.sum(0) + near.gather(-1, proposed) - near[:, :1]",
        ),
    ),
    mutant(
        "ancestor sampling: states of other sequences",
        SWEEP,
        (
            "device=device) + proposed.squeeze(-1)",
            "device=device) * 0 + proposed.squeeze(-1)",
        ),
    ),
    mutant(
        "ancestor sampling: future past the length",
        SWEEP,
        (
            "if self.active is None:\n            return log_p",
            "if True:\n            return log_p",
        ),
    ),
    mutant(
        "ancestor sampling: scaled law normalised",
        STATES,
        (
            "return law.gather(-1, index).squeeze(-1)",
            "return law.log_softmax(-1).gather(-1, index).squeeze(-1)",
        ),
    ),
    mutant(
        "ancestor sampling: inputs of another sequence",
        SWEEP,
        (
            "else each(self.inputs[start:stop], 1)",
            "else each(self.inputs[start:stop].flip(1), 1)",
        ),
    ),
    mutant(
        "ancestor sampling: own past never learnt anew",
        SWEEP,
        ("self.own[middle:] = torch.where(accepted, far, own)", "pass"),
    ),
    mutant(
        "ancestor sampling: refused past taken for one's own",
        SWEEP,
        ("self.own[middle:] = torch.where(accepted, far, own)", "self.own[middle:] = far"),
    ),
    # ------------------------------------------------------------------- weights that differ
    mutant(
        "weights of the last step forgotten",
        SWEEP,
        ("alpha = alpha * weights", "pass"),
        suite=EXPANDED,
    ),
    mutant(
        "weights left out of the evidence",
        SWEEP,
        ("log_likelihood[t] += (mean.log() + top).squeeze(-1)", "pass"),
        suite=EXPANDED,
    ),
    mutant(
        "final slot: whatever its weight",
        SWEEP,
        (
            "if weights is None:\n        return torch.randint",
            "if True:\n        return torch.randint",
        ),
        suite=EXPANDED,
    ),
    mutant(
        "final slot: move always accepted",
        SWEEP,
        ("possible & (u[1] * right < left)", "possible | (u[1] * right < left)"),
        suite=EXPANDED,
    ),
    mutant(
        "ancestor sampling: weights left out",
        SWEEP,
        ("prior = prior * weights", "pass"),
        suite=EXPANDED,
    ),
    # ------------------------------------------------------------------------------------ vectors
    mutant(
        "look-ahead without its width",
        PRODUCT,
        ("square.mul_(0.5).sub_(det.log_())", "square.mul_(0.5)"),
        suite=GAUSSIAN,
    ),
    mutant(
        "look-ahead without the gap",
        PRODUCT,
        ("square.mul_(0.5).sub_(det.log_())", "-det.log_()"),
        suite=GAUSSIAN,
    ),
    mutant(
        "vector drawn about the wrong mean",
        PRODUCT,
        ("packed[:, :D] + noise", "noise"),
        suite=GAUSSIAN,
    ),
    mutant(
        "vector drawn by the slot, not by its ancestor",
        PRODUCT,
        ("self.packed if rows is None else", "self.packed if True else"),
        suite=GAUSSIAN,
    ),
    mutant(
        "vector drawn too wide",
        PRODUCT,
        ("packed[:, :D] + noise", "packed[:, :D] + 1.1 * noise"),
        suite=GAUSSIAN,
    ),
    mutant(
        "vector drawn with its coordinates uncoupled",
        PRODUCT,
        ("for k in range(i + 1, D):", "for k in range(0):"),
        suite=GAUSSIAN,
    ),
    mutant(
        "expansion taken for exact",
        EXPANDED,
        (
            "return log_emission - proposal.log_alpha[rows].view(z.shape[:2]) - log_gamma",
            "return torch.zeros_like(log_emission)",
        ),
    ),
    mutant(
        "defence left out of the density",
        EXPANDED,
        ("mixed = torch.logaddexp(share[0] + plain, share[1] + expanded)", "mixed = expanded"),
    ),
    mutant(
        "defence too often",
        EXPANDED,
        ("dtype=like.dtype) < DEFENSIVE_SHARE", "dtype=like.dtype) < 3 * DEFENSIVE_SHARE"),
    ),
    mutant(
        "look-ahead of another particle in the weight",
        EXPANDED,
        ("proposal.log_alpha[rows].view(", "proposal.log_alpha.view("),
    ),
    # ---------------------------------------------------------------------------------- resampling
    mutant(
        "systematic, then slot 0 overwritten",
        RESAMPLING,
        (
            "u0 = ((end - arc) + u0 * arc) / cdf[:, -1:]",
            "pass",
        ),
    ),
    mutant(
        "systematic over the other slots",
        RESAMPLING,
        (
            "ancestors[:, :1] = first",
            "others = torch.arange(P - 1) / max(P - 1, 1)\n"
            "        others = invert_cdf(cdf, (u[:, :1] + others).remainder(1.0))\n"
            "        ancestors = torch.cat([first, others], -1)",
        ),
    ),
    mutant("systematic from the start of the arc", RESAMPLING, ("+ u0 * arc)", "+ 0 * u0 * arc)")),
    mutant("systematic from the wrong arc", RESAMPLING, ("(end - arc)", "0 * arc")),
    mutant(
        "systematic, points off", RESAMPLING, ("device=u.device) / P", "device=u.device) / (P + 1)")
    ),
    mutant(
        "systematic, not round the circle",
        RESAMPLING,
        (
            "(u0 + slots).remainder(1.0)",
            "(u0 + slots).clamp(max=1 - 1e-9)",
        ),
    ),
    mutant(
        "sorted multinomial, then slot 0 overwritten",
        RESAMPLING,
        (
            "ancestors = invert_cdf(monotone_cumsum(weights), u)",
            "ancestors = invert_cdf(monotone_cumsum(weights), u.sort(-1).values)",
        ),
    ),
    mutant("multinomial, slot 0 free", RESAMPLING, ("ancestors[:, 0] = first", "pass")),
    mutant("inversion: weight 0 at a uniform of 0", RESAMPLING, ("right=True", "right=False")),
    mutant(
        "inversion: rounding to the total",
        RESAMPLING,
        (
            "torch.nextafter(total, torch.zeros_like(total))",
            "total",
        ),
    ),
    mutant(
        "inversion in float32",
        RESAMPLING,
        (
            "torch.searchsorted(cdf, point, right=True)",
            "torch.searchsorted(cdf.float(), point.float(), right=True)",
        ),
    ),
    # ------------------------------------------------------------------------------------ emission
    mutant("mask ignored", EMISSION, ("log_p = torch.where(mask, log_p, 0.0)", "pass")),
    mutant("mask=False ignored", EMISSION, ("return torch.zeros_like(log_p)", "return log_p")),
    mutant("scale ignored", EMISSION, ("log_p = log_p * scale", "pass")),
    mutant(
        "subsampling tempers the posterior",
        EMISSION,
        (
            "scale = scale * frame.size / frame.full_size",
            "pass",
        ),
    ),
    mutant("last site alone", EMISSION, ("total = total + table", "total = table")),
    mutant(
        "rows of states reversed",
        EMISSION,
        (
            "return self.fn.logits.reshape(self.shape[0], -1)",
            "return self.fn.logits.reshape(self.shape[0], -1).flip(0)",
        ),
    ),
    mutant("mask of a sequence ignored", EMISSION, ("lengths = mask * (", "lengths = mask**0 * (")),
    # ----------------------------------------------------------------------- Dirichlet parameters
    mutant(
        "counts without their total",
        CONJUGATE,
        (
            "counts[name] = r_0[name] + phi_0[name] * totals[name]",
            "counts[name] = r_0[name]",
        ),
    ),
    mutant(
        "draw without the prior",
        CONJUGATE,
        (
            "dist.Dirichlet(fn.concentration + counts.clamp(min=0.0))",
            "dist.Dirichlet(1.0 + counts.clamp(min=0.0))",
        ),
    ),
    mutant(
        "draw without the data",
        CONJUGATE,
        (
            "dist.Dirichlet(fn.concentration + counts.clamp(min=0.0))",
            "dist.Dirichlet(fn.concentration + 0 * counts)",
        ),
    ),
    mutant(
        "draw is the posterior mean",
        CONJUGATE,
        (
            "draw = dist.Dirichlet(fn.concentration + counts.clamp(min=0.0)).sample()",
            "draw = fn.concentration + counts.clamp(min=0.0)",
        ),
    ),
    mutant(
        "transition left out of the counts",
        GIBBS,
        (
            "log_p + run.log_transition(path).sum() if self._in_transition else log_p",
            "log_p",
        ),
    ),
    mutant(
        "one chain's parameters for all",
        GIBBS,
        (
            "{n: v[c] for n, v in values.items()}",
            "{n: v[0] for n, v in values.items()}",
        ),
    ),
    mutant(
        "one chain's path for the counts of all",
        GIBBS,
        (
            "in self._counts(z).items()",
            "in self._counts(paths[0]).items()",
        ),
    ),
]

EQUIVALENT = [
    # u_0 lies in the arc of a_0, so the inversion gives a_0 by itself, but for rounding at an edge.
    mutant(
        "systematic: a_0 left to the inversion", RESAMPLING, ("ancestors[:, :1] = first", "pass")
    ),
    # Before the first latent all prefixes are empty: any of them is as good an ancestor.
    mutant(
        "ancestor sampling at step 0 too",
        SWEEP,
        ("range(phase if phase else every,", "range(phase,"),
    ),
    # The reference's own emission is one factor for all prefixes, and cancels.
    mutant(
        "ancestor sampling: with the emission",
        SWEEP,
        (
            "redraw(t, state, law, weights)",
            "redraw(t, state, law + local.log_emission[t].unsqueeze(1), weights)",
        ),
    ),
]
