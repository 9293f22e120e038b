"""`python -m captum_meta.training.error_estimate`: train the head behind Shapley error estimates, on synthetic models.

From the numbers of :meth:`captum_meta.nn.ShapleyExplainer.error_numbers`, :class:`captum_meta.nn.ErrorHead` learns what nine
in ten of the logarithms of the rows' relative squared errors stay below, and the order of a model's rows. The models have up
to 12 players, so that Shapley values are exact: those of the synthetic family, with gradients and without, and those of
:mod:`captum_meta.training.rough_games`. On models left out, the head's margin is then chosen so that for each kind of model,
of the rows that stop at a tolerance because of their estimate, more than nine in ten are within it.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import cos, pi
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import save_file
from torch import Generator, Tensor
from torch.nn import functional

from captum_meta.functional import rank_correlation
from captum_meta.learners import load_learner
from captum_meta.nn import ErrorHead, ShapleyExplainer
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.tasks.batched_games import MAX_EXACT, shapley_explanations
from captum_meta.tasks.random_data import pick
from captum_meta.training.rough_games import ROUGH, rough_games
from captum_meta.types import LEAVE_ONE_OUT, Evidence, Explanations

KINDS = ("smooth", "smooth without gradients", *ROUGH)
TOLERANCES = (0.1, 0.01, 0.001)
_PLAYERS = (4, 5, 6, 7, 8, 9, 10, 11, 12)
_MULTIPLES = (2, 4, 8, 16)
_TASKS, _ROWS = 8, 16
_LEFT_OUT = 4
"""Every fourth batch of models is kept for the margin."""
_LEVEL, _KEPT = 0.9, 0.92
_LEAST_CLAIMS = 40
"""Rows that must claim a tolerance before the share of them that keep it counts."""
_FLOOR = 1e-9
"""Added to errors before their logarithms."""
_STEPS, _RATE, _WARMUP, _TOGETHER = 3000, 3e-3, 50, 4


@dataclass(frozen=True)
class Lesson:
    """Rows of models of one batch at one budget.

    Attributes:
        kind: of :data:`KINDS`.
        multiple: coalitions over players.
        players, rows, mask: the head's inputs, ``(T, N, M, P)``, ``(T, N, R)`` and ``(T, N, M)``.
        errors: ``(T, N)``, logarithms of the true relative squared errors.
        known: ``(T, N)`` bool, False where all Shapley values are zero.
    """

    kind: str
    multiple: int
    players: Tensor
    rows: Tensor
    mask: Tensor
    errors: Tensor
    known: Tensor

    def estimated(self, head: ErrorHead) -> Tensor:
        """The head's log errors, ``(T, N)``."""
        answer: Tensor = head(self.players, self.rows, self.mask)
        return answer


def explained_batch(kind: str, seed: int, index: int) -> Explanations:
    """Explanations ``(T, N, M)``, float64, of random models of one kind, with up to 16M coalitions."""
    generator = Generator().manual_seed(seed * 1_000_003 + index)
    if kind in ROUGH:
        games = rough_games(kind, _TASKS, pick(generator, *_PLAYERS), _ROWS, generator)
    else:
        family = SyntheticTaskFamily("shapley", tasks_per_batch=_TASKS, rows=_ROWS, seed=seed)
        number = 100 * index
        while not _PLAYERS[0] <= (games := family.games(number)).shape[2] <= MAX_EXACT:
            number += 1
    explained = shapley_explanations(games, _MULTIPLES[-1] * games.shape[2], seed).detach().to(dtype=torch.float64)
    if kind == "smooth without gradients":
        evidence = explained.evidence
        kept = torch.arange(evidence.effects.shape[-1]) >= LEAVE_ONE_OUT
        evidence = replace(
            evidence,
            effects=torch.where(kept, evidence.effects, 0.0),
            measured=evidence.measured & kept,
            curve=torch.where(torch.arange(3) == 0, evidence.curve, 0.0),
        )
        explained = replace(explained, evidence=evidence)
    return explained


