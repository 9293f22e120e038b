"""A network that has learned a curved function, what explains its rows, and what learners say of them."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from captum_meta.attr import MetaKernelShap
from captum_meta.evidence import Game, measure_support, with_elements
from captum_meta.learners import MetaLearner
from captum_meta.types import Explanations, ExplanationTask

PLAYERS, KNOWN = 6, 12


class Trained:
    """A network that has learned a curved function of six inputs, and the rows that explain it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.x = torch.randn(300, PLAYERS)
        wanted = torch.stack([self.x[:, 0] * self.x[:, 1] + self.x[:, 2].sin(), self.x[:, 3].square() - self.x[:, 4]], dim=1)
        self.net = nn.Sequential(nn.Linear(PLAYERS, 32), nn.GELU(), nn.Linear(32, 2))
        optimizer = torch.optim.Adam(self.net.parameters(), 0.01)
        for _ in range(150):
            optimizer.zero_grad()
            (self.net(self.x) - wanted).square().mean().backward()
            optimizer.step()
        self.net.requires_grad_(False)

    def explanations(self, rows: slice, budget: int, target: int | Tensor = 0) -> Explanations:
        game = Game(self.net, self.x[rows], target=target)
        exact = MetaKernelShap(self.net, learner="zero-shot").attribute(
            self.x[rows], target=target, n_samples=2**PLAYERS - 2
        )
        return Explanations(with_elements(measure_support(game, budget, 16 * PLAYERS), game), exact)

    def task(self, budget: int, target: int | Tensor = 0) -> ExplanationTask:
        support = self.explanations(slice(0, KNOWN), budget, target)
        query = self.explanations(slice(KNOWN, 2 * KNOWN), budget, target)
        return ExplanationTask(support, replace(query, evidence=replace(query.evidence, coalitions=None)))


def predicted(learner: MetaLearner, task: ExplanationTask) -> Tensor:
    with torch.no_grad():
        return learner.predict(learner.adapt(task.support), task.query.evidence)
