"""Slopes that rates and amounts of interactions are fitted by, against those of the plain log density."""

import torch

from captum_meta.estimators import all_coalitions
from captum_meta.estimators.interaction_likelihood import SeenGame
from captum_meta.estimators.interaction_process import InteractionKernel
from captum_meta.estimators.multi_index import FullWaves


def test_slopes_are_those_of_the_log_density_and_of_what_is_expected() -> None:
    n_rows, n_seen, n_players = 3, 24, 6
    acting = torch.ones(n_rows, n_players, dtype=torch.bool)
    acting[1, -1] = False
    known = torch.rand(n_rows, n_seen) < 0.8
    worths = torch.where(known, torch.randn(n_rows, n_seen), 0.0).double()
    chosen = torch.stack([torch.randperm(2 ** (n_players - 1))[:n_seen] for _ in range(n_rows)])
    chosen[::2] += 2 ** (n_players - 1) * torch.randint(2, (2, n_seen))
    signs = torch.where(acting.unsqueeze(1), 2 * all_coalitions(n_players)[chosen].double() - 1, 0.0)
    waves = FullWaves(torch.randn(n_rows, 3, n_players).double() * acting.unsqueeze(1))
    moved = torch.randn(n_rows, n_players + 3).double().requires_grad_()
    among = waves.at(signs) @ waves.at(signs).mT
    game = SeenGame(signs * known.unsqueeze(-1), worths, known, acting, among)

    def density(row: int) -> torch.Tensor:
        seen, size = known[row], known[row].sum()
        covariance = InteractionKernel(*game.parameters(moved), waves).between(signs, signs)[row][seen][:, seen] + 10
        covariance = covariance + 1e-6 * covariance.diag().diag()
        inverse = torch.linalg.solve(covariance, worths[row, seen])
        logits = moved[row, :-3][acting[row]]
        mean = logits.mean()
        expected = ((logits - mean) / 1.5).square().sum() + mean.square() + (moved[row, -3:] / 2).square().sum()
        return (size * (worths[row, seen] @ inverse).log() + covariance.logdet() + expected) / 2

    (expected,) = torch.autograd.grad(sum(density(row) for row in range(n_rows)), moved)
    assert torch.allclose(game.slopes(moved.detach()), expected, rtol=1e-4, atol=1e-4)
