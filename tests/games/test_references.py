"""Exact answers, from games as they come."""

import torch

from captum_meta.games.references import exact_shapley_values


def test_a_constant_adds_nothing_not_even_rounding() -> None:
    assert exact_shapley_values(lambda members: torch.full(members.shape[:-1], 3.3), 7).eq(0).all()
