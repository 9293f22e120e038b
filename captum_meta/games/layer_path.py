"""Models whose gradients are activations and gradients of layers and neurons along the path of the inputs.

A game asks the explained model for values and for gradients with respect to its inputs. So a quantity of a layer is made an
input: what is 0 and is added to the layer has the layer's gradient, and what is 0 and is multiplied with the layer has the
layer's activations as its gradient. One backward tells all of it, and f is what it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_meta import _captum
from captum_meta.games.arguments import select_outputs, take_target
from captum_meta.games.layer import LayerModel, as_tuple
from captum_meta.games.players import Tensors

Selector = int | tuple[int | slice, ...] | Callable[[Any], Tensor]
"""A neuron of a layer, or several, as in Captum."""


class ShiftedLayers(LayerModel):
    """``f(*shifts, *arguments)``: the model on its arguments, with tensors of zeros added to all that its layers give.

    The gradient with respect to ``shifts`` is that with respect to what the layers give. A layer that runs several times in
    a forward is known as it was last, as in Captum.

    Args:
        forward_func, layers, of_inputs: as for :class:`LayerModel`, whose :attr:`counts` must be known.
    """

    def forward(self, *arguments: Any) -> Tensor:
        count = sum(self.counts)
        return self._shifted(arguments[:count], arguments[count:])[0]

    def _shifted(self, shifts: tuple[Any, ...], arguments: tuple[Any, ...]) -> tuple[Tensor, Tensors]:
        """The output, and all that the layers gave."""
        rest = iter(shifts)
        parted = [tuple(next(rest) for _ in range(count)) for count in self.counts]
        turns = [0] * len(self.layers)
        seen: list[Tensors] = [()] * len(self.layers)

        def moved(index: int, given: Any) -> Any:
            turns[index] += 1
            seen[index] = tuple(part.detach() for part in as_tuple(given))
            added = [_in_turn(shift, turns, index) for shift in parted[index]]
            parts = [part + shift for part, shift in zip(as_tuple(given), added, strict=True)]
            return type(given)(parts) if isinstance(given, (tuple, list)) else parts[0]

        with self._hooked(moved):
            output: Tensor = self.forward_func(*arguments)
        return output, tuple(part for values in seen for part in values)


class ReadLayers(ShiftedLayers):
    """``f(*shifts, *readers, *arguments)``: beside the shifts, tensors of zeros whose gradient is what the layers give."""

    def forward(self, *arguments: Any) -> Tensor:
        count = sum(self.counts)
        readers = arguments[count : 2 * count]
        output, seen = self._shifted(arguments[:count], arguments[2 * count :])
        return _plus(output, sum(map(_dot, readers, seen)))


class NeuronModel(LayerModel):
    """The model cut off at a neuron of its layer: one number for each example, the neuron's, or the sum of several.

    Args:
        forward_func, layer, of_inputs: as for :class:`LayerModel`.
        selector: which neuron, as in Captum. A function that gives one number for the whole batch is shared out evenly.
    """

    def __init__(self, forward_func: Callable[..., Any], layer: nn.Module, selector: Selector, of_inputs: bool) -> None:
        super().__init__(forward_func, [layer], of_inputs)
        self.selector = selector

    def forward(self, *arguments: Any) -> Tensor:
        given, _ = self._run(arguments)
        n_rows = len(arguments[0])
        selected = _captum.verify_select_neuron(given, self.selector)
        if selected.numel() == 1:
            return selected.reshape(1).expand(n_rows) / n_rows
        return self._of_rows(selected, n_rows)

    def _run(self, arguments: tuple[Any, ...]) -> tuple[Tensors, Any]:
        """What the layer gives, in the graph of the output, and the output."""
        found: list[Tensors] = []

        def keep(index: int, given: Any) -> Any:
            found.append(as_tuple(given))
            copies = [part.clone() for part in found[-1]]  # what follows may work in place
            return type(given)(copies) if isinstance(given, (tuple, list)) else copies[0]

        with self._hooked(keep):
            output = self.forward_func(*arguments)
        assert found, f"{type(self.layers[0]).__name__} gave nothing: name a layer that runs in forward_func."
        return found[-1], output

    def selected(self, given: Tensors, n_rows: int) -> Tensor:
        """The neuron's part of what is like the layer's activations, ``(R,)``."""
        return self._of_rows(_captum.verify_select_neuron(given, self.selector), n_rows)

    def _of_rows(self, selected: Tensor, n_rows: int) -> Tensor:
        assert selected.shape[:1] == (n_rows,) and selected.numel() == n_rows, (
            f"neuron_selector selects a tensor of shape {tuple(selected.shape)} for {n_rows} examples: it must select one "
            "number for each."
        )
        return selected.reshape(n_rows)


class NeuronConductanceModel(NeuronModel):
    """``f(share, neuron, *inputs, *extra, rows)``: the model with the gradient that passes through a neuron alone.

    The gradient with respect to the inputs is that of the neuron times that of the output with respect to the neuron. The
    gradients with respect to ``share`` and ``neuron``, which are 0, are this second factor and what the neuron gives.

    Args:
        forward_func, layer, selector, of_inputs: as for :class:`NeuronModel`.
        target: as in Captum, for all of the ``n_examples``, of whom ``rows`` are given.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module,
        selector: Selector,
        of_inputs: bool,
        target: Any,
        n_examples: int,
    ) -> None:
        super().__init__(forward_func, layer, selector, of_inputs)
        self.target, self.n_examples = target, n_examples

    def forward(self, *arguments: Any) -> Tensor:
        share, neuron, *rest, rows = arguments
        given, output = self._run(tuple(rest))
        selected = select_outputs(output, take_target(self.target, rows, self.n_examples))
        number = self.selected(given, len(rows))
        if not torch.is_grad_enabled():
            return selected
        gradients = torch.autograd.grad(selected.sum(), given, retain_graph=True, allow_unused=True)
        filled = tuple(torch.zeros_like(part) if g is None else g for g, part in zip(gradients, given, strict=True))
        factor = self.selected(filled, len(rows)).detach()
        through = factor * (number - number.detach())
        read = through + share.flatten() * factor + neuron.flatten() * number.detach()
        return _plus(selected.detach(), read)


def _in_turn(shift: Tensor, turns: list[int], index: int) -> Tensor:
    """The shift, with a gradient only where the layer ``index`` runs for the last time of a forward."""
    if not shift.requires_grad:
        return shift
    copy, turn = shift.clone(), turns[index]
    copy.register_hook(lambda gradient: gradient if turns[index] == turn else torch.zeros_like(gradient))
    return copy


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Sums of the products of each row, ``(R,)``; what is not finite counts as 0."""
    return (one * other.nan_to_num(0.0, 0.0, 0.0)).unsqueeze(-1).flatten(1).sum(1)


def _plus(output: Tensor, values: Any) -> Tensor:
    """The output with numbers ``(R,)`` added to all that belong to their row; unchanged where it is one for all rows."""
    if output.dim() == 0 or len(output) != len(values):
        return output
    return output + values.to(output.dtype).reshape(-1, *[1] * (output.dim() - 1))
