"""The margin with which error estimates hold, and how often they do.

A row that stops at a tolerance because of its estimate claims to be within it. On models left out of training the head's
margin is chosen so that for each kind of model more than nine in ten of the claims are kept.
`python -m captum_meta.training.error_claims` prints what holds of the head that ships, on models of a seed of their own.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.progress import track
from safetensors.torch import load, save
from torch import Tensor

from captum_meta._files import write_whole
from captum_meta.functional import rank_correlation
from captum_meta.learners import load_learner
from captum_meta.nn import ErrorHead, ShapleyExplainer
from captum_meta.nn.error_head import SHIPPED_HEAD
from captum_meta.training.error_estimate import Lesson, lesson
from captum_meta.training.error_tasks import MULTIPLES, EstimatedTaskFamily, Models

TOLERANCES = (0.1, 0.01, 0.001)
_KEPT = 0.92
_LEAST_CLAIMS = 40
"""Fewest rows that stop at a tolerance for the share within it to count."""
_UNSEEN = 12


class CalibrateErrorHead(Callback):
    """Standardise the head's inputs before the fit, find its margin after it, and write it to ``path.safetensors``.

    Both are done on the validation families, one for each kind of model.
    """

    def __init__(self, path: str = "runs/shapley-error-estimate") -> None:
        self.path = path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.world_size > 1:
            raise ValueError("The margin is that of all validation models together: train error estimates on one device.")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        flat = [one for batches in self._lessons(trainer, pl_module).values() for batch in batches for one in batch]
        numbers = [torch.cat([getattr(one, name).flatten(0, -2) for one in flat]) for name in ("players", "rows")]
        pl_module.learner.head.standardise(*numbers)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        head = pl_module.learner.head
        if not trainer.fast_dev_run:
            head.margin.fill_(calibrated_margin(self._lessons(trainer, pl_module).values(), head))
            path = Path(f"{self.path}.safetensors")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, save({name: value.float().cpu() for name, value in head.state_dict().items()}))

    def _lessons(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, list[list[Lesson]]]:
        """By kind of model the batches, each at growing budgets."""
        explainer, dtype = pl_module.learner.explainer, next(pl_module.parameters()).dtype
        data = trainer.datamodule
        found = {}
        for kind, loader in zip(data.labels("validation"), data.val_dataloader(), strict=True):
            tasks = (task.query.to(pl_module.device, dtype) for task in loader)
            found[kind] = in_batches(lesson(explainer, explained) for explained in tasks)
        return found


def in_batches(lessons: Iterable[Lesson]) -> list[list[Lesson]]:
    """Lessons of the same rows together; those of other rows begin at the least budget again."""
    batches: list[list[Lesson]] = []
    for one in lessons:
        if one.multiple == MULTIPLES[0]:
            batches.append([])
        batches[-1].append(one)
    return batches


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


@torch.no_grad()
def calibrated_margin(kinds: Iterable[Sequence[Sequence[Lesson]]], head: ErrorHead) -> float:
    """The least margin with which, at each tolerance and for every kind, enough of the rows that stop are within it."""
    batches_of_kinds = list(kinds)
    for margin in torch.arange(-1.0, 6.0, 0.05).tolist():
        if all(_are_kept(batches, head, margin) for batches in batches_of_kinds):
            return float(margin)
    raise RuntimeError("No margin makes the estimates hold: train the head on more models.")


def _are_kept(batches: Sequence[Sequence[Lesson]], head: ErrorHead, margin: float) -> bool:
    found = [claims(batches, head, margin, tolerance) for tolerance in TOLERANCES]
    return all(len(kept) < _LEAST_CLAIMS or float(kept.double().mean()) >= _KEPT for kept in found)


@torch.no_grad()
def report(kind: str, batches: Sequence[Sequence[Lesson]], head: ErrorHead) -> None:
    """Print coverage, rank correlation within a model, and the share within each tolerance, of one kind of model."""
    margin = float(head.margin)
    for multiple in MULTIPLES:
        some = [one for batch in batches for one in batch if one.multiple == multiple]
        if some:
            below = torch.cat([(one.errors <= one.estimated(head) + margin)[one.known] for one in some])
            ranks = torch.cat([_ranks(one.estimated(head), one.errors)[one.known.all(-1)] for one in some])
            print(f"{kind}, {multiple}M: {below.double().mean():.1%} below, Spearman within a model {ranks.nanmean():.2f}")
    for tolerance in TOLERANCES:
        kept = claims(batches, head, margin, tolerance)
        print(f"{kind}, tolerance {tolerance}: of {len(kept)} rows that stop {kept.double().mean():.1%} are within it")


def _ranks(estimates: Tensor, errors: Tensor) -> Tensor:
    """Each model's rank correlation over rows, both ``(T, N)`` to ``(T,)``."""
    return torch.stack([rank_correlation(e[None], r[None]) for e, r in zip(estimates, errors, strict=True)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print how well a head of error estimates holds on models of a seed that no training used."""
    parser = ArgumentParser(prog="python -m captum_meta.training.error_claims", description=main.__doc__)
    parser.add_argument("--head", type=Path, default=None, help="weights that a fit wrote; default: those that ship")
    parser.add_argument("--batches", type=int, default=21, help="of 8 models each, for each kind of model")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    head = ErrorHead().requires_grad_(False)
    head.load_state_dict(load((chosen.head or SHIPPED_HEAD).read_bytes()))
    explainer = load_learner("zero-shot").explainer.double()
    assert isinstance(explainer, ShapleyExplainer)
    print(f"margin {head.margin:.2f}")
    for kind in get_args(Models):
        family = EstimatedTaskFamily(kind, seed=_UNSEEN)
        indices = track(range(chosen.batches), description=kind)
        views = (view for index in indices for view in family.variants(index))
        report(kind, in_batches(lesson(explainer, view) for view in views), head.double())


if __name__ == "__main__":
    main()
