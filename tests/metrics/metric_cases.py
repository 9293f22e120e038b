"""All metrics in one table, and one batch of data for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from captum.attr import Saliency
from torch import Tensor, nn

from captum_meta import functional, metrics


class Classifier(nn.Module):
    """Three classes from features (2, 3); dropout moves the random state in train mode."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


class Explanation:
    """An explanation function that pickles."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, inputs: Tensor, target: Any = None) -> Tensor:
        return Saliency(self.model).attribute(inputs, target, abs=False)


@dataclass(frozen=True)
class Case:
    metric: type[metrics.ExplanationMetric]
    function: Callable[..., Tensor]
    arguments: Callable[[nn.Module], tuple[Any, ...]] = lambda model: ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.metric.__name__

    def make(self, model: nn.Module, **kwargs: Any) -> metrics.ExplanationMetric:
        return self.metric(*self.arguments(model), **self.options, **kwargs)

    def score(self, model: nn.Module, data: dict[str, Any], **kwargs: Any) -> Tensor:
        return self.function(*self.arguments(model), **self.select(data), **self.options, **kwargs)

    def select(self, data: dict[str, Any]) -> dict[str, Any]:
        names = inspect.signature(self.metric.update).parameters
        return {name: value for name, value in data.items() if name in names}

    @property
    def evaluates(self) -> bool:
        return "inputs" in inspect.signature(self.metric.update).parameters


def on_model(model: nn.Module) -> tuple[Any, ...]:
    return (model,)


def on_method(model: nn.Module) -> tuple[Any, ...]:
    return (Explanation(model),)


def on_both(model: nn.Module) -> tuple[Any, ...]:
    return (Explanation, model)


CASES = [
    Case(metrics.AttributionError, functional.attribution_error),
    Case(metrics.TopKAgreement, functional.top_k_agreement, options={"k": 3, "kind": "sign"}),
    Case(metrics.RankCorrelation, functional.rank_correlation),
    Case(metrics.Sparseness, functional.sparseness),
    Case(metrics.Complexity, functional.complexity),
    Case(metrics.PointingGame, functional.pointing_game),
    Case(metrics.RelevanceRankAccuracy, functional.relevance_rank_accuracy),
    Case(metrics.DeletionAUC, functional.deletion_auc, on_model, {"n_steps": 4}),
    Case(metrics.InsertionAUC, functional.insertion_auc, on_model),
    Case(metrics.Comprehensiveness, functional.comprehensiveness, on_model),
    Case(metrics.Sufficiency, functional.sufficiency, on_model),
    Case(metrics.CompletenessError, functional.completeness_error, on_model),
    Case(metrics.Infidelity, functional.infidelity, on_model),
    Case(metrics.FaithfulnessCorrelation, functional.faithfulness_correlation, on_model, {"n_perturb_samples": 20}),
    Case(metrics.MaxSensitivity, functional.max_sensitivity, on_method, {"n_perturb_samples": 4}),
    Case(metrics.LocalLipschitz, functional.local_lipschitz, on_method, {"n_perturb_samples": 4}),
    Case(metrics.ParameterRandomisation, functional.parameter_randomisation, on_both),
]


def make_data(n_rows: int = 8) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)

    def normal() -> Tensor:
        return torch.randn(n_rows, 2, 3, generator=generator)

    relevant = torch.rand(n_rows, 2, 3, generator=generator) < 0.4
    relevant[:, 0, 0] = True
    return {
        "attributions": normal(),
        "reference": normal(),
        "relevant": relevant,
        "inputs": normal(),
        "baselines": 0.1 * normal(),
        "target": torch.randint(0, 3, (n_rows,), generator=generator),
    }


def take(data: dict[str, Any], rows: Any) -> dict[str, Any]:
    return {name: value[rows] for name, value in data.items()}