def within(evidence: Evidence, multiple: int) -> Evidence | None:
    """The evidence with its first ``multiple * M`` coalitions; None where it has fewer, or these are all there are."""
    n_players, coalitions = evidence.players.shape[-1], evidence.coalitions
    if multiple * n_players >= 2**n_players - 2:
        return None
    if multiple == 2:
        return evidence.without_coalitions()
    if coalitions is None or coalitions.members.shape[-2] < multiple * n_players:
        return None
    return replace(evidence, coalitions=coalitions.first(multiple * n_players))


def lessons(explainer: ShapleyExplainer, explained: Explanations, kind: str = "smooth") -> Iterator[Lesson]:
    """What there is to learn from explanations ``(T, N, M)`` at each budget."""
    right = explained.attributions
    size = right.square().sum(-1)
    for multiple in _MULTIPLES:
        evidence = within(explained.evidence, multiple)
        if evidence is None:
            continue
        with torch.no_grad():
            answer, players, rows = explainer.numbered(explainer.prior(evidence), evidence)
        values = answer.attributions
        finite = players.isfinite().flatten(2).all(-1) & rows.isfinite().all(-1)
        known = (size > 0) & values.any(-1) & finite
        players, rows = (part.nan_to_num(0.0, 0.0, 0.0) for part in (players, rows))
        errors = torch.where(known, (values - right).square().sum(-1) / size, 1.0)
        yield Lesson(kind, multiple, players.float(), rows.float(), evidence.players, (errors + _FLOOR).log().float(), known)


def loss(estimates: Tensor, errors: Tensor, known: Tensor) -> Tensor:
    """The quantile's pinball loss (Koenker and Bassett 1978), and how wrong the order of each model's rows is.

    ``estimates``, ``errors`` and ``known`` are ``(T, N)``, the first two logarithms.
    """
    beyond = errors - estimates
    pinball = torch.maximum(_LEVEL * beyond, (_LEVEL - 1) * beyond)[known].sum() / known.sum().clamp(min=1)
    order = (errors.unsqueeze(-1) - errors.unsqueeze(-2)).sign()
    both = known.unsqueeze(-1) & known.unsqueeze(-2)
    ranked = functional.softplus(-order * (estimates.unsqueeze(-1) - estimates.unsqueeze(-2)))
    return pinball + 0.3 * ranked[both].sum() / both.sum().clamp(min=1)


def train(head: ErrorHead, seen: Sequence[Lesson], steps: int = _STEPS, seed: int = 0) -> None:
    """AdamW on a few lessons a step, its rate falling as a cosine."""
    head.standardise(*(torch.cat([getattr(o, n).flatten(0, -2) for o in seen]) for n in ("players", "rows")))
    generator = Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(head.parameters(), _RATE, weight_decay=1e-3)
    for step in track(range(steps), description="Training"):
        optimizer.param_groups[0]["lr"] = _RATE * min(1.0, (step + 1) / _WARMUP) * (0.5 + 0.5 * cos(pi * step / steps))
        drawn = [seen[int(i)] for i in torch.randint(len(seen), (_TOGETHER,), generator=generator)]
        optimizer.zero_grad()
        torch.stack([loss(one.estimated(head), one.errors, one.known) for one in drawn]).sum().backward()
        optimizer.step()


def claims(batches: Sequence[Sequence[Lesson]], head: ErrorHead, margin: float, tolerance: float) -> Tensor:
    """Whether each row that stops at a tolerance is within it, ``(R,)`` bool.

    A row's coalitions double, as in ``attribute(tolerance=)``, until its estimate is within the tolerance. A batch is the
    lessons of the same rows at growing budgets.
    """
    kept = []
    for batch in batches:
        going = batch[0].known
        for one in batch:
            stops = going & one.known & (one.estimated(head) + margin <= torch.tensor(tolerance).log())
            kept.append((one.errors <= torch.tensor(tolerance).log())[stops])
            going = going & ~stops
    return torch.cat(kept)


