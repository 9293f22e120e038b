"""Shapes that annotations state are held while tests run."""

import pytest
import torch
from jaxtyping import TypeCheckError

from captum_meta.estimators import CoalitionPairs, shapley_values


def test_a_wrong_shape_or_dtype_is_told_in_tests() -> None:
    with pytest.raises(TypeCheckError, match="worths"):
        shapley_values(torch.zeros(4, dtype=torch.int64))
    members, known = torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    with pytest.raises(TypeCheckError, match="players"):
        CoalitionPairs(members, torch.zeros(2), known, torch.ones(4, dtype=torch.bool), torch.zeros(()))
