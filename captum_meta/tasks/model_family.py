"""Explanation tasks from the user's own models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from itertools import product
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from typing_extensions import Self

from captum_meta.evidence import Game, measure_bent_path, measure_shapley
from captum_meta.tasks.explained_data import ExplainedData, Model
from captum_meta.tasks.fingerprint import fingerprint
from captum_meta.tasks.labelling import LabelError, Teacher, evaluating, labelled, path_reference, shapley_reference
from captum_meta.types import Evidence, Explanations, Kind


class ModelTaskFamily:
    """A task for each pair of one of your models and one of your data sets; each is a batch of its own.

    The models are only run, in eval mode and where they lie (the rows are brought to their device), and are afterwards what
    they were. What a task depends on (weights and code of the model, data, teacher and its arguments) is hashed into its
    description, so that labels kept in a folder are made once, and again where something changed.

    Args:
        models: modules or callables; or, with ``load``, whatever it makes a model from: paths of checkpoints, numbers.
        datasets: rows to explain, one set or several; a tensor stands for ``ExplainedData(tensor)``.
        teacher: makes the Captum method whose answers are the labels: a class such as ``captum.attr.KernelShap`` or
            ``lambda model: ...``. None: exact Shapley values up to 12 players, beyond paired KernelSHAP with 32 M coalitions
            a row (Captum's own takes rows and samples one by one, and some forty times as long); for paths Integrated
            Gradients of 96 gradients.
        teacher_arguments: of its ``attribute``, such as ``{"n_samples": 1000}``.
        repeats: how often the teacher is asked, with new random numbers. Labels are the means and weigh by their variance;
            for noisy teachers that are right on average (permutation sampling; not KernelShap of few samples).
        load: from an entry of ``models`` to the model; called when the model is needed, and the model is not kept.
        kind: what the explainer to be trained predicts: ``"shapley"``, ``"path"`` or ``"general"``.
        rows: explained rows of each task, drawn from the data set without replacement.
        coalitions: measured as evidence of each row, as a multiple of its players; training hides part of it at random.
        points: for paths, the numbers of gradients measured, each a view of the task.
        keys: what stands for the contents of each model, one string each, where it cannot be hashed (a function, a remote
            service); change it when the model changes.
        teacher_key: the same for the teacher.
        seed: of the rows drawn, the coalitions and the teacher.

    Raises:
        ValueError: if there is no such kind, there are no models or no data, or the keys are not one for each model.

    >>> family = ModelTaskFamily([nn.Linear(4, 2), nn.Linear(4, 2)], torch.randn(20, 4), rows=8)
    >>> len(family), family.variants(0)[0].attributions.shape
    (2, torch.Size([1, 8, 4]))
    """

    def __init__(
        self,
        models: Iterable[Any],
        datasets: Tensor | ExplainedData | Sequence[Tensor | ExplainedData],
        teacher: Teacher | None = None,
        *,
        teacher_arguments: dict[str, Any] | None = None,
        repeats: int = 1,
        load: Callable[[Any], Model] | None = None,
        kind: Kind = "shapley",
        rows: int = 32,
        coalitions: int = 4,
        points: Sequence[int] = (3, 5, 10),
        keys: Sequence[str] | None = None,
        teacher_key: str | None = None,
        seed: int = 0,
    ) -> None:
        self.models, self.load = list(models), load
        given = [datasets] if isinstance(datasets, (Tensor, ExplainedData)) else list(datasets)
        self.datasets = [data if isinstance(data, ExplainedData) else ExplainedData(data) for data in given]
        self.teacher, self.teacher_arguments, self.repeats = teacher, dict(teacher_arguments or {}), repeats
        self.kind, self.rows, self.coalitions, self.points, self.seed = kind, rows, coalitions, tuple(points), seed
        self.keys, self.teacher_key = None if keys is None else list(keys), teacher_key
        _check(self)
        self.pairs = list(product(range(len(self.models)), range(len(self.datasets))))
        self._hashes: dict[tuple[str, int], str] = {}
        self._outputs: dict[int, torch.Size] = {}

    def __len__(self) -> int:
        """Tasks: pairs of a model and a data set."""
        return len(self.pairs)

    def hold_out(self, models: Sequence[int] = (), datasets: Sequence[int] = ()) -> tuple[Self, Self]:
        """Two families without a common task: one without these models and data sets, and the rest.

        Raises:
            ValueError: if one of the two would be empty.
        """
        left: list[tuple[int, int]] = []
        held: list[tuple[int, int]] = []
        for model, data in self.pairs:
            (held if model in models or data in datasets else left).append((model, data))
        return self._only(left), self._only(held)

    def variants(self, index: int) -> list[Explanations]:
        """Views ``(1, rows, M)`` of task ``index``: one, or for paths one for each number of points.

        Raises:
            LabelError: if the task cannot be labelled: which model, which data, which rows, and why.
        """
        model_number, data_number = self.pairs[index]
        data = self.datasets[data_number]
        try:
            model = self._model(model_number)
            with evaluating(model):
                self._compare_outputs(model, data_number)
                return self._explained(model, data, self._seed(index))
        except LabelError as error:
            raise LabelError(
                f"Model {model_number} on {data.name!r} cannot be explained: {error} The tasks labelled before are kept; "
                "mend or leave out this one, and run again."
            ) from error

    def description(self, index: int) -> dict[str, Any]:
        """All that task ``index`` depends on.

        Raises:
            TypeError: if a model or the teacher cannot be hashed by its contents and has no key.
        """
        model, data = self.pairs[index]
        return {
            "family": "ModelTaskFamily",
            "model": self._hash("model", model),
            "data": self._hash("data", data),
            "teacher": self._hash("teacher", 0),
            "measured": [self.kind, self.rows, self.coalitions, list(self.points), self.repeats, self.seed],
        }

    def _only(self, pairs: list[tuple[int, int]]) -> Self:
        if not pairs:
            raise ValueError("No task would be left on one side: hold out some of the models or data sets, not all or none.")
        some = copy(self)
        some.pairs = pairs
        return some

    def _model(self, number: int) -> Model:
        entry = self.models[number]
        if self.load is None:
            return entry
        # Lightning asks for validation tasks in inference mode, in which a loader could neither train a model nor make
        # parameters that gradients pass.
        with torch.inference_mode(False), torch.enable_grad():
            return self.load(entry)

    def _seed(self, index: int) -> int:
        """Of rows and random numbers, by contents where they are known, so that it does not depend on the other tasks."""
        try:
            described = self.description(index)
        except TypeError:
            return self.seed * 1_000_003 + index
        return int(fingerprint([described["model"], described["data"], self.seed])[:12], 16)

    def _hash(self, what: Literal["model", "data", "teacher"], number: int) -> str:
        known = self._hashes
        if (what, number) not in known:
            known[what, number] = getattr(self, f"_hash_{what}")(number)
        return known[what, number]

    def _hash_model(self, number: int) -> str:
        if self.keys is not None:
            return f"key {self.keys[number]}"
        model = self._model(number)
        if not isinstance(model, nn.Module) and not isinstance(getattr(model, "__self__", None), nn.Module):
            raise TypeError(
                f"Model {number} is a {type(model).__name__}, not a module, so its contents cannot be hashed and its labels "
                "cannot be kept: pass keys=, one string for each model that changes when the model does, or folder=None."
            )
        return fingerprint(model)

    def _hash_data(self, number: int) -> str:
        return fingerprint(self.datasets[number])

    def _hash_teacher(self, number: int) -> str:
        try:
            return fingerprint([self.teacher_key or self.teacher, self.teacher_arguments])
        except TypeError as error:
            raise TypeError(f"The teacher or its arguments cannot be hashed: {error}. Pass teacher_key=.") from error

    def _compare_outputs(self, model: Model, data_number: int) -> None:
        """The model's outputs must be those of the first model: as many, in the same shape."""
        row = self.datasets[data_number].take(torch.arange(1))
        if data_number not in self._outputs:
            first = self._model(self.pairs[0][0])
            with evaluating(first):
                self._outputs[data_number] = row.beside(first).outputs(first).shape[1:]
        shape, expected = row.beside(model).outputs(model).shape[1:], self._outputs[data_number]
        if shape != expected:
            raise LabelError(
                f"it gives outputs of shape (B, {', '.join(map(str, shape))}), but model {self.pairs[0][0]} of this family "
                f"(B, {', '.join(map(str, expected))}): make a family of models with equal outputs."
            )

    def _explained(self, model: Model, data: ExplainedData, seed: int) -> list[Explanations]:
        chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[: self.rows]
        data = data.take(chosen).beside(model)
        game = Game(
            model,
            data.inputs,
            data.baselines,
            data.targets(model),
            data.additional_forward_args,
            data.feature_mask,
        )
        labels, variance = self._labels(game, seed)
        broken = (~labels.isfinite()).any(1).nonzero().flatten().tolist()
        if broken:
            raise LabelError(f"the teacher's attributions of rows {chosen[broken].tolist()} of the data are not finite.")
        return [_task(evidence, labels, variance, game) for evidence in self._evidence(game)]

    def _evidence(self, game: Game) -> list[Evidence]:
        if self.kind == "path":
            return [measure_bent_path(game, n)[0] for n in self.points]
        return [measure_shapley(game, self.coalitions * game.players.count, self.seed)]

    def _labels(self, game: Game, seed: int) -> tuple[Tensor, Tensor]:
        """Labels and the variance of their noise, both ``(N, M)``."""
        if self.teacher is None:
            reference = path_reference if self.kind == "path" else shapley_reference
            labels = reference(game, seed)
            return labels, torch.zeros_like(labels)
        answers = torch.stack([labelled(self.teacher, self.teacher_arguments, game, seed + i) for i in range(self.repeats)])
        mean = answers.mean(0)
        return mean, torch.zeros_like(mean) if self.repeats == 1 else answers.var(0) / self.repeats


def _check(family: ModelTaskFamily) -> None:
    if family.kind not in get_args(Kind):
        raise ValueError(f"kind is {family.kind!r}: pass one of {', '.join(map(repr, get_args(Kind)))}.")
    if not family.models:
        raise ValueError("The family has no models: pass at least one.")
    if not family.datasets or any(len(data) == 0 for data in family.datasets):
        raise ValueError("The family has no data to explain: pass at least one data set, and rows in each.")
    short = [data for data in family.datasets if len(data) < family.rows]
    if short:
        raise ValueError(
            f"{short[0].name!r} has {len(short[0])} rows, but each task explains {family.rows}: pass more rows, or rows=."
        )
    if family.keys is not None and len(family.keys) != len(family.models):
        raise ValueError(f"There are {len(family.keys)} keys for {len(family.models)} models: pass one for each.")
    if family.repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {family.repeats}.")


def _task(evidence: Evidence, labels: Tensor, variance: Tensor, game: Game) -> Explanations:
    """One task ``(1, N, M)`` on the CPU, in single precision."""
    target = game.batch.target
    classes = target if isinstance(target, Tensor) and target.shape == (len(labels),) else None
    rows = Explanations(evidence, labels, variance, None if classes is None else classes.long())
    return rows.detach().to("cpu", torch.float32)[None]
