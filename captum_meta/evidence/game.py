"""The explained model as a batch of cooperative games."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from captum_meta import _captum
from captum_meta._model import as_tensor, says_no_gradient, untouched, wide
from captum_meta.evidence.arguments import fill, select_outputs, take_rows, take_target
from captum_meta.evidence.players import Players, Tensors, join

_MAX_ROWS = 4096
_MAX_ELEMENTS = 2**25
_MAX_GRADIENT_ELEMENTS = 2**18
_Part = TypeVar("_Part")
_Reduce = Callable[[Tensors, Tensor], Tensor]
_Place = Callable[[Tensor, Tensor], Tensors]
"""Where the rows ``(R,)`` are differentiated, each at the point of its number ``(R,)``."""


class Game:
    """What may be asked of the explained model: the worths of coalitions, and gradients along the path.

    A game has one row for each row of the inputs. Where the model gives one number for a whole batch, the batch is one
    row, whose players are changed in all examples at once. Where it gives ``K`` outputs a row and no target selects one,
    answers have ``K`` entries in their last dimension, and all of them come from the same evaluations.

    Args:
        forward_func, inputs, baselines, target, additional_forward_args, feature_mask: as in Captum.
        max_rows: rows of the explained model evaluated, or differentiated, at once.
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
        self.forward_func, self.label = forward_func, label
        formatted, starts = _captum.format_input_baseline(inputs, baselines)
        self.inputs: Tensors = tuple(tensor.detach() for tensor in formatted)
        self.baselines = fill(self.inputs, starts)
        self.target = target
        self.additional_forward_args = _captum.format_additional_forward_args(additional_forward_args)
        masks = None if feature_mask is None else _captum.format_tensor_into_tuples(feature_mask)
        self.players = Players.of(self.inputs, masks)
        assert len(self.players.mask) in (1, len(self.inputs[0])), (
            f"feature_mask has {len(self.players.mask)} rows for {len(self.inputs[0])} examples: pass one row, or one each."
        )
        elements = max(1, sum(tensor[0].numel() for tensor in self.inputs))
        self.max_rows = max_rows or max(1, min(_MAX_ROWS, _MAX_ELEMENTS // elements))
        # A backward keeps all activations: as many rows as the caller's batch, more only where rows are small.
        self.max_gradient_rows = max_rows or min(self.max_rows, max(self.n_examples, _MAX_GRADIENT_ELEMENTS // elements))
        self.has_gradient = all(tensor.is_floating_point() for tensor in self.inputs)
        self._whole_batch = False
        self._one_at_a_time = False
        self.output_shape: torch.Size | None = None

    @property
    def device(self) -> torch.device:
        """Where the inputs lie."""
        return self.inputs[0].device

    @property
    def n_examples(self) -> int:
        """Examples in the inputs' batch."""
        return len(self.inputs[0])

    @property
    def n_rows(self) -> int:
        """Rows of the game: examples, or 1 where the model gives one number for the whole batch."""
        return 1 if self._whole_batch else self.n_examples

    @property
    def difference(self) -> Tensor:
        """``(N, elements)``, input minus baseline."""
        return join(wide(x) - wide(b) for x, b in zip(self.inputs, self.baselines, strict=True))

    @property
    def mask(self) -> Tensor:
        """``(N, M)`` bool, which players each row of the game has."""
        return self.players.mask.expand(self.n_rows, -1)

    @property
    def labels(self) -> Tensor | None:
        """The target of each row, ``(N,)`` int64, where there is one class index for each or for all."""
        target = self.target
        if isinstance(target, int):
            return torch.full((self.n_rows,), target)
        if isinstance(target, Tensor) and target.numel() in (1, self.n_rows):
            return target.reshape(-1).expand(self.n_rows).cpu()
        if isinstance(target, list) and all(isinstance(entry, int) for entry in target):
            return torch.tensor(target)
        return None

    def take(self, rows: Tensor) -> Game:
        """The game of some of the examples."""
        extra = self.additional_forward_args
        some = Game.__new__(Game)
        some.__dict__.update(self.__dict__)
        some.inputs = tuple(part[rows] for part in self.inputs)
        some.baselines = tuple(part[rows] for part in self.baselines)
        some.target = take_target(self.target, rows, self.n_examples)
        some.additional_forward_args = extra and tuple(take_rows(value, rows, self.n_examples) for value in extra)
        some.players = self.players.rows(rows)
        return some

    def worths(self, members: Tensor, wanted: Tensor | None = None) -> Tensor:
        """f of the coalitions ``(N, S, M)``, as ``(N, S, K)``; only of those ``wanted`` ``(N, S)``, and 0 for the others."""
        with torch.no_grad(), untouched(self.forward_func, self.device):
            if wanted is None:
                rows = torch.arange(len(members), device=self.device).repeat_interleave(members.shape[1])
                return self._worths(members.flatten(0, 1), rows).unflatten(0, members.shape[:2])
            values = self._worths(members[wanted], wanted.nonzero()[:, 0])
        worths = values.new_zeros(*wanted.shape, values.shape[-1])
        worths[wanted] = values
        return worths

    def _worths(self, members: Tensor, rows: Tensor) -> Tensor:
        """f of coalitions ``(S, M)`` of the rows ``(S,)``, ``(S, K)``."""
        if self._whole_batch:
            return torch.cat([self._forward_whole(self._compose(some)) for some in self._shown(members.split(1))])
        parts = list(zip(members.split(self.max_rows), rows.split(self.max_rows), strict=True))
        return torch.cat([self._forward(self._compose(some, chosen), chosen) for some, chosen in self._shown(parts)])

    def _shown(self, parts: Sequence[_Part]) -> Iterable[_Part]:
        return parts if self.label is None else _captum.progress(parts, desc=self.label)

    def at(self, points: Tensor) -> Tensor:
        """f at points of the path from baseline to input, ``(N, G, K)``, without gradients."""
        with torch.no_grad(), untouched(self.forward_func, self.device):
            values = [self._run_all(self._on_path(torch.full((self.n_examples,), float(p)))) for p in points]
        return torch.stack(values, dim=1)

    def effects(self, points: Tensor) -> tuple[Tensor, Tensor] | None:
        """Gradient x (input - baseline) of each player at points of the path, and f there.

        Returns:
            ``(N, M, G, K)`` and ``(N, G, K)``; None where the model has no gradient.
        """

        def collect(gradients: Tensors, rows: Tensor) -> Tensor:
            parts = zip(gradients, self.inputs, self.baselines, strict=True)
            return self.players.rows(rows).collect(tuple(g * (wide(x[rows]) - wide(b[rows])) for g, x, b in parts))

        return self._differentiate(points.shape[-1], self._along(points), collect)

    def slopes(self, points: Tensor) -> tuple[Tensor, Tensor] | None:
        """Gradient of each element at points of the path, and f there.

        Args:
            points: ``(G,)``, or ``(N, G)`` where each row has its own.

        Returns:
            ``(N, elements, G, K)`` and ``(N, G, K)``; None where the model has no gradient.
        """
        return self._differentiate(points.shape[-1], self._along(points), lambda gradients, rows: join(gradients))

    def coalition_slopes(self, members: Tensor) -> tuple[Tensor, Tensor] | None:
        """Gradient of each player's elements, side by side, at coalitions ``(N, S, M)``, and f there.

        Returns:
            ``(N, S, M, D, K)`` and ``(N, S, K)``; None where the model has no gradient.
        """

        def place(rows: Tensor, turns: Tensor) -> Tensors:
            return self._compose(members[rows, turns], rows)

        def gather(gradients: Tensors, rows: Tensor) -> Tensor:
            return self.players.rows(rows).gather(gradients)

        measured = self._differentiate(members.shape[1], place, gather)
        return None if measured is None else (measured[0].movedim(-2, 1), measured[1])

    def _along(self, points: Tensor) -> _Place:
        dtype = torch.promote_types(self.inputs[0].dtype, torch.float32)
        alphas = points.to(self.device, dtype).expand(self.n_examples, -1)
        return lambda rows, turns: self._on_path(alphas[rows, turns], rows)

    def _differentiate(self, n_points: int, place: _Place, reduce: _Reduce) -> tuple[Tensor, Tensor] | None:
        if not self.has_gradient:
            return None
        try:
            with untouched(self.forward_func, self.device):
                return self._gradients(n_points, place, reduce)
        except RuntimeError as error:
            if not says_no_gradient(error):
                raise
        self.has_gradient = False
        return None

    def _gradients(self, n_points: int, place: _Place, reduce: _Reduce) -> tuple[Tensor, Tensor]:
        step = self.n_examples if self._whole_batch else self.max_gradient_rows
        rows = torch.arange(self.n_examples, device=self.device).repeat(n_points)
        turns = torch.arange(n_points, device=self.device).repeat_interleave(self.n_examples)
        effects, values = [], []
        for index in torch.arange(len(rows), device=self.device).split(step):
            whole = self._whole_batch
            effect, value = self._gradient(rows[index], place(rows[index], turns[index]), reduce)
            if whole != self._whole_batch:
                return self._gradients(n_points, place, reduce)
            effects.append(effect)
            values.append(value)
        n_rows = self.n_rows
        effect = torch.cat(effects).unflatten(0, (n_points, n_rows)).movedim(0, -2)
        return effect, torch.cat(values).unflatten(0, (n_points, n_rows)).transpose(0, 1)

    def _gradient(self, rows: Tensor, points: Tensors, reduce: _Reduce) -> tuple[Tensor, Tensor]:
        """Reduced gradients ``(R, *, K)`` and values ``(R, K)``; one row for all where the model answers so."""
        with torch.inference_mode(False), torch.enable_grad():
            x = tuple(part.clone().requires_grad_() for part in points)
            output = self._forward(tuple(part.clone() for part in x), rows)  # the model may work in place
            columns = []
            for k in range(output.shape[1]):
                last = k == output.shape[1] - 1
                gradients = torch.autograd.grad(output[:, k].sum(), x, retain_graph=not last, allow_unused=True)
                if all(gradient is None for gradient in gradients):
                    raise RuntimeError("The output does not require grad with respect to any input")
                filled = tuple(wide(torch.zeros_like(p) if g is None else g) for g, p in zip(gradients, x, strict=True))
                columns.append(reduce(filled, rows))
        effect = torch.stack(columns, dim=-1)
        return (effect.sum(0, keepdim=True) if self._whole_batch else effect), output.detach()

    def _on_path(self, alphas: Tensor, rows: Tensor | None = None) -> Tensors:
        rows = torch.arange(self.n_examples, device=self.device) if rows is None else rows
        parts = []
        for x, b in zip(self.inputs, self.baselines, strict=True):
            alpha = alphas.to(x.device).reshape(-1, *[1] * (x.dim() - 1))
            end, start = x[rows], b[rows]
            between = wide(start) + alpha * (wide(end) - wide(start))
            parts.append(torch.where(alpha == 1, end, torch.where(alpha == 0, start, between.to(x.dtype))))
        return tuple(parts)

    def _compose(self, members: Tensor, rows: Tensor | None = None) -> Tensors:
        """Inputs where the element's player is in the coalition, baselines elsewhere."""
        if rows is None:
            keep, x, b = self.players.of_elements(members), self.inputs, self.baselines
        else:
            keep = self.players.rows(rows).of_elements(members)
            x, b = tuple(part[rows] for part in self.inputs), tuple(part[rows] for part in self.baselines)
        return tuple(torch.where(k, i, j) for k, i, j in zip(keep, x, b, strict=True))

    def _run_all(self, x: Tensors) -> Tensor:
        if self._whole_batch:
            return self._forward_whole(x)
        rows = torch.arange(self.n_examples, device=self.device)
        parts = []
        for index in rows.split(self.max_rows):
            parts.append(self._forward(tuple(part[index] for part in x), index))
            if self._whole_batch:
                return self._forward_whole(x)
        return torch.cat(parts)

    def _forward_whole(self, x: Tensors) -> Tensor:
        return self._forward(x, torch.arange(self.n_examples, device=self.device))

    def _forward(self, x: Tensors, rows: Tensor) -> Tensor:
        """The selected outputs ``(R, K)`` of one call of the model on rows ``(R,)``; ``(1, 1)`` of a whole batch."""
        if self._one_at_a_time and len(rows) > 1:
            return self._one_by_one(x, rows)
        several_of_one = self.n_examples == 1 and len(rows) > 1
        try:
            output = self._call(tuple(part.clone() for part in x) if several_of_one else x, rows)
        except Exception:
            if not several_of_one:
                raise
            return self._one_by_one(x, rows)
        if output.dim() == 0 or output.shape[0] != len(rows):
            if several_of_one and (output.dim() == 0 or len(output) == 1):
                return self._one_by_one(x, rows)
            assert output.numel() == 1, (
                f"forward_func gave an output of shape {tuple(output.shape)} for {len(rows)} examples: it must give one "
                "entry for each example in its first dimension, or one number for the whole batch."
            )
            if self.n_examples > 1:
                self._whole_batch = True
                assert len(self.players.mask) == 1, (
                    "forward_func gives one number for the whole batch, so feature_mask must have one row for all examples."
                )
            self.output_shape = torch.Size()
            return output.reshape(1, 1)
        self.output_shape = output.shape[1:]
        return output.reshape(len(rows), -1)

    def _one_by_one(self, x: Tensors, rows: Tensor) -> Tensor:
        """For models that take one example only, as those of Captum's LLMAttribution do."""
        parts = [self._forward(tuple(part[i : i + 1] for part in x), rows[i : i + 1]) for i in range(len(rows))]
        self._one_at_a_time = True
        return torch.cat(parts)

    def _call(self, x: Tensors, rows: Tensor) -> Tensor:
        whole = len(rows) == self.n_examples and bool((rows == torch.arange(self.n_examples, device=rows.device)).all())
        target = self.target if whole else take_target(self.target, rows, self.n_examples)
        extra = self.additional_forward_args
        if extra is not None and not whole:
            extra = tuple(take_rows(value, rows, self.n_examples) for value in extra)
        output = as_tensor(self.forward_func(*x, *(extra or ())), self.device)
        return wide(select_outputs(output, target))