def calibrated_margin(batches: Sequence[Sequence[Lesson]], head: ErrorHead) -> float:
    """The least margin with which, at each tolerance and for every kind, enough of the rows that stop are within it."""
    for margin in torch.arange(-1.0, 6.0, 0.05).tolist():
        if all(_are_kept(some, head, margin) for kind in KINDS if (some := _of_kind(batches, kind))):
            return float(margin)
    raise RuntimeError("No margin makes the estimates hold: train the head on more models.")


def _are_kept(batches: Sequence[Sequence[Lesson]], head: ErrorHead, margin: float) -> bool:
    found = [claims(batches, head, margin, tolerance) for tolerance in TOLERANCES]
    return all(len(kept) < _LEAST_CLAIMS or float(kept.double().mean()) >= _KEPT for kept in found)


def _of_kind(batches: Sequence[Sequence[Lesson]], kind: str) -> list[Sequence[Lesson]]:
    return [batch for batch in batches if batch[0].kind == kind]


def measured(seed: int, count: int) -> list[list[Lesson]]:
    """The lessons of ``count`` batches of models of each kind."""
    explainer = load_learner("zero-shot").explainer.double()
    assert isinstance(explainer, ShapleyExplainer)
    found = []
    for index in track(range(count), description=f"Seed {seed}"):
        for kind in KINDS:
            batch = list(lessons(explainer, explained_batch(kind, seed, index), kind))
            if batch:
                found.append(batch)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the head, save it, and print what holds of it on models of another seed."""
    parser = ArgumentParser(prog="python -m captum_meta.training.error_estimate", description=main.__doc__)
    parser.add_argument("--save", type=Path, default=Path("runs/shapley-error-estimate.safetensors"), help="the weights")
    parser.add_argument("--batches", type=int, default=64, help="of 8 models each, for each kind of model")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batches = measured(11, chosen.batches)
    number = {kind: iter(range(len(batches))) for kind in KINDS}
    left_out = [next(number[batch[0].kind]) % _LEFT_OUT == 0 for batch in batches]
    head = ErrorHead()
    train(head, [one for batch, out in zip(batches, left_out, strict=True) if not out for one in batch])
    head.requires_grad_(False)
    head.margin.fill_(calibrated_margin([batch for batch, out in zip(batches, left_out, strict=True) if out], head))
    chosen.save.parent.mkdir(parents=True, exist_ok=True)
    save_file(head.state_dict(), chosen.save)
    report(measured(12, chosen.batches // 3), head)


def report(unseen: Sequence[Sequence[Lesson]], head: ErrorHead) -> None:
    """Print, for each kind of model, coverage, rank correlation within a model, and how many claims are kept."""
    margin = float(head.margin)
    print(f"margin {margin:.2f}")
    for kind in KINDS:
        batches = _of_kind(unseen, kind)
        for multiple in _MULTIPLES:
            some = [one for batch in batches for one in batch if one.multiple == multiple]
            below = torch.cat([(one.errors <= one.estimated(head) + margin)[one.known] for one in some])
            ranks = torch.cat([_ranks(one.estimated(head), one.errors)[one.known.all(-1)] for one in some])
            print(f"{kind}, {multiple}M: {below.double().mean():.1%} below, Spearman within a model {ranks.nanmean():.2f}")
        for tolerance in TOLERANCES:
            kept = claims(batches, head, margin, tolerance)
            print(f"{kind}, tolerance {tolerance}: of {len(kept)} rows that stop {kept.double().mean():.1%} are within it")


def _ranks(estimates: Tensor, errors: Tensor) -> Tensor:
    """Each model's rank correlation over rows, both ``(T, N)`` to ``(T,)``."""
    return torch.stack([rank_correlation(e[None], r[None]) for e, r in zip(estimates, errors, strict=True)])


if __name__ == "__main__":
    main()
