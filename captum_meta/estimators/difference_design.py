r"""Which coalitions tell most about Shapley values, for a row whose own rates are known from a few of them.

Shapley values are linear in the game's odd part, of which a coalition and its complement tell the difference. Under the
hypercube posterior's prior (:mod:`captum_meta.estimators.hypercube`), with the rates that are most likely given what was
seen, the next pair is the one that takes most from the summed variance of all Shapley values
(:mod:`captum_meta.estimators.telling`). The part along few directions is left out: it changes choices little.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Generator, Tensor

from captum_meta.estimators.hypercube import HypercubeKernel
from captum_meta.estimators.pairs import HypercubePrior
from captum_meta.estimators.telling import Beliefs, favours, in_steps, most_telling


def telling_differences(
    prior: HypercubePrior,
    seen: Float[Tensor, "R S M"],
    candidates: Float[Tensor, "R P M"],
    free: Bool[Tensor, "R P"],
    count: int,
    together: int = 1,
) -> Int64[Tensor, "R count"]:
    """Indices of the ``count`` pairs to see next.

    Args:
        prior: of each row; its rates and additive parts are read to quarters of a logit and of a logarithm.
        seen, candidates: coalitions of -1 and 1, one of each pair, 0 for padding; float64.
        free: which candidates may be chosen.
        count: at most as many as are free in each row.
        together: so many rows side by side, the outputs of one, see the same pairs.
    """
    rates = torch.where(prior.rates > 0, in_steps(prior.rates.logit()).sigmoid(), 0.0)
    additive = torch.where(prior.additive > 0, in_steps(prior.additive.log()).exp(), 0.0)
    known, unknown = (HypercubeKernel(signs, additive, rates) for signs in (seen, candidates))
    before = Beliefs(unknown.with_pairs(candidates), unknown.with_shapley_values())
    beliefs = before.given(known.with_pairs(seen), unknown.with_pairs(seen), known.with_shapley_values())
    favour = favours(candidates.shape[1], Generator().manual_seed(1)).to(candidates.device)
    return most_telling(beliefs, free, favour, count, together=together)
