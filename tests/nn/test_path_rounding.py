"""Rounding of what was measured stays rounding in the answer of the path explainer."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor, nn

from captum_meta.attr import MetaIntegratedGradients
from captum_meta.evidence import Game, measure_bent_path
from captum_meta.learners import load_learner
from captum_meta.types import Evidence

DTYPES = (torch.float32, torch.float64)
PLAYERS = 12


def network(activation: nn.Module, *last: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(PLAYERS, 32), activation, nn.Linear(32, 32), activation, nn.Linear(32, 3), *last)


class Pieces(nn.Module):
    """Straight but for a few kinks, so that most intervals have no jump of any gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0] * 2, x.abs().sum(1) + torch.maximum(x[:, 0], x[:, 1]) + x.clamp(-0.5, 0.5).sum(1)], 1)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": lambda: network(nn.ReLU()),
    "ReLU, probabilities": lambda: network(nn.ReLU(), nn.Softmax(1)),
    "GELU": lambda: network(nn.GELU()),
    "GELU, probabilities": lambda: network(nn.GELU(), nn.Softmax(1)),
    "linear": lambda: nn.Linear(PLAYERS, 3),
    "pieces": Pieces,
}


def problem(name: str, dtype: torch.dtype, rows: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = MODELS[name]().to(dtype)
    return model, 2 * torch.randn(rows, PLAYERS, dtype=dtype)


def rounded(evidence: Evidence, seed: int) -> Evidence:
    """The evidence as another processor might have measured it, a few units in the last place of a row's level away."""
    generator = Generator().manual_seed(seed)
    units = 4 * torch.finfo(evidence.total.dtype).eps
    level = evidence.effects.abs().mean((1, 2))

    def shaken(values: Tensor) -> Tensor:
        noise = torch.randn(values.shape, generator=generator, dtype=values.dtype)
        return values + units * noise * (values.abs() + level.reshape(-1, *[1] * (values.dim() - 1)))

    effects = torch.where(evidence.effects == 0, 0.0, shaken(evidence.effects))
    return replace(evidence, effects=effects, curve=shaken(evidence.curve), total=shaken(evidence.total))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("n", [2, 5, 10, 32])
def test_rounding_of_the_evidence_is_not_amplified(n: int, name: str, dtype: torch.dtype) -> None:
    model, x = problem(name, dtype, rows=12)
    learner = load_learner("zero-shot", "path").to(dtype)
    evidence = measure_bent_path(Game(model, x, None, 1), n)[0]
    answer = learner.predict(None, evidence)
    for seed in range(4):
        moved = (learner.predict(None, rounded(evidence, seed)) - answer).norm(dim=1)
        assert (moved <= 80 * torch.finfo(dtype).eps * answer.norm(dim=1)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("n_steps", [2, 3, 5, 10, 20, 32])
def test_a_row_is_explained_alone_as_in_a_batch(n_steps: int, name: str, dtype: torch.dtype) -> None:
    model, x = problem(name, dtype, rows=6)
    attr = MetaIntegratedGradients(model)
    together = attr.attribute(x, target=1, n_steps=n_steps)
    together, x = together[::2], x[::2]
    alone = torch.cat([attr.attribute(row.unsqueeze(0), target=1, n_steps=n_steps) for row in x])
    bound = 1e-5 if dtype == torch.float32 else 1e-12
    assert ((together - alone).norm(dim=1) <= bound * together.norm(dim=1)).all()
