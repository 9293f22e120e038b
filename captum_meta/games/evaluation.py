"""How the explained model is evaluated: rows in any arrangement, or always the caller's whole batch.

Most models answer for each row alone: rows and coalitions may then be evaluated in any arrangement. Some do not: graph
convolutions over the rows, batch statistics, hidden states made for one batch, additional arguments that belong to the
whole batch and happen to have its length. Captum evaluates the batch that the caller passed, with the same coalition for all
of its rows. So it is done here, where a probe finds that it must be: a few rows in another order, and a baseline among them,
must have the values that they have in the caller's batch.

A model that fails on many rows at once is given fewer (:mod:`captum_meta.games.attempts`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from captum_meta._model import coarsest, says_no_gradient, uncompiled, untouched, wide
from captum_meta.games.arguments import Outputs, TargetError
from captum_meta.games.attempts import Attempts, Place, Run, Tensors, shown, warn_of_coupling, warn_of_gradients
from captum_meta.games.batch import Batch
from captum_meta.games.company import ALIKE, alike, in_company

_MAX_ROWS, _MAX_ELEMENTS = 4096, 2**25
_MAX_GRADIENT_ELEMENTS = 2**19
_PROBED_ROWS = 8
Reduce = Callable[[Tensors, Tensor], Tensor]
"""From the gradients of the rows ``(R,)`` to what is kept of them, one row each."""

_FINAL = (torch.OutOfMemoryError, TargetError)
"""Errors that no other way of calling the model would avoid."""


class Evaluation:
    """Values and gradients of the explained model at ``T`` points of each of the batch's rows, one point for each turn.

    Args:
        batch: the model and the rows.
        max_rows: rows evaluated, or differentiated, at once; None for numbers that fit into memory.

    Attributes:
        together: whether the caller's batch must be evaluated as a whole; None before the first evaluation.
        aggregated: whether the model answers for the whole batch at once, which is then one row.
        coupled: whether a row's value depends on the other rows, as far as gradients have shown.
        has_gradient: False where the model cannot be differentiated, as far as is known.
        attempts: the ways in which the model has been called.
        output_shape, precision: of a row's selected outputs, once there was one; the latter as ``torch.finfo(dtype).eps``,
            of the coarsest numbers from which these are known to be computed.
    """

    def __init__(self, batch: Batch, max_rows: int | None = None) -> None:
        self.batch = batch
        elements = max(1, batch.elements)
        self.max_rows = max_rows or max(1, min(_MAX_ROWS, _MAX_ELEMENTS // elements))
        # A backward keeps all activations: as many rows as the caller's batch, more only where rows are small.
        self.max_gradient_rows = max_rows or min(self.max_rows, max(len(batch), _MAX_GRADIENT_ELEMENTS // elements))
        self.has_gradient = all(tensor.is_floating_point() for tensor in batch.inputs)
        self.together: bool | None = None
        self.aggregated = self.coupled = False
        self.attempts = Attempts(max(self.max_rows, self.max_gradient_rows))
        self.output_shape: torch.Size | None = None
        self.precision = self._inside = 0.0  # the latter of what the graph of f holds, once there was one

    def of(self, batch: Batch) -> Evaluation:
        """The same for another batch of the same model: where rows may be evaluated in any arrangement, this is known."""
        other = Evaluation.__new__(Evaluation)
        other.__dict__.update(self.__dict__)
        other.batch, other.together = batch, None if self.together else self.together
        return other

    @property
    def n_rows(self) -> int:
        """Rows that have a value of their own."""
        return 1 if self.aggregated else len(self.batch)

    def values(self, n_turns: int, place: Place, wanted: Tensor | None = None, label: str | None = None) -> Tensor:
        """f at the turns' points, ``(N, T, K)``; only where ``wanted (N, T)``, and 0 elsewhere."""
        batch = self.batch
        with torch.no_grad(), untouched(batch.forward_func, batch.device):
            first: tuple[Tensor, ...] = ()
            if self.together is None:
                further = n_turns - 1 if wanted is None and label is None else 0
                first, others = self._settle(place, self._value, self.max_rows, 1, further)
                if others is not None:
                    return torch.cat([first[0].unsqueeze(1), others], dim=1)
            asked = torch.ones(self.n_rows, n_turns, dtype=torch.bool, device=batch.device) if wanted is None else wanted
            left = asked & (torch.arange(n_turns, device=batch.device) >= len(first))
            if self.together:
                found = self._whole_turns(left, place, label)
            else:
                rows, turns = left.nonzero(as_tuple=True)
                found = self._some_rows(rows, turns, place, label)
        values = (first[0] if first else found).new_zeros(*asked.shape, found.shape[-1])
        values[left] = found.to(values)
        if first:
            values[:, 0] = torch.where(asked[:, :1], first[0], 0.0)
        return values

    def each(self, rows: Tensor, place: Place) -> Tensor:
        """f of rows ``(R,)``, in any order, each at a turn of its own, ``(R, K)``; where any row may be beside any other."""
        with torch.no_grad(), untouched(self.batch.forward_func, self.batch.device):
            return self._some_rows(rows, torch.arange(len(rows), device=rows.device), place)

    def _some_rows(self, rows: Tensor, turns: Tensor, place: Place, label: str | None = None) -> Tensor:
        """f of rows ``(R,)`` at turns ``(R,)``, any of it beside any other, ``(R, K)``."""
        found = self.attempts.parts(self._value, place, rows, turns, self.max_rows, 1, label)
        return torch.cat([values for (values,) in found]) if found else self._nothing()

    def _whole_turns(self, asked: Tensor, place: Place, label: str | None) -> Tensor:
        """The same, one turn of the caller's whole batch after the other."""
        turns, everyone = asked.any(0).nonzero().flatten(), self.batch.everyone
        values = [self._value(place(everyone, 0 * everyone + turn), everyone)[0] for turn in shown(turns.tolist(), label)]
        return torch.stack(values, dim=1)[asked[:, turns]] if values else self._nothing()

    def _nothing(self) -> Tensor:
        n_outputs = 1 if self.output_shape is None else self.output_shape.numel()
        return torch.zeros(0, n_outputs, device=self.batch.device)

    def gradients(self, n_turns: int, place: Place, reduce: Reduce, as_passed: bool = False) -> tuple[Tensor, Tensor] | None:
        """Gradients of f, reduced to ``(N, *, T, K)``, and f ``(N, T, K)`` at the turns' points; None where there are none.

        Of rows that act on each other they are gradients of the sum of all rows' f. The first turn is ``as_passed`` where
        the batch is what belongs together, so that nothing needs to be found out about it if it fits into memory.
        """
        if not self.has_gradient:
            return None
        known, bearable = self.together, self.attempts.bearable
        try:
            with untouched(self.batch.forward_func, self.batch.device):
                return self._gradients(n_turns, place, reduce, as_passed)
        except _FINAL:
            raise
        except Exception as error:
            self.values(1, place)  # raises for a model that fails without gradients, too
            if known is None and (self.together or self.attempts.bearable < bearable):
                return self.gradients(n_turns, place, reduce, as_passed)
            if not says_no_gradient(error):
                warn_of_gradients(error)
        self.has_gradient = False
        return None

    def _gradients(self, n_turns: int, place: Place, reduce: Reduce, as_passed: bool) -> tuple[Tensor, Tensor]:
        def run(x: Tensors, rows: Tensor) -> tuple[Tensor, ...]:
            return self._gradient(x, rows, reduce)

        everyone, step = self.batch.everyone, self.max_gradient_rows
        parts: list[tuple[Tensor, ...]] = []
        if as_passed and self.together is None and len(everyone) <= step:
            parts = [run(place(everyone, 0 * everyone), everyone)]
        elif self.together is None:
            parts = [self._settle(place, run, step, len(everyone))[0]]
        left = torch.arange(len(parts), n_turns, device=everyone.device)
        if self.together:
            parts += [run(place(everyone, 0 * everyone + turn), everyone) for turn in left.tolist()]
            self._check_coupling(place, reduce, parts[0][0])
        else:
            rows, turns = everyone.repeat(len(left)), left.repeat_interleave(len(everyone))
            parts += self.attempts.parts(run, place, rows, turns, step, len(everyone))
        gradients, values = (_joined(some).unflatten(0, (n_turns, self.n_rows)) for some in zip(*parts, strict=True))
        return gradients.movedim(0, -2), values.transpose(0, 1)

    def _gradient(self, x: Tensors, rows: Tensor, reduce: Reduce, weights: Tensor | None = None) -> tuple[Tensor, ...]:
        """Reduced gradients ``(R, *, K)`` of the sum of the rows' f, weighted if so asked, and f itself ``(R, K)``."""
        with torch.inference_mode(False), torch.enable_grad(), uncompiled(isinstance(self.batch.target, Outputs)):
            leaves = tuple((part.clone() if part.is_inference() else part.detach()).requires_grad_() for part in x)
            output = self._forward(tuple(part.clone() for part in leaves), rows)  # the model may work in place
            columns = []
            for k, column in enumerate(output.unbind(1)):
                total = column.sum() if weights is None else column @ weights.to(column)
                more = k < output.shape[1] - 1
                gradients = torch.autograd.grad(total, leaves, retain_graph=more, allow_unused=True)
                if all(gradient is None for gradient in gradients):
                    raise RuntimeError("The output does not require grad with respect to any input")
                filled = (torch.zeros_like(p) if g is None else g for g, p in zip(gradients, leaves, strict=True))
                columns.append(reduce(tuple(wide(gradient) for gradient in filled), rows))
        reduced = columns[0].unsqueeze(-1) if len(columns) == 1 else torch.stack(columns, dim=-1)
        return (reduced.sum(0, keepdim=True) if self.aggregated else reduced), output.detach().clone()

    def in_place(self, x: Tensors, which: Tensor) -> Tensor:
        """f of each row at those ``which (B, n)`` of other inputs ``x`` ``(R, *features)``, as ``(B, n, K)``."""
        batch, index = self.batch, which.flatten()
        rows = batch.everyone.repeat_interleave(which.shape[1])

        def answers(call: Callable[[Tensors, Tensor], Tensor], own: Tensor, places: Tensor) -> Tensor:
            run, place = partial(self._answer, call), lambda _, at: tuple(part[at] for part in x)
            return torch.cat([values for (values,) in self.attempts.parts(run, place, own, places, self.max_rows, 1)])

        with torch.no_grad(), untouched(batch.forward_func, batch.device):
            if batch.shares_arguments:
                every = torch.arange(len(x[0]), device=batch.device)
                found = batch.selected(answers(batch.outputs, 0 * every, every)[index], rows)
            else:
                found = answers(batch.forward, rows, index)
        self.output_shape = found.shape[1:]
        return wide(found).reshape(*which.shape, -1)

    def _value(self, x: Tensors, rows: Tensor) -> tuple[Tensor, ...]:
        return self._answer(self._forward, x, rows)

    def _answer(self, call: Callable[[Tensors, Tensor], Tensor], x: Tensors, rows: Tensor) -> tuple[Tensor, ...]:
        return (self.attempts.unrecorded(call, x, rows).clone(),)  # the model may give the same memory again

    def _forward(self, x: Tensors, rows: Tensor) -> Tensor:
        """The selected outputs ``(R, K)`` of one call of the model; ``(1, K)`` where it answers for the batch."""
        output = self.batch.forward(x, rows)
        if output.dim() == 0 and self.together is False and len(rows) == 1:
            output = output.unsqueeze(0)  # of a model that squeezes its answer
        if output.dim() == 0 or len(output) != len(rows):
            assert len(rows) == len(self.batch) and self.together is not False, (
                f"forward_func gave an output of shape {tuple(output.shape)} for {len(rows)} examples: it must give one "
                "entry for each example in its first dimension, or answer for the whole batch whatever its size."
            )
            assert len(self.batch.players.mask) == 1 or len(rows) == 1, (
                "forward_func answers for the whole batch at once, so feature_mask must have one row for all examples."
            )
            self.aggregated = self.together = True
            output = output.unsqueeze(0)
        self._inside = self._inside or (coarsest(output) if output.requires_grad else 0.0)
        self.precision = self._inside or coarsest(output)
        self.output_shape = output.shape[1:]
        return wide(output).reshape(len(output), -1)

    def _settle(
        self, place: Place, run: Run, limit: int, fewest: int, further: int = 0
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Run the first turn of all rows in the caller's order, and find out whether rows may be evaluated otherwise.

        Returns:
            What was computed of the first turn, and f at the ``further`` turns, ``(N, further, K)``, if it cost no call.
        """
        everyone = self.batch.everyone
        divided, others = limit < len(everyone), None
        try:
            parts = self.attempts.parts(run, place, everyone, 0 * everyone, limit, len(everyone) if divided else fewest)
        except _FINAL:
            raise
        except Exception:
            if not divided:
                raise
            self._evaluate_together("it fails on a part of them")
        else:
            found = tuple(_joined(some) for some in zip(*parts, strict=True))
            if self.together is None:
                others = self._probe(place, found[-1], further)
            if not self.together or not divided:
                return found, others
        return run(place(everyone, 0 * everyone), everyone), None

    def _probe(self, place: Place, own: Tensor, further: int) -> Tensor | None:
        """Compare f of the caller's batch, ``own (B, K)``, with f of a few rows in reverse, in other company.

        The rows are in two batches, the second of which has a baseline too, so that each row is without half of the others;
        if there is room it has all rows at the ``further`` turns as well, where f is returned, ``(B, further, K)``.
        """
        self.together = False
        batch, most = self.batch, min(self.max_rows, self.attempts.bearable)
        count = min(len(batch), _PROBED_ROWS, most - 1)
        if count < 1:
            return None
        rows = torch.linspace(len(batch) - 1, 0, count, device=batch.device).round().long()
        further = further if count + 1 + further * len(batch) <= most else 0
        try:
            with torch.no_grad():
                values = torch.cat([self._value(x, some)[0] for x, some in in_company(batch, place, rows, further)])
        except _FINAL:
            raise
        except Exception as error:
            if further:  # too many rows, it may be
                return self._probe(place, own, 0)
            self._evaluate_together(f"in another arrangement it raised {type(error).__name__}: {error}")
            return None
        if not alike(values[:count], own, rows, values[-1:], self.precision):
            self._evaluate_together("in another arrangement they have other values")
            return None
        return values[count:-1].unflatten(0, (len(batch), further)) if further else None

    def _evaluate_together(self, reason: str) -> None:
        self.together = True
        if len(self.batch) > 1:
            warn_of_coupling(reason)

    def _check_coupling(self, place: Place, reduce: Reduce, gradients: Tensor) -> None:
        """Whether rows act on each other: then weights of the rows' f do not just multiply each row's own gradients."""
        if self.aggregated or len(self.batch) == 1 or self.coupled:
            return
        everyone = self.batch.everyone
        weights = torch.linspace(1, 2, len(everyone), device=everyone.device)
        weighted = self._gradient(place(everyone, 0 * everyone), everyone, reduce, weights)[0]
        own = gradients * weights.reshape(-1, *[1] * (gradients.dim() - 1)).to(gradients)
        finite = weighted.isfinite() & own.isfinite()
        missed = torch.where(finite, weighted - own, 0.0).abs().amax()
        self.coupled = bool(missed > ALIKE * torch.where(finite, own, 0.0).abs().amax())


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
