import pytest
import torch

from captum_meta.games import BatchedGames
from captum_meta.tasks import RepeatedTaskFamily, SyntheticTaskFamily
from captum_meta.tasks.augment import augment, drop_evidence
from captum_meta.tasks.batched_games import chosen_without_border, shapley_explanations


def family(times: int = 4) -> RepeatedTaskFamily:
    return RepeatedTaskFamily(tasks_per_batch=2, rows=3, seed=3, times=times)


def test_models_are_explained_anew_each_time() -> None:
    first, second, third = family(times=3).variants(1)[:3]
    assert first.attributions.shape == second.attributions.shape == third.attributions.shape
    assert not torch.allclose(first.evidence.total, second.evidence.total)
    assert torch.equal(family(times=3).variants(1)[0].attributions, first.attributions)


def test_it_explains_shapley_values_and_at_least_once() -> None:
    with pytest.raises(ValueError, match="explains by Shapley values, not by 'path'"):
        RepeatedTaskFamily("path")
    with pytest.raises(ValueError, match="times=0: pass how often"):
        family(times=0)


def squares(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return x.squeeze(-1).sum(-1) ** 2 + x[..., 3, 0] * x[..., 5, 0]


def test_what_is_chosen_without_the_border_tells_of_it_what_was_evaluated() -> None:
    x = torch.randn(2, 3, 16, 1, generator=torch.Generator().manual_seed(0))
    games = BatchedGames(squares, x, torch.zeros_like(x), True)
    whole = shapley_explanations(games, 0, seed=0)
    evidence = chosen_without_border(whole, games, 40, seed=0).evidence
    coalitions = evidence.coalitions
    assert coalitions is not None and coalitions.members.shape == (2, 3, 40, 16)
    members = coalitions.members
    alone = {
        (task, row, player)
        for task in range(2)
        for row in range(3)
        for player in range(16)
        if (members[task, row].sum(-1) == 1)[members[task, row, :, player]].any()
    }
    assert {tuple(place) for place in evidence.measured[..., 4].nonzero().tolist()} == alone
    assert torch.equal(evidence.effects[..., :3], whole.evidence.effects[..., :3])
    known = evidence.measured
    assert torch.equal(evidence.effects[known], whole.evidence.effects[known])
    task, row, place = 1, 2, 7
    point = torch.where(members[task, row, place].unsqueeze(-1), x[task, row], 0.0)
    assert torch.allclose(coalitions.worths[task, row, place], squares(point, torch.tensor([row])), rtol=1e-4)


def test_training_keeps_gradients_and_coalitions_of_rows_without_a_border() -> None:
    x = torch.randn(2, 6, 16, 1, generator=torch.Generator().manual_seed(0))
    games = BatchedGames(squares, x, torch.zeros_like(x), True)
    explained = chosen_without_border(shapley_explanations(games, 0, seed=0), games, 46, seed=0)
    for seed in range(20):
        kept = drop_evidence(explained.evidence, torch.Generator().manual_seed(seed))
        assert torch.equal(kept.measured, explained.evidence.measured)
        assert kept.coalitions is not None and kept.coalitions.measured.all()
        augmented = augment(explained, torch.Generator().manual_seed(seed)).evidence
        assert augmented.measured.flatten(1).any(1).all()


def test_once_is_like_the_family_of_which_it_is_a_kind() -> None:
    plain = SyntheticTaskFamily(tasks_per_batch=2, rows=3, seed=3)
    assert family(times=1).variants(1)[0].attributions.shape == plain.variants(1)[0].attributions.shape
