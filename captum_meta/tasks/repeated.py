"""Synthetic models that are explained several times, as training them takes far longer than explaining them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from captum_meta.evidence.shapley import CHOSEN_PLAYERS
from captum_meta.tasks.batched_games import chosen_without_border, shapley_explanations
from captum_meta.tasks.synthetic import SyntheticTaskFamily
from captum_meta.types import Explanations

_MOST_PLAYERS = 60
"""Models with more players are explained once, as their labels cost the most."""
_COALITIONS, _MOST_COALITIONS = 6, 128


@dataclass(frozen=True)
class RepeatedTaskFamily(SyntheticTaskFamily):
    """Shapley values of the models of :class:`SyntheticTaskFamily`, each explained ``times`` times.

    Rows, baselines, outputs and their sharpness are other ones each time. Of 16 to 128 players there is one variant more
    each time, measured as rows of saturated models are: coalitions are chosen by what they tell, the border not before them.

    Args:
        tasks_per_batch, rows, seed: as in :class:`SyntheticTaskFamily`.
        times: how often each model is explained.

    >>> family = RepeatedTaskFamily(tasks_per_batch=1, rows=2, times=3)
    >>> len(family.variants(1))
    3
    """

    times: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != "shapley":
            raise ValueError(f"RepeatedTaskFamily explains by Shapley values, not by {self.kind!r}: leave out kind.")
        if self.times < 1:
            raise ValueError(f"times={self.times}: pass how often each model is to be explained, at least 1.")

    def variants(self, index: int) -> list[Explanations]:
        """Explanations ``(T, N, M)`` of the models of batch ``index``, one or two each time."""
        generator = self._generator(index)
        x, architecture = self._drawn(generator)
        model, n_outputs = self._trained(x, architecture, generator)
        found = []
        n_players = x.shape[2]
        least, most = CHOSEN_PLAYERS
        for _ in range(self.times if n_players <= _MOST_PLAYERS else 1):
            x = x[:, torch.randperm(x.shape[1], generator=generator)]
            games = self._explained(x, model, n_outputs, generator)
            seed = int(torch.randint(2**31, (), generator=generator))
            count = max(2 * n_players, min(_COALITIONS * n_players, _MOST_COALITIONS))
            found.append(shapley_explanations(games, count, seed).detach())
            if least <= n_players <= most:
                found.append(chosen_without_border(found[-1], games, 3 * n_players - 2, seed).detach())
        return found
