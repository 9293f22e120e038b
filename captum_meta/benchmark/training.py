"""`captum-meta benchmark training`: an explainer for a family of classifiers of one's own, from nothing to the comparison.

Versions of a classifier (bootstrap samples of the same data, widths and seeds of their own) stand for the user's models.
Those to learn from are explained by the paired KernelSHAP reference, the shipped explainer is trained further on these
tasks, and both explain rows and versions that neither has seen.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from captum_meta.attr import MetaKernelShap
from captum_meta.benchmark.journal import append_line
from captum_meta.benchmark.nets import perceptron
from captum_meta.benchmark.options import add_lines
from captum_meta.benchmark.references import sampled_shapley
from captum_meta.benchmark.tables import table_of
from captum_meta.evidence import Game
from captum_meta.learners import MetaLearner, load_learner
from captum_meta.losses import relative_errors
from captum_meta.tasks import ModelTaskFamily

_BUDGETS = (0, 2, 4, 8)
_TASKS, _ROWS = 8, 24
"""Tasks, and rows of each, per training step."""


class Version(nn.Module):
    """A classifier that gives probabilities and counts the seconds of its forwards."""

    seconds = 0.0

    def __init__(self, n_features: int, n_classes: int, width: int) -> None:
        super().__init__()
        self.net = perceptron(n_features, width, width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        start = perf_counter()
        output = self.net(x).softmax(1)
        Version.seconds += perf_counter() - start
        return output


def versions(x: Tensor, y: Tensor, count: int, width: int) -> list[Version]:
    """``count`` classifiers, each trained on a bootstrap sample."""
    made = []
    for seed in range(count):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Version(x.shape[1], int(y.max()) + 1, width + width // 4 * (seed % 3 - 1))
            drawn = torch.randint(len(x), (len(x),))
            optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
            for _ in range(150):
                batch = drawn[torch.randint(len(x), (128,))]
                optimizer.zero_grad()
                nn.functional.cross_entropy(model.net(x[batch]), y[batch]).backward()
                optimizer.step()
        made.append(model.eval().requires_grad_(False))
    return made


def train_further(train: ModelTaskFamily, validation: ModelTaskFamily, folder: str, steps: int) -> dict[str, float]:
    """Label, train from the shipped weights, write the learner to ``folder/learner``; returns the seconds of each."""
    from lightning import Trainer

    from captum_meta.training import ExplanationTaskDataModule, MetaLearningModule

    data = ExplanationTaskDataModule(
        train, validation, None, None, steps, folder=folder, batches_per_step=_TASKS, rows_per_step=_ROWS
    )
    module = MetaLearningModule(load_learner("zero-shot"), learning_rate=1e-3, warmup_steps=steps // 10)
    seconds: dict[str, float] = {}
    Version.seconds = 0.0
    with _timed(seconds, "labels"):
        data.setup("fit")
    seconds["model"] = Version.seconds
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    with _timed(seconds, "training"):
        trainer.fit(module, data)
    module.learner.save(Path(folder) / "learner")
    return seconds


def errors(learners: dict[str, MetaLearner], models: Sequence[Version], x: Tensor, pairs: int) -> dict[str, np.ndarray]:
    """Relative squared errors of each learner on the rows ``x``, ``(models, budgets)``; the reference's noise taken off."""
    found: dict[str, list[list[float]]] = {name: [] for name in learners}
    for model in track(models, description="Comparing on held-out versions"):
        target = model(x).argmax(1)
        right = sampled_shapley(Game(model, x, None, target), pairs)
        for name, learner in learners.items():
            method = MetaKernelShap(model, learner=learner)
            answers = [method.attribute(x, target=target, n_samples=budget * x.shape[1]) for budget in _BUDGETS]
            noise = right.standard_error.square()
            found[name].append([float(relative_errors(answer, right.values, noise)) for answer in answers])
    return {name: np.array(values) for name, values in found.items()}


def main(arguments: Sequence[str]) -> None:
    """Train the shipped explainer further on versions of a classifier, and compare on versions that it has not seen."""
    parser = ArgumentParser(prog="captum-meta benchmark training", description=main.__doc__)
    parser.add_argument("--models", type=int, default=40, help="how many versions to learn from (default: 40)")
    parser.add_argument("--held-out", type=int, default=10, help="how many versions to compare on (default: 10)")
    parser.add_argument(
        "--width", type=int, default=384, help="hidden width of the classifiers, which varies by a quarter (default: 384)"
    )
    parser.add_argument("--rows", type=int, default=64, help="explained rows of each version to learn from (default: 64)")
    parser.add_argument("--steps", type=int, default=1200, help="training steps, of 8 models each (default: 1200)")
    parser.add_argument("--pairs", type=int, default=500, help="pairs of permutations for the reference (default: 500)")
    add_lines(parser)
    options = parser.parse_args(arguments)
    start = perf_counter()
    x, y = _breast_cancer()
    seen, unseen = slice(0, 400), slice(400, 416)
    models = versions(x[seen], y[seen], options.models + options.held_out, options.width)
    made = perf_counter() - start
    family = ModelTaskFamily(models[: options.models], x[seen], rows=options.rows)
    train, validation = family.hold_out(models=range(options.models - max(1, options.models // 10), options.models))
    with TemporaryDirectory() as folder:
        seconds = train_further(train, validation, folder, options.steps)
        learners = {"shipped": load_learner("zero-shot"), "trained further": load_learner(Path(folder) / "learner")}
    seconds = {"whole": perf_counter() - start, "models": made, **seconds}
    found = errors(learners, models[options.models :], x[unseen], options.pairs)
    console = Console(width=120)
    console.print(_table(found))
    console.print(_durations(seconds, len(family), len(models), options.rows, options.steps))
    if options.output is not None:
        settings = {name: value for name, value in vars(options).items() if name != "output"}
        values = {name: value.tolist() for name, value in found.items()}
        append_line(options.output, {**settings, "budgets": _BUDGETS, "seconds": seconds, "errors": values})


def _breast_cancer() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    order = torch.randperm(len(data.data), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(data.data, dtype=torch.float32)[order]
    return (x - x.mean(0)) / x.std(0), torch.tensor(data.target)[order]


def _table(found: dict[str, np.ndarray]) -> Table:
    count = len(next(iter(found.values())))
    title = f"median / mean error over {count} held-out classifiers; coalitions beside 3 gradients, multiples of M"
    table = table_of(title, ("explainer", *map(str, _BUDGETS)), ("explainer",))
    for name, values in found.items():
        table.add_row(name, *(f"{np.median(column):.4f} / {column.mean():.4f}" for column in values.T))
    before, after = found["shipped"], found["trained further"]
    fallen = [1 - summary(after, axis=0) / summary(before, axis=0) for summary in (np.median, np.mean)]
    table.add_row("fallen by", *(f"{median:.0%} / {mean:.0%}" for median, mean in zip(*fallen, strict=True)))
    return table


def _durations(seconds: dict[str, float], tasks: int, models: int, rows: int, steps: int) -> str:
    outside = 1 - seconds["model"] / seconds["labels"]
    return (
        f"{seconds['whole']:.0f} s to the explainer: {seconds['models']:.0f} s for {models} classifiers, "
        f"{seconds['labels']:.0f} s for labels ({tasks / seconds['labels']:.2f} tasks/s of {rows} rows, {outside:.0%} of "
        f"it outside the models), {seconds['training']:.0f} s for {steps} steps "
        f"({steps * _TASKS / seconds['training']:.0f} tasks/s of {_ROWS} rows)"
    )


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[what] = perf_counter() - start
