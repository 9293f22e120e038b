"""The explained model as a batch of cooperative games."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor

from captum_meta import _captum
from captum_meta.games.arguments import Outputs, fill
from captum_meta.games.attempts import Place
from captum_meta.games.batch import Batch
from captum_meta.games.evaluation import Evaluation
from captum_meta.games.players import Players, Tensors, join

_T = TypeVar("_T")


class Game:
    """The explained model's values at coalitions and along the path, and its gradients there.

    A game has one row for each row of the inputs. Where the model answers for a whole batch at once, the batch is one row,
    whose players are changed in all examples at once. Where it gives ``K`` outputs per row and no target selects one,
    answers have ``K`` entries in their last dimension, and all of them come from the same evaluations.

    Args:
        forward_func, inputs, baselines, target, additional_forward_args, feature_mask: as in Captum.
        max_rows: rows of the explained model evaluated, or differentiated, at once; None for a number that fits into memory.
        label: what a progress bar over the coalitions is called; None for no bar.

    Raises:
        AssertionError: for arguments that Captum refuses.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        inputs: Tensor | Tensors,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Any = None,
        max_rows: int | None = None,
        label: str | None = None,
    ) -> None:
        formatted, starts = _captum.format_input_baseline(inputs, baselines)
        tensors, filled = fill(tuple(tensor.detach() for tensor in formatted), starts)
        masks = None if feature_mask is None else _captum.format_tensor_into_tuples(feature_mask)
        players = Players.of(tensors, masks)
        assert len(players.mask) in (1, len(tensors[0])), (
            f"feature_mask has {len(players.mask)} rows for {len(tensors[0])} examples: pass one row, or one each."
        )
        extra = _captum.format_additional_forward_args(additional_forward_args)
        self.batch = Batch(forward_func, tensors, filled, target, extra, players)
        self.evaluation = Evaluation(self.batch, max_rows)
        self.label = label
        if len(self.players.mask) > 1:
            self._share_players()

    def _share_players(self) -> None:
        """Rows that must be evaluated together have their players together: those of equal ids are one."""
        self.at(torch.ones(1))
        if self.together and self.n_examples > 1:
            self.batch = self.evaluation.batch = replace(self.batch, players=self.players.of_all_rows())

    @property
    def inputs(self) -> Tensors:
        """For each input ``(B, *features)``."""
        return self.batch.inputs

    @property
    def baselines(self) -> Tensors:
        """For each input ``(B, *features)``."""
        return self.batch.baselines

    @property
    def players(self) -> Players:
        """Which player each element of the inputs belongs to."""
        return self.batch.players

    @property
    def device(self) -> torch.device:
        """Where the inputs lie."""
        return self.batch.device

    @property
    def n_examples(self) -> int:
        """Examples in the inputs' batch."""
        return len(self.batch)

    @property
    def n_rows(self) -> int:
        """Rows of the game: examples, or 1 where the model answers for the whole batch at once."""
        return self.evaluation.n_rows

    @property
    def together(self) -> bool:
        """Whether all rows must be evaluated at once, with the same coalition; known after the first evaluation."""
        return bool(self.evaluation.together)

    @property
    def coupled(self) -> bool:
        """Whether a row's value depends on the other rows; known after the first gradients."""
        return self.evaluation.coupled

    @property
    def output_shape(self) -> torch.Size:
        """Of one row's selected outputs."""
        return self.evaluation.output_shape or torch.Size()

    @property
    def precision(self) -> float:
        """Of the outputs, or of coarser numbers inside the model; 0 of whole numbers, and before there was an output."""
        return self.evaluation.precision

    @property
    def answers(self) -> tuple[int, ...]:
        """The shape of what is explained: each row's outputs, or those of the whole batch."""
        outputs = tuple(self.output_shape)
        return outputs or (1,) if self.evaluation.aggregated else (self.n_rows, *outputs)

    @property
    def difference(self) -> Float[Tensor, "N elements"]:
        """``(N, elements)``, input minus baseline."""
        return self.batch.difference

    @property
    def finite(self) -> bool:
        """Whether all differences are finite."""
        return self.batch.finite

    @property
    def mask(self) -> Bool[Tensor, "N M"]:
        """``(N, M)`` bool, which players each row of the game has."""
        return self.players.mask.expand(self.n_rows, -1)

    @property
    def changed(self) -> Bool[Tensor, "N M"]:
        """``(N, M)`` bool, players of whom an input is not its baseline, in any row of rows that belong together."""
        changed = self.batch.changed()
        return changed.any(0, keepdim=True).expand(self.n_rows, -1) if self.together else changed

    @property
    def labels(self) -> Int64[Tensor, " N"] | None:
        """The target of each row, ``(N,)`` int64, where there is one class index for each or for all."""
        target = self.batch.target
        if isinstance(target, int):
            return torch.full((self.n_rows,), target)
        if isinstance(target, Tensor) and target.numel() in (1, self.n_rows):
            return target.reshape(-1).expand(self.n_rows).cpu()
        if isinstance(target, list) and all(isinstance(entry, int) for entry in target):
            return torch.tensor(target)
        return None

    @property
    def output_numbers(self) -> Int64[Tensor, " K"] | None:
        """Indices of the K outputs, ``(K,)``; None where a target selects one."""
        target, count = self.batch.target, self.output_shape.numel()
        if isinstance(target, Outputs) and target.indices is not None:
            return torch.tensor(target.indices)
        return torch.arange(count) if count > 1 else None

    def take(self, rows: Int64[Tensor, " R"]) -> Game:
        """The game of some of the examples."""
        return self.of(self.batch.take(rows))

    def of(self, batch: Batch) -> Game:
        """The game of another batch of the same model."""
        other = Game.__new__(Game)
        other.batch, other.evaluation, other.label = batch, self.evaluation.of(batch), self.label
        return other

    def once(self, name: Hashable, ask: Callable[[], _T]) -> _T:
        """``ask()``, which games that remember call once for each ``name``."""
        return ask()

    def values(self, members: Bool[Tensor, "N S M"], wanted: Bool[Tensor, "N S"] | None = None) -> Num[Tensor, "N S K"]:
        """f of the coalitions ``(N, S, M)``, as ``(N, S, K)``; only of those ``wanted`` ``(N, S)``, and 0 for the others."""
        return self.evaluation.values(members.shape[1], self._at_coalitions(members), wanted, self.label)

    def at(self, points: Float[Tensor, "*rows G"]) -> Num[Tensor, "N G K"]:
        """f at points of the path from baseline (0) to input (1), ``(G,)`` or ``(N, G)``, as ``(N, G, K)``."""
        return self.evaluation.values(points.shape[-1], self._along(points))

    def at_each(self, rows: Int64[Tensor, " R"], points: Float[Tensor, " R"]) -> Num[Tensor, "R K"]:
        """f of rows ``(R,)``, each at one point of its path, ``(R, K)``; only where rows are known to be answered alone."""
        alphas = self._alphas(points)
        return self.evaluation.each(rows, lambda rows, turns: self.batch.between(rows, alphas[turns]))

    def effects(self, points: Float[Tensor, "*rows G"]) -> tuple[Float[Tensor, "N M G K"], Num[Tensor, "N G K"]] | None:
        """Gradient x (input - baseline) of each player at points of the path, and f there.

        Returns:
            ``(N, M, G, K)`` and ``(N, G, K)``; None where the model has no gradient, or its rows act on each other.
        """

        def of_players(gradients: Tensors, rows: Tensor) -> Tensor:
            return self.batch.effects(rows, gradients)

        found = self.evaluation.gradients(points.shape[-1], self._along(points), of_players)
        return None if self.coupled else found

    def gradients(
        self, points: Float[Tensor, "*rows G"]
    ) -> tuple[Float[Tensor, "N elements G K"], Num[Tensor, "N G K"]] | None:
        """Gradient of each element at points of the path, and f there.

        Where rows act on each other it is the gradient of the sum of all rows' f.

        Args:
            points: ``(G,)``, or ``(N, G)`` where each row has its own.

        Returns:
            ``(N, elements, G, K)`` and ``(N, G, K)``; None where the model has no gradient.
        """
        return self.evaluation.gradients(points.shape[-1], self._along(points), lambda gradients, rows: join(gradients))

    def own_gradients(self) -> tuple[Float[Tensor, "N elements 1 K"], Num[Tensor, "N 1 K"]] | None:
        """:meth:`gradients` at the inputs themselves, all rows side by side as they were passed."""

        def own(rows: Tensor, turns: Tensor) -> Tensors:
            return self.inputs if len(rows) == self.n_examples else tuple(part[rows] for part in self.inputs)

        return self.evaluation.gradients(1, own, lambda gradients, rows: join(gradients), as_passed=True)

    def between(self, rows: Int64[Tensor, " R"], points: Float[Tensor, " R"]) -> Game:
        """The game whose inputs are points ``(R,)`` of the paths of the rows ``(R,)``."""
        inputs = self.batch.between(rows, points.to(self.device, torch.promote_types(self.inputs[0].dtype, torch.float32)))
        return self.of(self.batch.standing_for(rows, inputs, inputs))

    def in_place(self, x: Tensors, which: Int64[Tensor, "B n"]) -> Num[Tensor, "B n K"]:
        """f of each row at those ``which (B, n)`` of other inputs ``x`` ``(R, *features)``, as ``(B, n, K)``.

        An input is evaluated once, however many rows it is for, where no row has arguments of its own.
        """
        return self.evaluation.in_place(x, which)

    def coalition_gradients(
        self, members: Bool[Tensor, "N S M"]
    ) -> tuple[Float[Tensor, "N S M D K"], Num[Tensor, "N S K"]] | None:
        """Gradient of each player's elements, side by side, at coalitions ``(N, S, M)``, and f there.

        Returns:
            ``(N, S, M, D, K)`` and ``(N, S, K)``; None where the model has no gradient, or its rows act on each other.
        """

        def gathered(gradients: Tensors, rows: Tensor) -> Tensor:
            return self.players.rows(rows).gather(gradients)

        found = self.evaluation.gradients(members.shape[1], self._at_coalitions(members), gathered)
        return None if found is None or self.coupled else (found[0].movedim(-2, 1), found[1])

    def _along(self, points: Float[Tensor, "*rows G"]) -> Place:
        alphas = self._alphas(points).expand(self.n_examples, -1)
        return lambda rows, turns: self.batch.between(rows, alphas[rows, turns])

    def _alphas(self, points: Tensor) -> Tensor:
        return points.to(self.device, torch.promote_types(self.inputs[0].dtype, torch.float32).to_real())

    def _at_coalitions(self, members: Bool[Tensor, "N S M"]) -> Place:
        return lambda rows, turns: self.batch.mixed(rows, members[rows if len(members) > 1 else 0 * rows, turns])
