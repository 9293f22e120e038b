"""The training of error estimates."""

import pytest
import torch

from captum_meta.nn import ErrorHead, ShapleyExplainer
from captum_meta.nn.error_head import PLAYER_NUMBERS, ROW_NUMBERS
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.training.error_estimate import (
    KINDS,
    Lesson,
    calibrated_margin,
    claims,
    explained_batch,
    lessons,
    loss,
    train,
    within,
)
from captum_meta.training.rough_games import Conjunctions, DecisionTrees


def test_the_loss_wants_the_right_order_and_nine_in_ten_below() -> None:
    errors = torch.tensor([[-4.0, -2.0, -1.0, 0.0]])
    known = torch.ones(1, 4, dtype=torch.bool)
    values = [loss(estimates, errors, known) for estimates in (errors, errors + 1, errors - 0.5, -errors)]
    assert values == sorted(values)
    spread = torch.arange(100.0).unsqueeze(0)
    level = [float(loss(torch.full_like(spread, one), spread, spread >= 0)) for one in range(100)]
    assert 88 <= level.index(min(level)) <= 91
    unknown = torch.tensor([[True, True, True, False]])
    assert torch.equal(*(loss(errors, torch.tensor([[-4.0, -2.0, -1.0, last]]), unknown) for last in (0.0, 9.0)))


def test_what_errors_depend_on_is_learned() -> None:
    torch.manual_seed(0)
    taught = []
    for _ in range(8):
        players, rows = torch.randn(2, 12, 6, PLAYER_NUMBERS), torch.randn(2, 12, ROW_NUMBERS)
        errors, all_of_them = players[..., 3].amax(-1) + rows[..., 5], torch.ones(2, 12, 6, dtype=torch.bool)
        taught.append(Lesson("smooth", 2, players, rows, all_of_them, errors, all_of_them[..., 0]))
    head = ErrorHead(8)
    train(head, taught[1:], steps=300)
    unseen = taught[0]
    assert torch.corrcoef(torch.stack([unseen.estimated(head).flatten(), unseen.errors.flatten()]))[0, 1] > 0.8


def test_errors_are_those_of_the_answer_at_each_budget() -> None:
    torch.manual_seed(0)
    explainer = ShapleyExplainer(16, 1).double()
    family = SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=4, seed=5)
    batches = (family[index] for index in range(20))
    explained = next(batch for batch in batches if 7 <= batch.attributions.shape[-1] <= 12).to(dtype=torch.float64)
    found = {one.multiple: one.errors for one in lessons(explainer, explained, "smooth")}
    assert 2 in found
    evidence = within(explained.evidence, 2)
    assert evidence is not None and evidence.coalitions is None
    values, right = explainer(evidence).attributions, explained.attributions
    errors = (values - right).square().sum(-1) / right.square().sum(-1)
    assert torch.allclose(found[2], (errors + 1e-9).log().float())


def lesson(multiple: int, estimates: list[float], errors: list[float]) -> Lesson:
    """One whose estimates are its first number of the row."""
    rows = torch.zeros(1, len(errors), ROW_NUMBERS)
    rows[0, :, 0] = torch.tensor(estimates).log()
    mask = torch.ones(1, len(errors), 3, dtype=torch.bool)
    numbers = torch.zeros(1, len(errors), 3, PLAYER_NUMBERS)
    return Lesson("smooth", multiple, numbers, rows, mask, torch.tensor([errors]).log(), mask[..., 0])


class FirstNumber(ErrorHead):
    def forward(self, players: torch.Tensor, rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return rows[..., 0]


def test_a_row_claims_a_tolerance_once_at_the_first_budget_that_meets_it() -> None:
    batch = [lesson(2, [0.05, 0.5, 0.5], [0.2, 0.5, 0.5]), lesson(4, [0.01, 0.08, 0.5], [0.01, 0.02, 0.01])]
    assert claims([batch], FirstNumber(), 0.0, 0.1).tolist() == [False, True]
    assert claims([batch], FirstNumber(), 1.0, 0.1).tolist() == [True]


def test_the_margin_is_the_least_that_keeps_the_claims() -> None:
    estimates, errors = [0.09] * 100, [0.05] * 80 + [0.15] * 20
    again = lesson(4, [0.01] * 100, [0.001] * 100)
    margin = calibrated_margin([[lesson(2, estimates, errors), again]], FirstNumber())
    assert 0.0 < margin <= 0.2  # just so much that none claims at once


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_model_is_explained_exactly(kind: str) -> None:
    explained = explained_batch(kind, 3, 0)
    evidence, right = explained.evidence, explained.attributions
    assert torch.allclose(right.sum(-1), evidence.total, atol=1e-4 * float(evidence.total.abs().max()))
    assert 4 <= right.shape[-1] <= 12 and bool(right.any())
    assert bool(evidence.measured[..., :3].any()) == (kind == "smooth" and bool(evidence.effects[..., :3].any()))


def test_conjunctions_are_what_their_literals_say() -> None:
    generator = torch.Generator().manual_seed(4)
    for _ in range(20):
        model = Conjunctions(2, 5, generator)
        x = torch.randn(2, 30, 5, 1, generator=generator)
        values = model(x)
        for task in range(2):
            for row in range(30):
                wanted = 0.0
                for term in range(model.weights.shape[1]):
                    players = model.chosen[task, term].nonzero().flatten().tolist()
                    literals = [(x[task, row, p, 0] > 0) != (model.negative[task, term, p] > 0) for p in players]
                    if sum(map(bool, literals)) >= model.least[task, term]:
                        wanted += float(model.weights[task, term])
                assert abs(float(values[task, row]) - wanted) < 1e-4


def test_trees_are_followed_from_their_roots() -> None:
    generator = torch.Generator().manual_seed(5)
    for _ in range(5):
        model = DecisionTrees(2, 4, generator)
        x = torch.randn(2, 10, 4, 1, generator=generator)
        values = model(x)
        for task in range(2):
            for row in range(10):
                found = []
                for tree in range(model.leaves.shape[1]):
                    node = 0
                    for _ in range(model.depth):
                        feature = int(model.features[task, tree, node])
                        node = 2 * node + 1 + int(x[task, row, feature, 0] > model.thresholds[task, tree, node])
                    found.append(model.leaves[task, tree, node - 2**model.depth + 1])
                mean = torch.stack(found).mean()
                wanted = torch.sigmoid(model.gain * len(found) ** 0.5 * mean) if model.gain else mean
                assert torch.allclose(values[task, row], wanted, atol=1e-5)
