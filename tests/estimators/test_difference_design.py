"""Coalitions for Shapley values, against what is left of their variance by conditioning anew at every step."""

import torch
from torch import Tensor

from captum_meta.estimators import HypercubePrior, all_coalitions, telling_differences
from captum_meta.estimators.hypercube import HypercubeKernel

M, COUNT = 5, 5
EVERY = all_coalitions(M)[1 : 2 ** (M - 1)].double().unsqueeze(0) * 2 - 1
SEEN = torch.cat([torch.ones(1, 1, M), 2 * torch.eye(M).unsqueeze(0) - 1], dim=1).double()
FREE = torch.ones(1, EVERY.shape[1], dtype=torch.bool)
PRIORS = [
    HypercubePrior(
        torch.zeros(1, M).double(),
        torch.tensor([[-1.0, 0.5, -2.0, 0.0, 0.25]]).double().exp(),
        torch.tensor([rates]).double().sigmoid(),
        torch.zeros(1, 1, M).double(),
    )
    for rates in ([0.0, -1.0, -3.0, -0.5, -2.25], [-4.0, -2.5, 1.0, -0.75, -1.0])
]


def variance_left(prior: HypercubePrior, signs: Tensor) -> float:
    """Of the Shapley values, summed, where the pairs of ``signs (P, M)`` are known."""
    kernel = HypercubeKernel(signs, prior.additive[0], prior.rates[0])
    cross, among = kernel.with_shapley_values(), kernel.with_pairs(signs)
    among = among + 1e-10 * among[0, 0] * torch.eye(len(signs))
    return float(kernel.of_shapley_values().sum() - (cross * torch.linalg.solve(among, cross)).sum())


def are_best(priors: list[HypercubePrior], found: list[int]) -> None:
    """Each leaves least, in the mean over priors of what the best one of each takes away."""
    known, free = SEEN[0], set(range(EVERY.shape[1]))
    for index in found:
        shares = {other: 0.0 for other in free}
        for prior in priors:
            before = variance_left(prior, known)
            gains = {other: before - variance_left(prior, torch.cat([known, EVERY[0, [other]]])) for other in free}
            shares = {other: share + gains[other] / max(gains.values()) for other, share in shares.items()}
        assert shares[index] >= max(shares.values()) * (1 - 1e-3)
        known, free = torch.cat([known, EVERY[0, [index]]]), free - {index}


def test_each_leaves_least_of_the_variance_of_all_shapley_values() -> None:
    for prior in PRIORS:
        are_best([prior], telling_differences(prior, SEEN, EVERY, FREE, COUNT)[0].tolist())


def test_outputs_of_a_row_see_what_tells_most_of_all() -> None:
    both = HypercubePrior.concatenate(PRIORS)
    rows = (part.expand(2, *part.shape[1:]) for part in (SEEN, EVERY, FREE))
    found = telling_differences(both, *rows, COUNT, together=2)
    assert torch.equal(found[0], found[1])
    are_best(PRIORS, found[0].tolist())


def test_only_free_ones_are_chosen_and_a_shorter_list_begins_a_longer_one() -> None:
    free = FREE.clone()
    free[:, ::3] = False
    found = telling_differences(PRIORS[0], SEEN, EVERY, free, int(free.sum()))
    assert found[0].sort().values.tolist() == free[0].nonzero().flatten().tolist()
    assert torch.equal(telling_differences(PRIORS[0], SEEN, EVERY, free, 3), found[:, :3])


def test_players_that_do_not_act_do_not_matter() -> None:
    few, prior = [0, 1, 3, 4], PRIORS[0]
    still = torch.tensor([[False, False, True, False, False]])
    padded = prior.among(~still)
    less = HypercubePrior(*(part[..., few] for part in (prior.mean, prior.additive, prior.rates, prior.directions)))
    seen, every = (torch.where(still.unsqueeze(1), 0.0, part) for part in (SEEN[:, [0, 1, 2, 4, 5]], EVERY[:, :7]))
    without = telling_differences(less, seen[..., few], every[..., few], FREE[:, :7], COUNT)
    assert torch.equal(telling_differences(padded, seen, every, FREE[:, :7], COUNT), without)
