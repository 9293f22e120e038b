"""`python -m captum_meta.training.path_rows PATH`: train the network that weighs a path's gradients, on synthetic models.

Of many models and numbers of gradients, the mean logarithm of the relative squared error is minimised; the weights are a
moving average over the steps. They are written beside those of the shipped explainer of paths, which go on to explain single
gradients.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from copy import deepcopy

import torch
from rich.progress import track
from torch import Generator, Tensor

from captum_meta.learners import ZeroShot, load_learner
from captum_meta.losses import relative_errors, relative_squared_error
from captum_meta.nn import Explainer, PathExplainer
from captum_meta.nn.path_rows import RowPathExplainer
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.types import Explanations

_BATCHES, _TESTED, _STEPS = 200, 40, 17_000
_RATE, _WARM, _DECAY, _AVERAGED = 3e-3, 200, 1e-3, 0.998
_FLOOR, _TOGETHER = 3e-5, 2
_MANY, _FEW_ROWS = 100, 3
_SHOWN = {1: 0, 3: 2, 5: 4, 10: 7}
"""Numbers of gradients, and their places among a family's variants."""

Variants = list[Explanations]
"""The same rows ``(T, N, M)`` from several numbers of gradients."""


def tasks(seed: int, batches: int) -> list[Variants]:
    """All variants of the first so many batches of the synthetic family of paths."""
    family = SyntheticTaskFamily("path", tasks_per_batch=8, rows=8, seed=seed)
    return [family.variants(index) for index in track(range(batches), description=f"Seed {seed}")]


def fit(seen: Sequence[Variants], steps: int = _STEPS, width: int = 32, depth: int = 2) -> RowPathExplainer:
    """An explainer after so many steps of AdamW, its rate rising for 200 steps and then falling to 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        explainer = RowPathExplainer(width, depth)
    average, generator = deepcopy(explainer), Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(explainer.parameters(), _RATE, weight_decay=_DECAY)
    for step in track(range(steps), description="Fitting"):
        optimizer.param_groups[0]["lr"] = _RATE * min(1, step / _WARM) * (1 - step / steps)
        optimizer.zero_grad()
        torch.stack([_loss(explainer, seen, generator) for _ in range(_TOGETHER)]).sum().backward()
        torch.nn.utils.clip_grad_norm_(explainer.parameters(), 1.0)
        optimizer.step()
        weight = 1 - min(_AVERAGED, (2 + step) / (11 + step))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), explainer.parameters(), strict=True):
                kept.lerp_(new, weight)
    return average.eval().requires_grad_(False)


def _loss(explainer: Explainer, seen: Sequence[Variants], generator: Generator) -> Tensor:
    variants = seen[int(torch.randint(len(seen), (), generator=generator))]
    rows = variants[int(torch.randint(len(variants), (), generator=generator))]
    if rows.attributions.shape[-1] > _MANY:
        rows = rows[:, :_FEW_ROWS]
    return relative_squared_error(explainer(rows.evidence).attributions, rows.attributions, floor=_FLOOR)


@torch.no_grad()
def errors(explainer: Explainer, unseen: Sequence[Variants], place: int) -> Tensor:
    """Relative squared errors of the models from one number of gradients."""
    found = [relative_errors(explainer(some[place].evidence).attributions, some[place].attributions) for some in unseen]
    return torch.cat(found)


def beside(explainer: PathExplainer, rows: RowPathExplainer) -> PathExplainer:
    """The explainer with ``rows`` in it."""
    both = PathExplainer(explainer.width, explainer.depth, rows=True)
    both.load_state_dict({**explainer.state_dict(), **{f"rows.{name}": value for name, value in rows.state_dict().items()}})
    return both.eval().requires_grad_(False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print errors on models of another seed beside those of the network that reads each player, and save."""
    parser = ArgumentParser(prog="python -m captum_meta.training.path_rows", description=main.__doc__)
    parser.add_argument("path", help="of the learner's two files, without their endings")
    path = parser.parse_args(arguments).path
    torch.set_num_threads(1)
    explainer = load_learner("zero-shot", "path").explainer
    assert isinstance(explainer, PathExplainer)
    trained, unseen = fit(tasks(1, _BATCHES)), tasks(7, _TESTED)
    for n, place in _SHOWN.items():
        for name, some in (("by rows", trained), ("by players", explainer)):
            found = errors(some, unseen, place)
            print(f"{n} gradients, {name}: mean {found.mean():.3g}, geometric {(found + 1e-7).log().mean().exp():.3g}")
    ZeroShot(beside(explainer, trained)).save(path)


if __name__ == "__main__":
    main()
