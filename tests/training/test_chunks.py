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
from captum_meta.training.chunks import loss_in_chunks
from captum_meta.types import ExplanationTask


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


def test_no_tasks_at_a_time_are_refused() -> None:
    with pytest.raises(ValueError, match="task_chunk_size=0"):
        MetaLearningModule(ANIL(ShapleyExplainer(8, 1)), task_chunk_size=0)
