"""Streams of models whose family drifts away from what the shipped explainer was trained on.

On every day a multi-layer perceptron with other random weights learns the task anew. From the first day to the last

- its width grows from 32 to 192-256 (in training the widest has 64),
- its activation turns from ReLU or tanh into the sine or a Gaussian bump, which training never had,
- its logits are sharpened before the softmax, up to 1.5 times, so that probabilities saturate,
- its inputs become correlated: two factors come to carry 50 to 80 % of their variance,

and the task itself changes slowly. On day 30 a feature is added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor, nn

from captum_meta.tasks import ExplainedData

Activation = Callable[[Tensor], Tensor]

DAYS, MORE_FEATURES = 60, 30
_ROWS, _STEPS, _FEATURES, _HIDDEN, _CLASSES, _FACTORS = 600, 120, 12, 8, 3, 2


def _bump(x: Tensor) -> Tensor:
    return torch.exp(-x.square())


_FAMILIAR: tuple[Activation, ...] = (torch.relu, torch.tanh)
_STRANGE: tuple[Activation, ...] = (torch.sin, _bump)


class Classifier(nn.Module):
    """Two hidden layers whose activation lies the share ``strangeness`` on the way from ``familiar`` to ``strange``."""

    def __init__(self, sizes: tuple[int, int, int], familiar: Activation, strange: Activation, strangeness: float) -> None:
        super().__init__()
        inputs, width, outputs = sizes
        self.layers = nn.ModuleList([nn.Linear(inputs, width), nn.Linear(width, width)])
        self.out = nn.Linear(width, outputs)
        self.familiar, self.strange, self.strangeness = familiar, strange, strangeness
        self.sharpness = 1.0

    def logits(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
            x = (1 - self.strangeness) * self.familiar(x) + self.strangeness * self.strange(x)
        logits: Tensor = self.out(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return (self.sharpness * self.logits(x)).softmax(1)


@dataclass(frozen=True)
class Drift:
    """From the day to the day's model and rows, for :class:`~captum_meta.tasks.ModelStream`; all follows from the seed.

    >>> model, data = Drift(seed=3)(0)
    >>> model(data.inputs).shape
    torch.Size([600, 3])
    """

    seed: int

    def __call__(self, day: int) -> tuple[Classifier, ExplainedData]:
        x, y = self._rows(day)
        return self._trained(day, x, y), ExplainedData(x, name=f"day {day}")

    @cached_property
    def _ends(self) -> dict[str, Tensor]:
        """What the stream begins and ends with."""
        generator = Generator().manual_seed(self.seed * 1_000_003)
        return {
            "features": torch.randint(7, 10, (), generator=generator),
            "kinds": torch.randint(4, (), generator=generator),
            "share": torch.rand(2, generator=generator),
            "loadings": nn.functional.normalize(torch.randn(2, _FACTORS, _FEATURES, generator=generator), dim=1),
            "inner": torch.randn(2, _FEATURES, _HIDDEN, generator=generator),
            "outer": torch.randn(_HIDDEN, _CLASSES, generator=generator),
            "phase": torch.randn(_HIDDEN, generator=generator),
        }

    def _rows(self, day: int) -> tuple[Tensor, Tensor]:
        ends, gone = self._ends, day / (DAYS - 1)
        generator = self._generator(day)
        count = int(ends["features"]) + (day >= MORE_FEATURES)
        shared = gone * (0.5 + 0.3 * float(ends["share"][0]))
        factors = torch.randn(_ROWS, _FACTORS, generator=generator) @ ends["loadings"][0].lerp(ends["loadings"][1], gone)
        x = shared**0.5 * factors + (1 - shared) ** 0.5 * torch.randn(_ROWS, _FEATURES, generator=generator)
        x = x[:, :count]
        inner = ends["inner"][0].lerp(ends["inner"][1], gone)[:count]
        hidden = torch.sin(1.5 * x @ nn.functional.normalize(inner, dim=0) + ends["phase"])
        return x, (hidden @ ends["outer"]).argmax(1)

    def _trained(self, day: int, x: Tensor, y: Tensor) -> Classifier:
        ends, gone = self._ends, day / (DAYS - 1)
        width = round(32 * ((192 + 64 * float(ends["share"][1])) / 32) ** gone)
        familiar, strange = _FAMILIAR[int(ends["kinds"]) % 2], _STRANGE[int(ends["kinds"]) // 2]
        generator = self._generator(day)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            model = Classifier((x.shape[1], width, _CLASSES), familiar, strange, gone)
            optimizer = torch.optim.Adam(model.parameters(), 3e-3)
            for _ in range(_STEPS):
                rows = torch.randint(_ROWS, (64,))
                optimizer.zero_grad()
                nn.functional.cross_entropy(model.logits(x[rows]), y[rows]).backward()
                optimizer.step()
        model.sharpness = 1.5**gone
        return model.eval().requires_grad_(False)

    def _generator(self, day: int) -> Generator:
        return Generator().manual_seed(self.seed * 1_000_003 + day + 1)
