"""`python -m captum_meta.training.error_estimate`: train the head behind Shapley error estimates, on synthetic models.

The logarithm of each row's relative squared error, as far as it differs from the mean over its model, and the order of
the rows are what :class:`captum_meta.nn.ErrorHead` learns from the numbers of
:meth:`captum_meta.nn.ShapleyExplainer.error_numbers`; its margin is the quantile, on models left out, of what the errors
have beyond. Models of up to 12 players, whose Shapley values are exact; the shipped explainer was trained on none of them.
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
from captum_meta.tasks.cache import ExplanationCache, describe, key_of, make
from captum_meta.types import Evidence, Explanations

_PLAYERS = range(7, 13)
_MULTIPLES = (2, 4, 8)
_ROWS, _SHARE = 24, 0.95
_LEFT_OUT = 5
"""Every fifth batch of models is kept for the margin."""
_FLOOR, _TRIVIAL = 1e-12, 1e-9
"""Added to errors before their logarithms; models whose errors are below the second teach nothing."""
_STEPS, _RATE, _WARMUP, _TOGETHER = 3000, 3e-3, 50, 2


@dataclass(frozen=True)
class Lesson:
    """Rows of models of one batch at one budget.

    Attributes:
        multiple: coalitions over players.
        players, rows, mask: the head's inputs, ``(T, N, M, P)``, ``(T, N, R)`` and ``(T, N, M)``.
        errors: ``(T, N)``, logarithms of the true relative squared errors.
    """

    multiple: int
    players: Tensor
    rows: Tensor
    mask: Tensor
    errors: Tensor

    def estimated(self, head: ErrorHead) -> Tensor:
        """The head's log errors, ``(T, N)``."""
        answer: Tensor = head(self.players, self.rows, self.mask)
        return answer


def within(evidence: Evidence, multiple: int) -> Evidence | None:
    """The evidence with its first ``multiple * M`` coalitions; None where it has fewer."""
    length, coalitions = multiple * evidence.players.shape[-1], evidence.coalitions
    if multiple == 2:
        return replace(evidence, coalitions=None)
    if coalitions is None or coalitions.members.shape[-2] < length:
        return None
    return replace(evidence, coalitions=coalitions.first(length))


def lessons(explainer: ShapleyExplainer, explained: Explanations) -> Iterator[Lesson]:
    """What there is to learn from explanations ``(T, N, M)`` at each budget."""
    right = explained.attributions
    for multiple in _MULTIPLES:
        evidence = within(explained.evidence, multiple)
        if evidence is None:
            continue
        with torch.no_grad():
            prior = explainer.prior(evidence)
            values = explainer.complete(prior, evidence).attributions
            players, rows = explainer.error_numbers(prior, evidence, values)
        errors = (values - right).square().sum(-1) / right.square().sum(-1)
        useful = errors.isfinite().all(-1) & (errors.mean(-1) > _TRIVIAL)
        useful &= players.isfinite().flatten(1).all(-1) & rows.isfinite().flatten(1).all(-1)
        if bool(useful.any()):
            kept = (players.float(), rows.float(), evidence.players, (errors + _FLOOR).log().float())
            yield Lesson(multiple, *(values[useful] for values in kept))


def loss(estimates: Tensor, errors: Tensor) -> Tensor:
    """How far log estimates are from log errors, both ``(T, N)``: within each model, in its order of rows, and at all."""
    centred = functional.huber_loss(_centred(estimates), _centred(errors), delta=2.0)
    order = (errors.unsqueeze(-1) - errors.unsqueeze(-2)).sign()
    ranked = functional.softplus(-order * (estimates.unsqueeze(-1) - estimates.unsqueeze(-2))).mean()
    return centred + ranked + 0.1 * functional.huber_loss(estimates, errors, delta=2.0)


def train(head: ErrorHead, taught: Sequence[Lesson], steps: int = _STEPS, seed: int = 0) -> None:
    """AdamW on two lessons a step, its rate falling as a cosine."""
    head.standardise(*(torch.cat([getattr(o, n).flatten(0, -2) for o in taught]) for n in ("players", "rows")))
    generator = Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(head.parameters(), _RATE, weight_decay=1e-3)
    for step in track(range(steps), description="Training"):
        optimizer.param_groups[0]["lr"] = _RATE * min(1.0, (step + 1) / _WARMUP) * (0.5 + 0.5 * cos(pi * step / steps))
        drawn = [taught[int(i)] for i in torch.randint(len(taught), (_TOGETHER,), generator=generator)]
        optimizer.zero_grad()
        torch.stack([loss(one.estimated(head), one.errors) for one in drawn]).sum().backward()
        optimizer.step()


def _measured(seed: int, rows: int, batches: int, folder: str) -> list[list[Lesson]]:
    """The lessons of each batch."""
    family = SyntheticTaskFamily("shapley", tasks_per_batch=8, rows=rows, seed=seed)
    cache, indices = ExplanationCache(folder), range(batches)
    keys = [key_of(describe(family, index)) for index in indices]
    for _ in make(family, cache, indices, keys, 0):
        pass
    explainer = load_learner("zero-shot").explainer.double()
    assert isinstance(explainer, ShapleyExplainer)
    found = []
    for key in track(keys, description=f"Seed {seed}"):
        explained = cache.read(key)[0]
        if explained.attributions.shape[-1] in _PLAYERS:
            found.append(list(lessons(explainer, explained[:, :_ROWS].to(dtype=torch.float64))))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the head, save it, and print on models of another seed its rank correlation within a model."""
    parser = ArgumentParser(prog="python -m captum_meta.training.error_estimate", description=main.__doc__)
    parser.add_argument("--folder", default="runs/tasks-metric", help="where the tasks are kept")
    parser.add_argument("--save", type=Path, default=Path("runs/shapley-error-estimate.safetensors"), help="the weights")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batches = _measured(11, 48, 200, chosen.folder)
    head = ErrorHead()
    train(head, [one for number, batch in enumerate(batches) if number % _LEFT_OUT for one in batch])
    head.requires_grad_(False)
    beyond = [(one.errors - one.estimated(head)).flatten() for batch in batches[::_LEFT_OUT] for one in batch]
    head.margin.copy_(torch.cat(beyond).quantile(_SHARE))
    chosen.save.parent.mkdir(parents=True, exist_ok=True)
    save_file(head.state_dict(), chosen.save)
    unseen = [one for batch in _measured(12, 80, 60, chosen.folder) for one in batch]
    for multiple in _MULTIPLES:
        some = [one for one in unseen if one.multiple == multiple]
        ranks = torch.cat([_ranks(one.estimated(head), one.errors) for one in some])
        kept = torch.cat([(one.errors <= one.estimated(head) + head.margin).flatten() for one in some])
        print(
            f"{multiple}M: Spearman within a model {ranks.mean():.3f} ({len(ranks)} models); "
            f"{kept.double().mean():.1%} of the rows within the bound"
        )


def _centred(values: Tensor) -> Tensor:
    """``(T, N)`` less the mean over each model's rows."""
    return values - values.mean(1, keepdim=True)


def _ranks(estimates: Tensor, errors: Tensor) -> Tensor:
    """Each model's rank correlation over rows, both ``(T, N)`` to ``(T,)``."""
    return torch.stack([rank_correlation(e[None], r[None]) for e, r in zip(estimates, errors, strict=True)])


if __name__ == "__main__":
    main()
