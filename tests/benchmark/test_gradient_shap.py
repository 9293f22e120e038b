"""The comparison of GradientShap."""

import numpy as np
import pytest
import torch

from captum_meta.benchmark import gradient_shap
from captum_meta.benchmark.heldout import load_held_out


@pytest.mark.parametrize("method", [gradient_shap._captum, gradient_shap._ours])
def test_runs_are_functions_of_their_seed_and_leave_the_global_streams_alone(method) -> None:  # type: ignore[no-untyped-def]
    problem = load_held_out("wine/mlp/probability/zero")
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    first = method(problem, 2, 0)
    assert torch.equal(method(problem, 2, 0), first)
    assert not torch.equal(method(problem, 2, 1), first)
    assert np.array_equal(np.random.get_state()[1], before) and torch.equal(torch.get_rng_state(), torch_before)
