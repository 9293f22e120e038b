"""Each loss of its formula, written out a row at a time."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from captum_meta import losses
from captum_meta.learners import MAML
from captum_meta.nn import ShapleyExplainer
from captum_meta.optim import FirstOrder
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.types import ExplanationTask

LOSSES = {
    "mean": losses.mean_squared_error,
    "scaled": losses.scaled_squared_error,
    "relative": losses.relative_squared_error,
    "cosine": losses.cosine_and_magnitude,
    "entropy": losses.importance_cross_entropy,
}


def rows(seed: int) -> Tensor:
    return torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(name: str, predicted: Tensor, reference: Tensor) -> float:
    tasks = []
    for p, r in zip(predicted.tolist(), reference.tolist(), strict=True):
        squares = [[(a - b) ** 2 for a, b in zip(x, y, strict=True)] for x, y in zip(p, r, strict=True)]
        squared, size = sum(map(sum, squares)), sum(b**2 for y in r for b in y)
        lengths = [math.sqrt(sum(b**2 for b in y)) for y in r]
        small = 1e-3 * math.sqrt(sum(length**2 for length in lengths) / len(r))
        by_row = []
        for x, y, length in zip(p, r, lengths, strict=True):
            far, near = math.sqrt(sum(a**2 for a in x)) + small, length + small
            cosine = sum(a * b for a, b in zip(x, y, strict=True)) / (far * near)
            least = 1e-3 * sum(map(abs, y)) / len(y)
            total = sum(abs(a) + least for a in x)
            entropy = -sum(abs(b) / sum(map(abs, y)) * math.log((abs(a) + least) / total) for a, b in zip(x, y, strict=True))
            by_row.append({"cosine": 1 - cosine + math.log(far / near) ** 2, "entropy": entropy})
        tasks.append(
            {
                "mean": squared / (len(p) * len(p[0])),
                "scaled": squared / size,
                "relative": math.log(0.0005 + squared / size),
                **{key: sum(row[key] for row in by_row) / len(by_row) for key in ("cosine", "entropy")},
            }[name]
        )
    return sum(tasks) / len(tasks)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_its_formula(name: str) -> None:
    predicted, reference = rows(0), rows(1)
    assert float(LOSSES[name](predicted, reference)) == pytest.approx(plain(name, predicted, reference), rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_smallest_at_the_reference(name: str) -> None:
    reference = rows(1)
    at = float(LOSSES[name](reference, reference))
    assert all(at < float(LOSSES[name](reference + 0.3 * rows(seed), reference)) for seed in range(2, 8))


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_where_attributions_are_zero(name: str) -> None:
    for reference in (torch.zeros(2, 3, 4), torch.ones(2, 3, 4)):
        predicted = torch.zeros(2, 3, 4, requires_grad=True)
        (gradient,) = torch.autograd.grad(LOSSES[name](predicted, reference), [predicted])
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-30, 1e-19, 1e-9, 1.0, 1e9])
@pytest.mark.parametrize("zeros", ["rows", "players", "none"])
def test_second_derivatives_are_finite_whatever_is_zero_or_small(name: str, size: float, zeros: str) -> None:
    reference = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)) * size
    reference[:, 1 if zeros == "rows" else slice(None), 2 if zeros == "players" else slice(None)] *= float(zeros == "none")
    for start in (torch.zeros(2, 3, 4), 1e-30 * torch.ones(2, 3, 4), reference, torch.ones(2, 3, 4)):
        predicted = start.clone().requires_grad_()
        loss = LOSSES[name](predicted, reference)
        (gradient,) = torch.autograd.grad(loss, predicted, create_graph=True)
        assert loss.isfinite() and gradient.isfinite().all()
        if gradient.requires_grad:
            (second,) = torch.autograd.grad((gradient * torch.ones_like(gradient)).sum(), predicted, allow_unused=True)
            assert second is None or second.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_second_order_maml_survives_rows_without_attributions(name: str) -> None:
    torch.manual_seed(0)
    rows = SyntheticTaskFamily("shapley", tasks_per_batch=3, rows=10, seed=5)[6]
    attributions, effects, total = rows.attributions.clone(), rows.evidence.effects.clone(), rows.evidence.total.clone()
    attributions[:, ::3], effects[:, ::3], total[:, ::3] = 0.0, 0.0, 0.0
    rows = replace(
        rows, attributions=attributions, evidence=replace(rows.evidence, effects=effects, total=total, coalitions=None)
    )
    learner = MAML(ShapleyExplainer(16, 1), steps=3, inner_loss=LOSSES[name]).train()
    optimizer = torch.optim.Adam(learner.parameters(), 0.01)
    for _ in range(4):
        optimizer.zero_grad()
        learner.loss(ExplanationTask(rows[:, :6], rows[:, 6:])).backward()
        assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in learner.parameters())
        optimizer.step()
    assert all(parameter.isfinite().all() for parameter in learner.parameters())


def test_a_reference_whose_square_underflows_has_no_relative_error() -> None:
    predicted = torch.zeros(1, 1, 2, requires_grad=True)
    loss = LOSSES["relative"](predicted, torch.full((1, 1, 2), 1e-23))
    (gradient,) = torch.autograd.grad(loss, [predicted])
    assert torch.equal(loss, LOSSES["relative"](torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)))
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", ["mean", "scaled", "relative"])
def test_noise_in_the_labels_does_not_change_a_loss_on_average(name: str) -> None:
    predicted, reference = torch.zeros(1, 20000, 4), torch.ones(1, 20000, 4)
    noise = 0.5 * torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    clean = float(LOSSES[name](predicted, reference))
    told = float(LOSSES[name](predicted, reference + noise, torch.full_like(noise, 0.25)))
    expected = clean * 1.25 if name == "scaled" else clean
    assert told == pytest.approx(expected, rel=0.02, abs=0.01)


def own_loss(predicted: Tensor, reference: Tensor, variance: Tensor | None) -> Tensor:
    return (predicted - reference).abs().sum((-2, -1)).mean()


@pytest.mark.parametrize("loss", [*LOSSES.values(), own_loss], ids=[*LOSSES, "own"])
def test_an_inner_loop_minimises_any_loss(loss: object) -> None:
    torch.manual_seed(0)
    support = SyntheticTaskFamily("shapley", tasks_per_batch=3, rows=6, seed=5)[1]
    support = replace(support, evidence=replace(support.evidence, coalitions=None))
    learner = MAML(ShapleyExplainer(16, 1), steps=20, rate=1e-3, inner_loss=loss)
    start = learner.start(3)
    problem = learner.problem(support, start)
    assert problem.loss(FirstOrder().solve(problem, start)) < problem.loss(start)
