"""What is timed against each other computes the same."""

import pytest
import torch

from captum_meta.benchmark.step import (
    kept_megabytes,
    learner,
    loop_step,
    our_step,
    random_tasks,
    table,
    time_steps,
    torchopt_step,
)


@pytest.mark.parametrize("fast", ["all", "head"])
@pytest.mark.parametrize("order", ["second", "first"])
def test_the_loop_over_tasks_and_our_step_have_the_same_gradient(fast: str, order: str) -> None:
    maml, tasks = learner(fast, order, 2).double(), random_tasks().to(dtype=torch.float64)
    gradients = []
    for step in (our_step, loop_step):
        step(maml, tasks)
        gradients.append([p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in maml.parameters()])
    for ours, plain in zip(*gradients, strict=True):
        assert torch.allclose(ours, plain, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("fast", ["all", "head"])
def test_torchopts_loop_has_the_gradient_of_our_step_with_its_plain_rule(fast: str) -> None:
    pytest.importorskip("torchopt")
    maml, tasks = learner(fast, "second", 1).double(), random_tasks()[:2].to(dtype=torch.float64)
    maml.rule = maml.rule.rule
    gradients = []
    for step in (our_step, torchopt_step):
        step(maml, tasks)
        gradients.append([p.grad.clone() for p in maml.explainer.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-8)


def test_more_steps_keep_more() -> None:
    kept = [kept_megabytes(learner("all", "second", steps), random_tasks()) for steps in (1, 3)]
    assert kept[1] > 1.5 * kept[0]


def test_a_fast_head_of_first_order_keeps_nothing_of_the_support_rows_body() -> None:
    kept = {order: kept_megabytes(learner("head", order, 1), random_tasks()) for order in ("second", "first")}
    assert kept["first"] < 0.6 * kept["second"]
    assert kept_megabytes(learner("head", "first", 5), random_tasks()) < 1.1 * kept["first"]


def test_the_table_shows_every_timing() -> None:
    assert table([time_steps("head", "first", 1, repeats=1)]).row_count == 1
