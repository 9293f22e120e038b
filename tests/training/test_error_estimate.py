"""The training of error estimates."""

import torch

from captum_meta.nn import ErrorHead, ShapleyExplainer
from captum_meta.nn.error_head import PLAYER_NUMBERS, ROW_NUMBERS
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.training.error_estimate import Lesson, lessons, loss, train, within


def test_the_loss_wants_the_right_order_and_then_the_right_numbers() -> None:
    errors = torch.tensor([[-4.0, -2.0, -1.0, 0.0]])
    values = [loss(estimates, errors) for estimates in (errors, errors + 1, errors / 2, -errors)]
    assert values == sorted(values)


def test_what_errors_depend_on_is_learned() -> None:
    torch.manual_seed(0)
    taught = []
    for _ in range(8):
        players, rows = torch.randn(2, 12, 6, PLAYER_NUMBERS), torch.randn(2, 12, ROW_NUMBERS)
        errors = players[..., 3].amax(-1) + rows[..., 5]
        taught.append(Lesson(2, players, rows, torch.ones(2, 12, 6, dtype=torch.bool), errors))
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
    found = {one.multiple: one.errors for one in lessons(explainer, explained)}
    assert 2 in found
    evidence = within(explained.evidence, 2)
    assert evidence is not None and evidence.coalitions is None
    values, right = explainer(evidence).attributions, explained.attributions
    errors = (values - right).square().sum(-1) / right.square().sum(-1)
    assert torch.allclose(found[2], (errors[errors.mean(-1) > 1e-9] + 1e-12).log().float())
