"""A game that evaluates nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Int64, Num
from torch import Tensor
from torch.nn import functional

from captum_meta import _random
from captum_meta.games.game import Game

_T = TypeVar("_T")
_NO_KEY = torch.iinfo(torch.int64).min


class RememberedGame(Game):
    """The game of the same model and rows, of which every value and gradient is kept: asked again, it costs no evaluation.

    Support rows are such games: adapting to another budget evaluates what this budget alone needs.

    >>> calls = []
    >>> game = RememberedGame(Game(lambda x: calls.append(len(x)) or x.sum(1), torch.ones(1, 2)))
    >>> members = torch.tensor([[[True, False], [False, True]]])
    >>> values, before = game.values(members), len(calls)
    >>> torch.equal(game.values(members), values), len(calls) - before
    (True, 0)

    Args:
        game: the model and the rows.
        gradients: whether these are kept too.
    """

    def __init__(self, game: Game, gradients: bool = True) -> None:
        self.__dict__.update(vars(game))
        self._gradients = gradients
        self._kept: dict[Hashable, Any] = {}
        self._keys, self._values = torch.zeros(0), torch.zeros(0)

    def once(self, name: Hashable, ask: Callable[[], _T]) -> _T:
        if not self._gradients:
            return ask()
        if name not in self._kept:
            self._kept[name] = ask()
        answer: _T = self._kept[name]
        return answer

    def values(self, members: Bool[Tensor, "N S M"], wanted: Bool[Tensor, "N S"] | None = None) -> Num[Tensor, "N S K"]:
        keys = _random.coalition_keys(members)
        known, indices = self._known(keys)
        missing = ~known if wanted is None else wanted & ~known
        if bool(missing.any()) or not len(self._values):
            values = super().values(members, missing)
            self._keep(torch.where(missing, keys, _NO_KEY), values)
            known, indices = self._known(keys)
        asked = known if wanted is None else wanted
        found = self._values.gather(1, indices.unsqueeze(-1).expand(-1, -1, self._values.shape[-1]))
        return torch.where(asked.unsqueeze(-1), found, 0.0)

    def take(self, rows: Int64[Tensor, " R"]) -> RememberedGame:
        """The game of some of the examples, of which values at coalitions alone are kept."""
        return RememberedGame(super().take(rows), gradients=False)

    def remember(self, parts: Sequence[RememberedGame]) -> None:
        """Know the values at coalitions that were asked of parts of the examples, all of them in their order."""
        if not all(part._keys.numel() for part in parts):
            return
        longest = max(part._keys.shape[1] for part in parts)
        keys = [functional.pad(part._keys, (0, longest - part._keys.shape[1]), value=_NO_KEY) for part in parts]
        values = [functional.pad(part._values, (0, 0, 0, longest - part._values.shape[1])) for part in parts]
        self._keep(torch.cat(keys), torch.cat(values))

    def _known(self, keys: Int64[Tensor, "N S"]) -> tuple[Bool[Tensor, "N S"], Int64[Tensor, "N S"]]:
        """Whether f of the coalitions ``(N, S)`` is kept, and where."""
        if not self._keys.numel():
            return torch.zeros_like(keys, dtype=torch.bool), torch.zeros_like(keys)
        ordered, order = self._keys.sort(dim=1)
        indices = torch.searchsorted(ordered, keys).clamp(max=ordered.shape[1] - 1)
        return ordered.gather(1, indices) == keys, order.gather(1, indices)

    def _keep(self, keys: Int64[Tensor, "N S"], values: Num[Tensor, "N S K"]) -> None:
        empty = not self._keys.numel()
        self._keys = keys if empty else torch.cat([self._keys, keys], dim=1)
        self._values = values if empty else torch.cat([self._values, values], dim=1)

    def at(self, points: Tensor) -> Tensor:
        if points.dim() > 1:
            return super().at(points)
        missing = [point for point in points.tolist() if ("at", point) not in self._kept]
        if missing:
            for point, value in zip(missing, super().at(points.new_tensor(missing)).unbind(1), strict=True):
                self._kept["at", point] = value
        return torch.stack([self._kept["at", point] for point in points.tolist()], dim=1)

    def effects(self, points: Tensor) -> tuple[Tensor, Tensor] | None:
        return self.once(("effects", *_key(points)), lambda: super(RememberedGame, self).effects(points))

    def gradients(self, points: Tensor) -> tuple[Tensor, Tensor] | None:
        return self.once(("gradients", *_key(points)), lambda: super(RememberedGame, self).gradients(points))

    def coalition_gradients(self, members: Tensor) -> tuple[Tensor, Tensor] | None:
        return self.once(("coalitions", *_key(members)), lambda: super(RememberedGame, self).coalition_gradients(members))


def _key(tensor: Tensor) -> tuple[Hashable, ...]:
    return tensor.shape, tensor.dtype, tensor.cpu().numpy().tobytes()
