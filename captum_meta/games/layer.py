"""Activations of the explained model's layers, and the model from its layers on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from captum_meta._model import module_of, uncompiled, untouched
from captum_meta.games.arguments import take_rows
from captum_meta.games.game import Game
from captum_meta.games.players import Tensors


class LayerModel(nn.Module):
    """``f(*activations, *arguments)``: the model on its arguments, with what its layers give replaced by ``activations``.

    A layer that runs several times in a forward gives what it gave last, and is replaced each time, as in Captum.

    Args:
        forward_func: the model.
        layers: modules that run inside it.
        of_inputs: replace what the layers are given instead of what they give.
    """

    def __init__(self, forward_func: Callable[..., Any], layers: Sequence[nn.Module], of_inputs: bool = False) -> None:
        super().__init__()
        self.training = False
        self.forward_func, self.of_inputs = forward_func, of_inputs
        self.layers = tuple(layers)
        self.counts: list[int] = []

    def activations(self, inputs: Tensors, extra: tuple[Any, ...], max_rows: int | None) -> Tensors:
        """What the layers give for the inputs ``(B, ...)``, evaluated ``max_rows`` at once; :attr:`counts` tensors each.

        Raises:
            AssertionError: if a layer does not run, or gives something else than one entry for each example.
        """
        count = len(inputs[0])
        parts = []
        for rows in torch.arange(count, device=inputs[0].device).split(max_rows or count):
            arguments = tuple(take_rows(value, rows, count) for value in (*inputs, *extra))
            parts.append(self._observe(arguments, len(rows)))
        self.counts = [len(values) for values in parts[0]]
        flat = [[value for values in part for value in values] for part in parts]
        return tuple(torch.cat(some) for some in zip(*flat, strict=True))

    def activations_in_graph(self, arguments: tuple[Any, ...]) -> Tensors:
        """What the layers give for these arguments, in the graph."""
        found: list[Tensors] = [()] * len(self.layers)

        def keep(index: int, given: Any) -> Any:
            found[index] = as_tuple(given)
            copies = [part.clone() for part in found[index]]  # what follows may work in place
            return type(given)(copies) if isinstance(given, (tuple, list)) else copies[0]

        with untouched(self.forward_func, arguments[0].device), torch.enable_grad(), self._hooked(keep):
            self.forward_func(*arguments)
        self.counts = [len(values) for values in found]
        return tuple(part for values in found for part in values)

    def rest(self) -> LayerModel:
        """The model from these layers on, whatever is done to their activations here."""
        found = LayerModel(self.forward_func, self.layers, self.of_inputs)
        found.counts = self.counts
        return found

    def _observe(self, arguments: tuple[Any, ...], n_rows: int) -> list[Tensors]:
        found: list[Tensors] = [()] * len(self.layers)

        def keep(index: int, values: Any) -> None:
            found[index] = tuple(value.detach().clone() for value in as_tuple(values))

        with torch.no_grad(), untouched(self.forward_func, arguments[0].device), self._hooked(keep):
            self.forward_func(*arguments)
        for values, layer in zip(found, self.layers, strict=True):
            shapes = [tuple(value.shape) for value in values]
            assert values and all(value.dim() > 0 and len(value) == n_rows for value in values), (
                f"{type(layer).__name__} gave {shapes or 'nothing'} for {n_rows} examples: name a layer that runs in "
                "forward_func and whose first dimension is that of the examples."
            )
        return found

    def forward(self, *arguments: Any) -> Any:
        values = iter(arguments[: sum(self.counts)])
        replacements = [tuple(next(values).clone() for _ in range(count)) for count in self.counts]

        def replace(index: int, old: Any) -> Any:
            return type(old)(replacements[index]) if isinstance(old, (tuple, list)) else replacements[index][0]

        with self._hooked(replace):
            return self.forward_func(*arguments[sum(self.counts) :])

    @contextmanager
    def _hooked(self, use: Callable[[int, Any], Any]) -> Iterator[None]:
        """Call ``use`` with the index of a layer and what passes there; what it returns, if anything, takes its place.

        What passes in other threads, which may run the same model, is left alone.
        """
        handles, thread = [], get_ident()

        def passing(index: int, values: Any) -> Any:
            if get_ident() != thread:
                return None
            _check_tensors(self.layers[index], values, "is given" if self.of_inputs else "gives")
            return use(index, values)

        try:
            for index, layer in enumerate(self.layers):
                if self.of_inputs:
                    handles.append(layer.register_forward_pre_hook(lambda _, given, i=index: passing(i, given)))
                else:
                    handles.append(layer.register_forward_hook(lambda _, given, gives, i=index: passing(i, gives)))
            with uncompiled():
                yield
        finally:
            for handle in handles:
                handle.remove()


def _check_tensors(layer: nn.Module, values: Any, passes: str) -> None:
    parts = values if isinstance(values, (tuple, list)) else [values]
    wrong = [type(part).__name__ for part in parts if not isinstance(part, Tensor)]
    assert not wrong, (
        f"{type(layer).__name__} {passes} a {wrong[0]}, of which there are no activations: name a layer that {passes} a "
        "tensor, or a tuple or list of tensors, such as a torch.nn.Identity() on the part of it that is to be explained."
    )


def as_tuple(given: Any) -> Tensors:
    """What a layer gives, or is given: a tensor, a tuple or a list of them."""
    return tuple(given) if isinstance(given, (tuple, list)) else (given,)


def layer_output(game: Game, layer: str) -> Tensor:
    """What the module of the name ``layer`` gives for each input, flattened, ``(N, E)``.

    Raises:
        ValueError: if there is no such module, or it does not run once a forward with an entry for each example.
    """
    return game.once(("output of", layer), lambda: _output(game.of(game.batch), layer))


def _output(game: Game, layer: str) -> Tensor:
    model = module_of(game.batch.forward_func)
    modules = {} if model is None else dict(model.named_modules())
    if layer not in modules:
        raise ValueError(
            f"forward_func has no module {layer!r} whose output could be compared: pass an nn.Module that has one, or a "
            "learner with another encoder."
        )
    outputs: list[Tensor] = []
    thread = get_ident()

    def keep(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        if get_ident() != thread:
            return
        value = output[0] if isinstance(output, tuple) else output
        outputs.append(value.detach().flatten(1) if value.dim() > 1 else value.detach().unsqueeze(-1))

    game.at(torch.ones(1))  # the first evaluation asks for more than these rows
    handle = modules[layer].register_forward_hook(keep)
    try:
        with uncompiled():
            game.at(torch.ones(1))
    finally:
        handle.remove()
    if sum(map(len, outputs)) != game.n_examples or game.n_rows != game.n_examples:
        raise ValueError(
            f"The module {layer!r} does not run once a forward with one entry for each example: name another module."
        )
    return torch.cat(outputs)
