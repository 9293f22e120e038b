"""`captum-meta benchmark players`: the cost of default calls with many players."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import process_time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from captum_meta import attr
from captum_meta.benchmark.journal import kept
from captum_meta.benchmark.memory import in_processes, peak_megabytes
from captum_meta.benchmark.options import add_choices, add_lines
from captum_meta.benchmark.tables import table_of


class Residual(nn.Module):
    """Two convolutions with a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = (
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(4, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.layers(x))


class Sentences(nn.Module):
    """Token ids, or their embeddings, to classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(1000, 32), nn.Linear(32, 4)
        self.mix = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = tokens if tokens.is_floating_point() else self.embed(tokens)
        answer: Tensor = self.out(self.mix(embedded).mean(1))
        return answer


def images() -> nn.Module:
    """A small residual net of 224 x 224 pixels."""
    stem = nn.Sequential(nn.Conv2d(3, 16, 7, 4, 3), nn.ReLU())
    return nn.Sequential(
        stem, Residual(16), nn.MaxPool2d(2), Residual(16), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10)
    )


def sounds() -> nn.Module:
    """A convolutional net of 16,000 samples."""
    first, second = nn.Conv1d(1, 16, 64, 16), nn.Conv1d(16, 32, 8, 4)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool1d(8), nn.Flatten(), nn.Linear(256, 10))


def patches(size: int, patch: int) -> Tensor:
    """The patch of each pixel, ``(1, 1, size, size)``."""
    index = torch.arange(size) // patch
    return (index.unsqueeze(1) * (size // patch) + index).reshape(1, 1, size, size)


@dataclass(frozen=True)
class Case:
    """A model, one row, and the players of its features."""

    model: Callable[[], nn.Module]
    x: Callable[[], Tensor]
    mask: Callable[[], Tensor] | None = None


CASES = {
    "196 patches": Case(images, lambda: torch.randn(1, 3, 224, 224), lambda: patches(224, 16)),
    "160 windows": Case(sounds, lambda: torch.randn(1, 1, 16000), lambda: (torch.arange(16000) // 100).reshape(1, 1, -1)),
    "128 tokens": Case(Sentences, lambda: torch.randn(1, 128, 32), lambda: torch.arange(128).reshape(1, 128, 1)),
    "128 token ids": Case(Sentences, lambda: torch.randint(1000, (1, 128))),
    "150,528 pixels": Case(images, lambda: torch.randn(1, 3, 224, 224)),
}
SHAPLEY = ("MetaKernelShap", "MetaShapleyValueSampling")
PATHS = ("MetaIntegratedGradients", "MetaGradientShap")
LAYERS = ("MetaLayerIntegratedGradients", "MetaLayerConductance", "MetaInternalInfluence")
CALLS = {
    "196 patches": SHAPLEY,
    "160 windows": (*SHAPLEY, *PATHS),
    "128 tokens": (*SHAPLEY, *PATHS),
    "128 token ids": LAYERS[:1],
    "150,528 pixels": (*SHAPLEY, *PATHS, *LAYERS),
}


class _Counted:
    """A model that counts evaluations: a row's forward is 1, and 3 where it is differentiated."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.evaluations = model, 0

    def __call__(self, *inputs: Any) -> Any:
        self.evaluations += len(inputs[0]) * (3 if torch.is_grad_enabled() else 1)
        return self.model(*inputs)


@dataclass(frozen=True)
class Call:
    """What one default call of one row cost.

    Attributes:
        case, front_end: which call.
        evaluations: of the model.
        megabytes: peak resident memory of the process above that of one gradient of the model.
        seconds: of one core.
        gradients: the time in gradients of the model.
    """

    case: str
    front_end: str
    evaluations: int
    megabytes: float
    seconds: float
    gradients: float


def measure(case: str, front_end: str) -> Call:
    """To be called in a process of its own: peaks do not go down again."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, x, mask = CASES[case].model().eval(), CASES[case].x(), CASES[case].mask
    counted = _Counted(model)
    layer = [model.embed if isinstance(model, Sentences) else model[0]] if front_end in LAYERS else []  # type: ignore[index]
    method = getattr(attr, front_end)(counted, *layer)
    arguments: dict[str, Any] = {"target": 0}
    if front_end in SHAPLEY and mask is not None:
        arguments["feature_mask"] = mask()
    if front_end == "MetaGradientShap":
        arguments["baselines"] = torch.zeros_like(x)
    for _ in range(2):
        start = process_time()
        model(x).sum().backward()
        gradient = process_time() - start
    before, start = peak_megabytes(), process_time()
    method.attribute(x, **arguments)
    seconds = process_time() - start
    return Call(case, front_end, counted.evaluations, peak_megabytes() - before, seconds, seconds / max(gradient, 1e-6))


def table(calls: Sequence[Call]) -> Table:
    """One line per call."""
    columns = ("players", "front end", "evaluations", "MB above one gradient", "s", "time, in gradients")
    shown = table_of("Default calls of one row of many players", columns, ("players", "front end"))
    for c in calls:
        numbers = (f"{c.evaluations:,}", f"{c.megabytes:.0f}", f"{c.seconds:.1f}", f"{c.gradients:.0f}")
        shown.add_row(c.case, c.front_end, *numbers)
    return shown


def main(arguments: Sequence[str]) -> None:
    """Measure default calls with many players (patches, windows of a sound, tokens, pixels): evaluations, memory, time."""
    parser = ArgumentParser(prog="captum-meta benchmark players", description=main.__doc__)
    add_choices(parser, "--cases", CASES, "CASE")
    add_lines(parser)
    options = parser.parse_args(arguments)
    cases = [(case, front_end) for case in options.cases for front_end in CALLS[case]]
    Console(width=110).print(table(list(kept(options.output, in_processes(measure, cases)))))
