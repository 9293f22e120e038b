from math import comb

import numpy as np
import torch

from captum_meta.estimators import all_coalitions, kernel_matrix, kernel_shapley_values, sample_coalitions, shapley_values


def test_equals_the_constrained_minimum_found_by_its_optimality_conditions() -> None:
    n_players, strength = 5, 0.3
    rng = np.random.default_rng(0)
    members, _ = sample_coalitions(torch.ones(1, n_players, dtype=torch.bool), 18, 0, torch.tensor([1]))
    worths, prior, total = rng.normal(size=18), rng.normal(size=n_players), 1.7
    z = members[0].double().numpy()
    sizes = z.sum(1).astype(int)
    weights = [(n_players - 1) / (s * (n_players - s)) / (sizes == s).sum() for s in sizes]
    gram = sum(w * np.outer(row, row) for w, row in zip(weights, z, strict=True)) + strength * np.eye(n_players)
    right = sum(w * row * y for w, row, y in zip(weights, z, worths, strict=True)) + strength * prior
    ones = np.ones(n_players)
    system = np.block([[2 * gram, ones[:, None]], [ones[None], np.zeros((1, 1))]])
    expected = np.linalg.solve(system, np.concatenate([2 * right, [total]]))[:n_players]
    values = kernel_shapley_values(
        members,
        torch.tensor(worths)[None],
        torch.ones(1, 18, dtype=torch.bool),
        torch.ones(1, n_players, dtype=torch.bool),
        torch.tensor([total], dtype=torch.float64),
        torch.tensor(prior)[None],
        torch.tensor(strength),
    )
    assert np.allclose(values[0].numpy(), expected)


def test_all_coalitions_and_no_prior_give_shapley_values() -> None:
    worths = torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    worths = worths - worths[0]
    members = all_coalitions(4)[1:-1]
    assert sum(comb(4, k) for k in range(1, 4)) == len(members)
    values = kernel_shapley_values(
        members,
        worths[1:-1],
        torch.ones(14, dtype=torch.bool),
        torch.ones(4, dtype=torch.bool),
        worths[-1],
        torch.zeros(4),
        torch.tensor(1e-12),
    )
    assert torch.allclose(values, shapley_values(worths), atol=1e-8)


def test_the_matrix_says_what_the_solution_says() -> None:
    members, measured = sample_coalitions(torch.ones(3, 7, dtype=torch.bool), 40, 0, torch.arange(3))
    generator = torch.Generator().manual_seed(0)
    worths, total = torch.randn(3, 40, generator=generator).double(), torch.randn(3, generator=generator).double()
    share = (total / 7).unsqueeze(-1)
    even, strength = share.expand(3, 7), torch.full((3, 7), 1e-3).double()
    everyone = torch.ones(3, 7, dtype=torch.bool)
    expected = kernel_shapley_values(members, worths, measured, everyone, total, even, strength)
    beyond = (worths - share * members.sum(-1)).unsqueeze(-1)
    assert torch.allclose(share + (kernel_matrix(members, 1e-3) @ beyond).squeeze(-1), expected)
