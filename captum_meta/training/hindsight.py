"""The best fixed learner in hindsight, as a reference for online learning."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Generator, nn

from captum_meta.learners import MetaLearner
from captum_meta.losses import relative_errors
from captum_meta.training.buffer import TaskBuffer, is_finite_task
from captum_meta.types import ExplanationTask


@dataclass(frozen=True)
class Hindsight:
    r"""The best fixed learner that was found for a whole stream, and its errors in the rounds.

    Attributes:
        learner: ready to explain.
        errors: of every round, after adapting on its support rows.
    """

    learner: MetaLearner
    errors: list[float]

    def regret(self, errors: Sequence[float]) -> list[float]:
        r"""By how much the errors of an online learner exceed those of the fixed one, cumulated over rounds.

        .. math:: R_t = \sum_{s \le t} e_s(w_s) - e_s(w^*)

        Rounds without an error (NaN) count nothing.

        Raises:
            ValueError: if there are not as many errors as rounds.
        """
        if len(errors) != len(self.errors):
            raise ValueError(f"There are {len(errors)} errors for {len(self.errors)} rounds: pass one for each.")
        gaps = torch.tensor(errors, dtype=torch.float64) - torch.tensor(self.errors, dtype=torch.float64)
        return list(accumulate(gaps.nan_to_num(nan=0.0).tolist()))


def best_in_hindsight(
    learner: MetaLearner,
    tasks: Sequence[ExplanationTask],
    steps: int = 1000,
    every: int = 100,
    learning_rate: float = 2e-3,
    tasks_per_step: int = 8,
    seed: int = 0,
) -> Hindsight:
    """The best fixed learner for all rounds of a stream, as far as training on all of them finds it.

    The exact minimum over meta-parameters, with which regret is defined, cannot be computed. This is the one of least mean
    error over the rounds among ``learner`` and what ``steps`` steps of AdamW on all rounds make of it, looked at after every
    ``every`` steps. It was trained on the very rounds on which it is measured, as hindsight is; the regret against it is a
    lower bound.

    Args:
        learner: where it starts; it is not changed.
        tasks: of all rounds, ``(T, K, M)`` and ``(T, N, M)`` each.
        steps, every, learning_rate, tasks_per_step, seed: of the training.

    Raises:
        ValueError: if there are no tasks, or none is finite.
    """
    if not any(map(is_finite_task, tasks)):
        raise ValueError("There are no rounds with finite explanations to look back on: pass the tasks of the stream.")
    own = deepcopy(learner).requires_grad_(True)
    best = Hindsight(deepcopy(own).eval().requires_grad_(False), stream_errors(own, tasks))
    buffer = TaskBuffer(sum(len(task.query.attributions) for task in tasks))
    for task in filter(is_finite_task, tasks):
        buffer.add(task)
    optimizer = torch.optim.AdamW(own.parameters(), learning_rate, weight_decay=1e-4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator().manual_seed(seed)
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            own.train().loss(buffer.draw(tasks_per_step, generator)).backward()
            if nn.utils.clip_grad_norm_(own.parameters(), 1.0).isfinite():
                optimizer.step()
            if step % every == 0 or step == steps:
                errors = stream_errors(own, tasks)
                if np.nansum(errors) < np.nansum(best.errors):
                    best = Hindsight(deepcopy(own).eval().requires_grad_(False), errors)
    return best


@torch.no_grad()
def stream_errors(learner: MetaLearner, tasks: Sequence[ExplanationTask]) -> list[float]:
    """Relative squared error of a fixed learner in each round, after adapting on its support rows: mean over its tasks.

    NaN where the round's evidence or attributions are not finite.
    """
    mode = learner.training
    learner.eval()
    errors = []
    for task in tasks:
        if not is_finite_task(task):
            errors.append(torch.nan)
            continue
        state = learner.adapt(task.support) if len(task.support) else learner.initial_state()
        predicted = learner.predict(state, task.query.evidence)
        errors.append(float(relative_errors(predicted, task.query.attributions, task.query.variance).mean()))
    learner.train(mode)
    return errors
