"""Explanation tasks without end: random models of many kinds, trained on random data or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from captum_meta.games import BatchedGames
from captum_meta.tasks import encoded_models, random_data, random_models
from captum_meta.tasks.batched_games import (
    long_integrated_gradients,
    path_explanations,
    shapley_explanations,
)
from captum_meta.tasks.random_data import pick
from captum_meta.tasks.random_models import BatchedModel, integer, train
from captum_meta.types import Explanations, Kind


@runtime_checkable
class Architecture(Protocol):
    """A class of :mod:`captum_meta.tasks.random_models` or :mod:`captum_meta.tasks.encoded_models`."""

    has_gradient: bool

    def __call__(self, n_tasks: int, n_players: int, width: int, outputs: int, generator: Generator, /) -> BatchedModel: ...


_TABLE_MODELS: tuple[Architecture, ...] = (
    random_models.MLP,
    random_models.MLP,
    random_models.ResidualMLP,
    random_models.Transformer,
    random_models.Interactions,
    random_models.Trees,
)
_ENCODED_MODELS: tuple[Architecture, ...] = (
    encoded_models.PiecewiseLinear,
    encoded_models.Stepped,
    encoded_models.Gated,
    encoded_models.AttentionPooling,
)
_LARGE_MODELS: tuple[Architecture, ...] = (
    random_models.MLP,
    random_models.ResidualMLP,
    encoded_models.Gated,
    encoded_models.Stepped,
    encoded_models.AttentionPooling,
)
_IMAGE_MODELS: tuple[Architecture, ...] = (random_models.Convolutional, random_models.Convolutional, random_models.MLP)
_SENTENCE_MODELS: dict[Kind, tuple[Architecture, ...]] = {
    "shapley": (
        random_models.Transformer,
        random_models.Transformer,
        random_models.Recurrent,
        encoded_models.LongMemory,
        encoded_models.AttentionPooling,
    ),
    "path": (random_models.Encoder, random_models.Encoder, random_models.Transformer, random_models.Recurrent),
}
_DOMAINS = {
    "shapley": ("table", "table", "table", "table", "encoded", "encoded", "large", "sentence", "sentence", "image"),
    "path": ("table", "table", "table", "sentence", "sentence", "image"),
}
"""Deep encoders are explained by Integrated Gradients alone, as labels of their Shapley values cost too much."""
_GRIDS = {
    "shapley": ((2, 3), (3, 2), (3, 3), (4, 2), (4, 2), (5, 2)),
    "path": ((2, 3), (3, 2), (3, 3), (4, 2), (5, 2), (7, 2), (5, 4)),
}
"""Patches along an image's side, and pixels along a patch's: paths have up to 400 pixels as players."""
_PLAYERS = (2, 3, 4, 5, 6, 7, 8, 8, 9, 10, 10, 11, 12, 12, 13, 14, 16, 18, 20, 24, 28, 32, 40)
_PLAYERS_COSTLY = (3, 4, 5, 6, 7, 8, 8, 9, 9, 10, 14, 18)
_PLAYERS_LARGE = (30, 40, 60, 80, 120, 200)
_STEPS = {"shapley": (0, 30, 100, 300, 800), "path": (0, 30, 100, 300)}
_SHARPNESS = {"shapley": (1.0, 1.0, 3.0, 6.0), "path": (1.0, 1.0, 3.0)}
"""Factors of the logits before a softmax: saturated classes are the hardest to explain."""
_BASELINES = {
    "shapley": ("zero", "zero", "mean", "row", "constant", "far"),
    "path": ("zero", "zero", "mean", "row", "constant"),
}
_FAR = 3.0
"""Distance of baselines far from the data, in standard deviations: zero, where data were not standardised."""
_PATH_POINTS = (1, 2, 3, 4, 5, 6, 8, 10, 12)
_MOST_NUMBERS = 400
_LABEL_TOLERANCE = 1e-2


@dataclass(frozen=True)
class SyntheticTaskFamily:
    """A task family of random models; batch number ``index`` is the same on every machine and in any order.

    MLPs, residual nets, transformers over features and over token embeddings, recurrent nets, small convolutional nets
    on image patches, games of interactions of chosen order and sums of trees; for Shapley values also piecewise linear
    encodings, players that enter by steps, mixtures and masks, LSTMs and attention pooling. Random or trained for a while;
    logits, probabilities, some of them saturated, or regressions; baselines that are zero, the mean, a constant, another row
    or far from the data; 2 to 40 players, and up to 200 of Shapley values.

    Args:
        kind: ``"shapley"`` or ``"path"``, what the tasks are labelled with.
        tasks_per_batch: models of one architecture that are made and evaluated together.
        rows: explained rows of each model.
        seed: of the whole family.

    >>> family = SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=3)
    >>> family[0].attributions.shape[:2]
    torch.Size([2, 3])
    """

    kind: Kind = "shapley"
    tasks_per_batch: int = 16
    rows: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _DOMAINS:
            raise ValueError(f"kind is {self.kind!r}: pass one of {', '.join(map(repr, _DOMAINS))}.")

    def __getitem__(self, index: int) -> Explanations:
        """Explanations ``(T, N, M)`` of batch ``index``."""
        return self.variants(index)[0]

    def games(self, index: int) -> BatchedGames:
        """The models and rows of batch ``index``, before anything is measured."""
        return self._games(self._generator(index))

    def first_games(self, index: int, wanted: Callable[[int, Architecture], bool]) -> BatchedGames:
        """The first models, from batch ``index`` on, whose number of players and architecture are ``wanted``."""
        while True:
            generator = self._generator(index)
            x, architecture = self._drawn(generator)
            if wanted(x.shape[2], architecture):
                return self._explained(x, *self._trained(x, architecture, generator), generator)
            index += 1

    def variants(self, index: int) -> list[Explanations]:
        """All explanations made of the models of batch ``index``: for paths, one for each number of points."""
        generator = self._generator(index)
        games = self._games(generator)
        seed = int(torch.randint(2**31, (), generator=generator))
        if self.kind == "shapley":
            budget = 2 * games.shape[2] * 2 ** integer(0, 3, generator)
            return [shapley_explanations(games, min(budget, 192), seed).detach()]
        each_number = games.inputs[0, 0].numel() <= _MOST_NUMBERS and pick(generator, True, False)
        reference = long_integrated_gradients(games, each_number)
        rows = rightly_labelled(reference, games.along(torch.tensor([0.0, 1.0])).diff(dim=-1).squeeze(-1))
        explained = (path_explanations(games, n, each_number, reference).detach() for n in _PATH_POINTS)
        return [explanations[torch.arange(len(rows)).unsqueeze(-1), rows] for explanations in explained]

    def _generator(self, index: int) -> Generator:
        return Generator().manual_seed(self.seed * 1_000_003 + index)

    def _games(self, generator: Generator) -> BatchedGames:
        x, architecture = self._drawn(generator)
        return self._explained(x, *self._trained(x, architecture, generator), generator)

    def _drawn(self, generator: Generator) -> tuple[Tensor, Architecture]:
        """Data ``(T, R, M, V)`` and the architecture to train on them."""
        domain = pick(generator, *_DOMAINS[self.kind])
        n_rows = 256
        if domain == "image":
            grid, patch = pick(generator, *_GRIDS[self.kind])
            x = random_data.patches(self.tasks_per_batch, n_rows, grid, patch, generator)
            architecture = pick(generator, *_IMAGE_MODELS)
        elif domain == "sentence":
            n_players = pick(generator, *_PLAYERS_COSTLY)
            width = 8 if self.kind == "shapley" else pick(generator, 8, 16)
            x = random_data.sentences(self.tasks_per_batch, n_rows, n_players, width, generator)
            architecture = pick(generator, *_SENTENCE_MODELS[self.kind])
        elif domain == "large":
            x = random_data.tables(self.tasks_per_batch, n_rows, pick(generator, *_PLAYERS_LARGE), generator)
            architecture = pick(generator, *_LARGE_MODELS)
        elif domain == "encoded":
            x = random_data.tables(self.tasks_per_batch, n_rows, pick(generator, *_PLAYERS), generator)
            architecture = pick(generator, *_ENCODED_MODELS)
        else:
            models = [model for model in _TABLE_MODELS if self.kind == "shapley" or model.has_gradient]
            architecture = pick(generator, *models)
            players = _PLAYERS_COSTLY if architecture is random_models.Transformer else _PLAYERS
            n_players = pick(generator, *players)
            x = random_data.tables(self.tasks_per_batch, n_rows, n_players, generator)
        return x, architecture

    def _trained(self, x: Tensor, architecture: Architecture, generator: Generator) -> tuple[BatchedModel, int]:
        """Models that learned from the data, and the number of their outputs."""
        n_outputs = pick(generator, 1, 2, 2, 3, 5)
        model = architecture(self.tasks_per_batch, x.shape[2], x.shape[3], n_outputs, generator)
        targets = random_data.teacher_outputs(x, n_outputs, generator)
        steps = pick(generator, *_STEPS[self.kind]) // model.step_cost
        train(model, x, targets, n_outputs > 1, steps, pick(generator, 0.003, 0.01, 0.02))
        return model, n_outputs

    def _explained(self, x: Tensor, model: BatchedModel, n_outputs: int, generator: Generator) -> BatchedGames:
        """One output of each model at the first rows, against baselines."""
        inputs = x[:, : self.rows]
        baselines = _baselines(x, self.rows, pick(generator, *_BASELINES[self.kind]), generator)
        probability = n_outputs > 1 and pick(generator, True, False)
        sharpness = pick(generator, *_SHARPNESS[self.kind])
        with torch.no_grad():
            outputs = model(inputs)
        chosen = outputs.argmax(-1) if pick(generator, True, False) else torch.zeros(outputs.shape[:2], dtype=torch.long)

        def function(batch: Tensor, rows: Tensor) -> Tensor:
            values = model(batch)
            values = (sharpness * values).softmax(-1) if probability else values
            return values.gather(-1, chosen[:, rows].unsqueeze(-1)).squeeze(-1)

        return BatchedGames(function, inputs, baselines, model.has_gradient)


def rightly_labelled(labels: Tensor, totals: Tensor) -> Tensor:
    """Indices ``(T, N)`` of rows; in place of one whose label's sum misses f(input) - f(baseline), its model's best."""
    missed = (labels.sum(-1) - totals).abs() / labels.norm(dim=-1).clamp(min=1e-12)
    own = torch.arange(labels.shape[1]).expand_as(missed)
    return torch.where(missed > _LABEL_TOLERANCE, missed.argmin(-1, keepdim=True), own)


def _baselines(x: Tensor, rows: int, choice: str, generator: Generator) -> Tensor:
    inputs = x[:, :rows]
    if choice == "zero":
        return torch.zeros_like(inputs)
    if choice == "mean":
        return x.mean(1, keepdim=True).expand_as(inputs).clone()
    if choice == "row":
        return x[:, rows : 2 * rows].clone()
    if choice == "far":
        away = _FAR * random_data.normal((len(x), 1, *x.shape[2:]), generator)
        return (x.mean(1, keepdim=True) + away).expand_as(inputs).clone()
    return x[:, rows : rows + 1].expand_as(inputs).clone()
