"""`python -m captum_meta.training.descent`: learn the descent of networks that are stacked upon a :class:`FeatureMAML`.

Where it was tried, backpropagating through these steps exploded; a dozen constants are few enough for evolution strategies
(Salimans et al. 2017): what is minimised is the logarithm of the error that the networks, trained
on 16 support rows of a synthetic model, make in the Shapley values of its other rows.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import replace

import torch
from rich.progress import track
from torch import Generator, Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from captum_meta.estimators import sample_coalitions
from captum_meta.games import BatchedGames
from captum_meta.learners import FeatureMAML, Stacking, load_learner
from captum_meta.nn import LearnedDescent
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.tasks.batched_games import shapley_explanations
from captum_meta.types import Coalitions, Explanations, ExplanationTask

_SUPPORT, _ROWS, _EVALUATIONS, _GRADIENT_COST = 16, 28, 16, 3
_PLAYERS = range(4, 21)
_BATCHES, _TESTED, _STEPS = 100, 30, 200
_PAIRS, _SIGMA, _RATE, _TOGETHER, _AVERAGED = 4, 0.15, 0.06, 4, 0.95
_WITHOUT_GRADIENTS, _FEW_ROWS = 0.12, 0.25
_FLOOR, _WORST = 3e-3, 10.0
_LENGTH = 60
"""Steps of the descent."""


def tasks(seed: int, batches: int) -> list[ExplanationTask]:
    """Models of one architecture each, that have a gradient and 4 to 20 players, with coalitions of their support rows."""
    family, found = SyntheticTaskFamily("shapley", tasks_per_batch=8, rows=_ROWS, seed=seed), []
    for index in track(range(batches), description=f"Seed {seed}"):
        games = family.games(index)
        if games.has_gradient and games.shape[2] in _PLAYERS:
            found.append(_task(games))
    return found


def _task(games: BatchedGames) -> ExplanationTask:
    explained = shapley_explanations(games, 0, seed=0).detach()
    elements = torch.stack([games.inputs, games.baselines], dim=-1)
    explained = replace(explained, evidence=replace(explained.evidence, coalitions=None, elements=elements))
    support, query = explained[:, :_SUPPORT], explained[:, _SUPPORT:]
    return ExplanationTask(replace(support, evidence=replace(support.evidence, coalitions=_coalitions(games))), query)


def _coalitions(games: BatchedGames) -> Coalitions:
    """Values and gradients at as many coalitions of the support rows as are measured of a real model."""
    n_tasks, _, n_players = games.shape
    everyone = torch.ones(n_tasks * _SUPPORT, n_players, dtype=torch.bool)
    count = _EVALUATIONS * n_players // _GRADIENT_COST - 2
    inside, _ = sample_coalitions(everyone, min(count, 2**n_players - 2), 0, torch.arange(len(everyone)))
    ends = torch.tensor([True, False]).reshape(1, 2, 1).expand(len(everyone), -1, n_players)
    members = torch.cat([inside, ends], dim=1).unflatten(0, (n_tasks, _SUPPORT))
    inputs, baselines = (side[:, :_SUPPORT].unsqueeze(2) for side in (games.inputs, games.baselines))
    points = torch.where(members.unsqueeze(-1), inputs, baselines).flatten(1, 2).requires_grad_(True)
    with torch.enable_grad():
        values = games.function(points, torch.arange(_SUPPORT).repeat_interleave(members.shape[2]))
    gradients = torch.autograd.grad(values.sum(), points)[0].unflatten(1, (_SUPPORT, -1))
    values = values.detach().unflatten(1, (_SUPPORT, -1))
    return Coalitions(members, values - values[..., -1:], torch.ones_like(values, dtype=torch.bool), gradients)


def log_error(learner: Stacking, task: ExplanationTask) -> Tensor:
    """Logarithms of the relative squared errors of the networks' Shapley values for the query rows, ``(T,)``."""
    found = learner.distilled_values(learner.distil(task.support), task.query.evidence)
    truth = task.query.attributions
    error = (found - truth).square().sum((-2, -1)) / truth.square().sum((-2, -1)).clamp(min=1e-12)
    return (error.nan_to_num(_WORST, _WORST).clamp(max=_WORST) + _FLOOR).log()


@torch.no_grad()
def train(learner: Stacking, seen: Sequence[ExplanationTask], steps: int = _STEPS, seed: int = 0) -> None:
    """Follow antithetic estimates of the gradient; the learner is left with the average of its last steps."""
    generator = Generator().manual_seed(seed)
    parameters = list(learner.surrogate.parameters())
    here = parameters_to_vector(parameters).requires_grad_(True)
    average = here.detach().clone()
    optimizer = torch.optim.Adam([here], _RATE)
    for step in track(range(steps), description="Learning the descent"):
        here.grad = torch.zeros_like(here)
        for _ in range(_PAIRS):
            task, noise = _drawn(seen, generator), torch.randn(here.shape, generator=generator)
            errors = []
            for sign in (1, -1):
                vector_to_parameters(here.detach() + sign * _SIGMA * noise, parameters)
                errors.append(log_error(learner, task))
            difference = (errors[0] - errors[1]).clamp(-1, 1).mean()
            here.grad += difference * noise / (2 * _SIGMA * _PAIRS)
        optimizer.step()
        average.lerp_(here.detach(), max(1 - _AVERAGED, 1 / (step + 1)))
    vector_to_parameters(average, parameters)


def _drawn(seen: Sequence[ExplanationTask], generator: Generator) -> ExplanationTask:
    """Some models of a batch, now and then with their values alone or half of their rows."""
    task = seen[int(torch.randint(len(seen), (), generator=generator))]
    some = torch.randperm(len(task.query.attributions), generator=generator)[:_TOGETHER]
    task = ExplanationTask(_chosen(task.support, some), _chosen(task.query, some))
    kind = float(torch.rand((), generator=generator))
    coalitions = task.support.evidence.coalitions
    if kind < _WITHOUT_GRADIENTS and coalitions is not None:
        plain = replace(task.support.evidence, coalitions=replace(coalitions, gradients=None))
        return replace(task, support=replace(task.support, evidence=plain))
    return replace(task, support=task.support[:, : _SUPPORT // 2]) if kind < _WITHOUT_GRADIENTS + _FEW_ROWS else task


def _chosen(rows: Explanations, some: Tensor) -> Explanations:
    return rows.map(lambda value: value[some])


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn the descent of a learner, and print its error on models of another seed before and after."""
    parser = ArgumentParser(prog="python -m captum_meta.training.descent", description=main.__doc__)
    parser.add_argument("source", help="path of a saved FeatureMAML, as captum-meta fit writes it")
    parser.add_argument("target", help="path to which the stacking is saved")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    base = load_learner(options.source)
    assert isinstance(base, FeatureMAML), f"{options.source} is no FeatureMAML: train one by captum-meta fit."
    learner = Stacking(base, LearnedDescent(_LENGTH))
    seen, unseen = tasks(131, _BATCHES), tasks(132, _TESTED)

    def tested() -> float:
        with torch.no_grad():
            return float(torch.cat([log_error(learner, task) for task in unseen]).mean().exp())

    before = tested()
    train(learner, seen)
    learner.save(options.target)
    print(
        f"Error of the networks on unseen models (geometric mean): {before:.4f}, and with the learned descent {tested():.4f}"
    )


if __name__ == "__main__":
    main()
