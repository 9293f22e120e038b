"""Augmentation of explanations in training, so that one network serves every budget and respects all symmetries.

A random part of the evidence is dropped, as a smaller budget would not have measured it; games are negated and replaced by
their duals, both of which leave the form of the Shapley values intact. Paths are negated and walked backwards.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from captum_meta.types import LEAVE_ONE_OUT, Coalitions, Evidence, Explanations

_GRADIENTS = slice(0, LEAVE_ONE_OUT)
_BORDER = slice(LEAVE_ONE_OUT, None)
_INSIDE, _ROWS_INSIDE = 0.3, 6
"""Probability of coalitions inside the border in training, and their number of rows per task: they cost the most."""


def drop_evidence(evidence: Evidence, generator: Generator) -> Evidence:
    """Forget, task by task, the gradients, the border or part of it; and, for all, coalitions inside the border.

    The border are the coalitions of one player and of all but one. Gradients are kept where nothing else would be left.
    Players that are flat in the gradient keep their border, which is always evaluated. Tasks that were measured
    without the whole border keep what they have.
    """
    n_tasks = len(evidence.total)
    draw = torch.rand(n_tasks, generator=generator)
    has_gradient = evidence.measured[..., _GRADIENTS].flatten(1).any(1)
    without = ~(evidence.measured[..., _BORDER].all(-1) | ~evidence.players).flatten(1).all(1)
    keep_border = (draw > 0.5) | ~has_gradient | without
    keep_gradient = has_gradient & ((draw < 0.88) | ~keep_border | without)
    partial = (draw > 0.5) & (draw < 0.6) & has_gradient & ~without
    measured = evidence.measured.clone()
    measured[..., _GRADIENTS] &= keep_gradient.reshape(-1, 1, 1, 1)
    border = keep_border.reshape(-1, 1, 1) & (~partial.reshape(-1, 1, 1) | _most_important(evidence, generator))
    flat = ~evidence.measured[..., _GRADIENTS].any(-1)
    measured[..., _BORDER] &= (border | flat).unsqueeze(-1)
    coalitions = evidence.coalitions
    if coalitions is not None:
        whole = (keep_border & ~partial).reshape(-1, 1, 1)
        known = replace(coalitions, measured=coalitions.measured & whole)
        coalitions = _shorten(known, evidence.players.shape[-1], generator)
    curve = torch.where(keep_gradient.reshape(-1, 1, 1), evidence.curve, 0.0)
    effects = torch.where(measured, evidence.effects, 0.0)
    return replace(evidence, effects=effects, measured=measured, curve=curve, coalitions=coalitions)


def _most_important(evidence: Evidence, generator: Generator) -> Tensor:
    """A random number of players of the largest mean absolute gradient effect, ``(T, N, M)`` bool."""
    n_players = evidence.players.shape[-1]
    count = int(torch.randint(1, n_players + 1, (), generator=generator))
    return evidence.effects[..., _GRADIENTS].abs().sum(-1).argsort(-1, descending=True).argsort(-1) < count


def _shorten(coalitions: Coalitions, n_players: int, generator: Generator) -> Coalitions | None:
    """The border and a random number of the pairs that follow it, not all there are; None where nothing follows.

    Of games whose coalitions are all known there is nothing to learn.
    """
    length = coalitions.members.shape[-2]
    everything = length == 2**n_players - 2
    pairs = (length - 2 * n_players) // 2 - everything
    if pairs <= 0:
        return None
    return coalitions.first(2 * n_players + 2 * int(torch.randint(1, pairs + 1, (), generator=generator)))


def augment(explanations: Explanations, generator: Generator, inside: float = _INSIDE) -> Explanations:
    """Drop evidence of Shapley explanations and apply random symmetries, of paths too.

    Coalitions inside the border are used with the probability ``inside``, on a few rows of each task.
    """
    flip = torch.rand(len(explanations.attributions), generator=generator) < 0.5
    explanations = explanations.times(torch.where(flip, -1.0, 1.0))
    if explanations.evidence.coalitions is None:
        turn = _is_path(explanations.evidence) and float(torch.rand((), generator=generator)) < 0.5
        return replace(explanations, evidence=explanations.evidence.reversed()) if turn else explanations
    if float(torch.rand((), generator=generator)) < inside:
        explanations = explanations[:, :_ROWS_INSIDE]
    else:
        explanations = explanations.without_coalitions()
    evidence = drop_evidence(explanations.evidence, generator)
    evidence = evidence.reversed() if float(torch.rand((), generator=generator)) < 0.5 else evidence
    return replace(explanations, evidence=evidence)


def _is_path(evidence: Evidence) -> bool:
    """Whether gradients along the path are all that was measured."""
    return evidence.effects.shape[-1] == evidence.points.shape[-1]
