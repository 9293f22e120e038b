"""Steps differentiated a few tasks at a time: the same training in less memory."""

import weakref
from pathlib import Path

import pytest
import small_run
import torch
from torch import Tensor

from captum_meta.benchmark.step import random_tasks
from captum_meta.learners import ANIL, MetaLearner
from captum_meta.nn import ShapleyExplainer
from captum_meta.training import MetaLearningModule
from captum_meta.training.chunks import loss_in_chunks, loss_of_shares
from captum_meta.types import ExplanationTask
from tests.learners import contract
from tests.learners.contract import LEARNERS, Batches, build, tasks_for

batches = contract.batches


class Kept:
    """A tensor kept for the backward pass."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


def peak(learner: MetaLearner, tasks: ExplanationTask, size: int) -> int:
    """Most elements kept for backward passes at one time."""
    now, most = 0, 0

    def free(count: int) -> None:
        nonlocal now
        now -= count

    def keep(value: Tensor) -> Kept:
        nonlocal now, most
        kept = Kept(value.detach())
        weakref.finalize(kept, free, value.numel())
        now += value.numel()
        most = max(most, now)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.value):
        loss_in_chunks(learner, tasks, size).backward()
    return most


def test_memory_grows_with_the_chunk_and_not_with_the_tasks() -> None:
    learner = ANIL(ShapleyExplainer(8, 1), steps=1)
    few, many = random_tasks()[:4], random_tasks()[:8]
    assert peak(learner, many, 2) < 1.05 * peak(learner, few, 2) < 0.4 * peak(learner, many, 8)


def trained(folder: Path, **settings: int) -> list[Tensor]:
    torch.manual_seed(0)
    learner = ANIL(ShapleyExplainer(8, 1), steps=1)
    module = MetaLearningModule(learner, warmup_steps=1, **settings).double()
    small_run.trainer(folder, max_epochs=1).fit(module, small_run.data(folder))
    return [parameter.detach() for parameter in learner.parameters()]


@pytest.mark.parametrize("settings", [{"task_chunk_size": 3}, {"task_chunk_size": 1, "shares": 2}])
def test_training_in_chunks_is_training(settings: dict[str, int], tmp_path: Path) -> None:
    expected, got = trained(tmp_path), trained(tmp_path, **settings)
    for value, right in zip(got, expected, strict=True):
        assert torch.allclose(value, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in LEARNERS if " " not in name])
def test_two_shares_are_two_ranks_bit_for_bit(name: str, batches: Batches) -> None:
    """In single precision, as DDP adds: each rank's gradient over the number of ranks."""
    learner = build(name).train()
    tasks = tasks_for(learner, batches)[:2]
    shares = [tasks[:1], tasks[1:]]
    loss_of_shares(learner, shares, learner.loss).backward()
    got = [parameter.grad for parameter in learner.parameters()]
    ranks = []
    for share in shares:
        learner.zero_grad()
        learner.loss(share).backward()
        ranks.append([None if parameter.grad is None else parameter.grad / 2 for parameter in learner.parameters()])
    for value, first, second in zip(got, *ranks, strict=True):
        if value is None:
            assert first is None and second is None
        else:
            zero = torch.zeros_like(value)
            assert torch.equal(value, (zero if first is None else first) + (zero if second is None else second))


def test_four_shares_are_two_ranks_of_two_shares_each() -> None:
    torch.manual_seed(0)
    learner, tasks = ANIL(ShapleyExplainer(8, 1), steps=2), random_tasks()[:8]
    gradients = []
    for start in (0, 1):
        learner.zero_grad()
        rank = tasks[start::2]
        loss_of_shares(learner, [rank[::2], rank[1::2]], learner.loss).backward()
        gradients.append([parameter.grad / 2 for parameter in learner.parameters() if parameter.grad is not None])
    learner.zero_grad()
    loss_of_shares(learner, [tasks[start::4] for start in range(4)], learner.loss).backward()
    together = [parameter.grad for parameter in learner.parameters() if parameter.grad is not None]
    assert all(torch.equal(value, one + two) for value, one, two in zip(together, *gradients, strict=True))


def test_no_tasks_at_a_time_are_refused() -> None:
    with pytest.raises(ValueError, match="task_chunk_size=0"):
        MetaLearningModule(ANIL(ShapleyExplainer(8, 1)), task_chunk_size=0)
