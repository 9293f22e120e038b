"""Coalitions for interactions of pairs, against what is left of the variance of each pair by brute force."""

import torch
from torch import Tensor

from captum_meta.estimators import all_coalitions, interactions, telling_sums
from captum_meta.estimators.interaction_process import InteractionKernel
from captum_meta.estimators.multi_index import FullWaves

M, SEEN, COUNT = 5, 6, 5


def variance_left(covariance: Tensor, sums: list[Tensor]) -> float:
    """Of the SII of all pairs, summed, where these sums of worths ``(2**M,)`` are known; ``covariance`` of all worths."""
    first, second = torch.triu_indices(M, M, 1)
    pairs = interactions(torch.eye(2**M).double(), "SII")[:, first, second].T
    seen = torch.stack(sums)
    of_pairs = pairs @ covariance @ pairs.T
    both = pairs @ covariance @ seen.T
    return float((of_pairs - both @ torch.linalg.solve(seen @ covariance @ seen.T, both.T)).trace())


def test_each_sum_leaves_least_of_the_variance_of_all_pairs() -> None:
    members = torch.cat([torch.ones(1, M).bool(), all_coalitions(M)[1 : 2 ** (M - 1)]])
    members = torch.cat([members[:1], torch.eye(M).bool(), members[1:][members[1:].sum(1) > 1]])[: 2 ** (M - 1)]
    codes = (members * 2 ** torch.arange(M)).sum(1)
    sums = [torch.eye(2**M).double()[[code, 2**M - 1 - code]].sum(0) for code in codes.tolist()]
    rates, amounts = (
        torch.tensor([[0.0, -1.0, -3.0, -0.5, -2.25]]).double().sigmoid(),
        torch.tensor([[0.25, -0.5, 0.0]]).double().exp(),
    )
    every = all_coalitions(M).double().unsqueeze(0) * 2 - 1
    kernel = InteractionKernel(rates, amounts, FullWaves(torch.zeros(1, 1, M).double()))
    covariance = kernel.between(every, every)[0] + 10
    found = telling_sums(rates, amounts, members.double().unsqueeze(0) * 2 - 1, SEEN, COUNT)[0].tolist()
    known = list(range(SEEN))
    for index in found:
        left = {
            other: variance_left(covariance, [sums[k] for k in (*known, other)])
            for other in range(len(sums))
            if other not in known
        }
        assert left[index] <= min(left.values()) * (1 + 1e-4)
        known.append(index)


def test_players_that_do_not_act_do_not_matter() -> None:
    signs = all_coalitions(M)[torch.randperm(2 ** (M - 1))].double().unsqueeze(0) * 2 - 1
    rates, amounts = torch.full((1, M), 0.3).double(), torch.ones(1, 3).double()
    rates[:, 2] = signs[:, :, 2] = 0.0
    few = [0, 1, 3, 4]
    without = telling_sums(rates[:, few], amounts, signs[:, :, few], SEEN, COUNT)
    assert torch.equal(telling_sums(rates, amounts, signs, SEEN, COUNT), without)
