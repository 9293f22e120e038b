"""The arguments of the metrics: tuples, groups, targets, extra arguments, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from metric_cases import CASES, Classifier, make_data
from torch import Tensor, nn

from captum_meta import functional as F
from captum_meta.functional._players import Players

DATA, MODEL = make_data(), Classifier().eval()
X, A, Y = DATA["inputs"], DATA["attributions"], DATA["target"]
ON_MODEL = [case for case in CASES if "forward_func" in case.function.__code__.co_varnames]
SAMPLED = ("Infidelity", "FaithfulnessCorrelation")


def split(inputs: Tensor) -> tuple[Tensor, Tensor]:
    return inputs[:, 0], inputs[:, 1]


def of_two(first: Tensor, second: Tensor) -> Tensor:
    return MODEL(torch.stack([first, second], 1))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_tuple_is_its_tensors_side_by_side(case: Any) -> None:
    parts = {name: value if name == "target" else split(value) for name, value in case.select(DATA).items()}
    whole = case.select(DATA)
    if case in ON_MODEL:
        values = case.function(of_two, **parts, reduction="none")
        torch.testing.assert_close(values, case.function(MODEL, **whole, reduction="none"), atol=1e-5, rtol=1e-4)
    elif not case.evaluates:
        values = case.function(**parts, **case.options, reduction="none")
        torch.testing.assert_close(values, case.function(**whole, **case.options, reduction="none"))


def test_a_method_gets_a_tuple_where_the_inputs_are_one() -> None:
    def explanation(inputs: tuple[Tensor, Tensor], additional_forward_args: Any) -> tuple[Tensor, Tensor]:
        return inputs[0] ** 2 * additional_forward_args, inputs[1]

    def single(inputs: Tensor, additional_forward_args: Any) -> Tensor:
        return torch.stack(explanation(split(inputs), additional_forward_args), 1)

    scale = torch.rand(8, 1)
    for function in (F.max_sensitivity, F.local_lipschitz):
        values = function(explanation, split(X), additional_forward_args=scale, reduction="none")
        expected = function(single, X, additional_forward_args=scale, reduction="none")
        torch.testing.assert_close(values, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("case", ON_MODEL, ids=lambda case: case.id)
def test_attributions_by_group(case: Any) -> None:
    mask = torch.tensor([[[0, 0, 1], [2, 3, 3]]])
    groups = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    spread = groups[:, mask[0]]
    arguments = {"inputs": X, "target": Y, "feature_mask": mask, "reduction": "none"}
    torch.testing.assert_close(case.function(MODEL, groups, **arguments), case.function(MODEL, spread, **arguments))
    with pytest.raises(ValueError, match="differs within a group"):
        case.function(MODEL, A, **arguments)


@pytest.mark.parametrize("case", ON_MODEL, ids=lambda case: case.id)
@pytest.mark.parametrize("target", [1, torch.tensor(2), (0,), [2] * 7 + [1], Y], ids=str)
def test_targets_as_in_captum(case: Any, target: Any) -> None:
    each = torch.tensor(target) if isinstance(target, list) else target
    index = torch.as_tensor(each[0] if isinstance(each, tuple) else each).expand(8)
    expected = case.function(MODEL, A, X, target=index, reduction="none")
    value = case.function(MODEL, A, X, target=target, reduction="none", max_rows=5)
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("case", ON_MODEL, ids=lambda case: case.id)
def test_additional_arguments_follow_their_rows(case: Any) -> None:
    scale = torch.arange(1.0, 9.0)

    def scaled(inputs: Tensor, scale: Tensor, shift: float) -> Tensor:
        return MODEL(inputs)[:, 0] * scale + shift

    values = case.function(scaled, A, X, additional_forward_args=(scale, 0.5), reduction="none", max_rows=7)
    for row in (0, 5):
        alone = case.function(lambda x, s=scale[row]: MODEL(x)[:, 0] * s + 0.5, A[row, None], X[row, None])
        torch.testing.assert_close(values[row], alone, atol=1e-4, rtol=1e-4)


def test_flat_and_integer_inputs() -> None:
    numbers, tokens = torch.rand(4), torch.tensor([[3, 1, 2], [5, 5, 0]])
    assert F.completeness_error(lambda x: 2 * x, 2 * numbers, numbers) == pytest.approx(0, abs=1e-6)
    counts = F.deletion_auc(lambda ids: (ids > 0).sum(1), torch.rand(2, 3), tokens, reduction="none")
    torch.testing.assert_close(counts, torch.tensor([1.5, counts[1].item()]))
    assert F.faithfulness_correlation(lambda ids: ids.sum(1).float(), tokens, tokens) == pytest.approx(1, abs=1e-4)


def test_seeds() -> None:
    scores = [F.infidelity(MODEL, A, X, target=Y, seed=seed) for seed in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]


def test_many_players() -> None:
    image = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    area = F.deletion_auc(lambda x: x.mean((1, 2, 3)), image, image, max_rows=4)
    assert area < 0.5 * image.mean()


def test_random_removal_takes_half_of_the_players() -> None:
    seen: list[Tensor] = []

    def model(inputs: Tensor) -> Tensor:
        seen.append(inputs)
        return inputs.sum(1)

    ones = torch.rand(4, 500) + 1
    F.infidelity(model, ones, ones, n_perturb_samples=20)
    kept = (torch.cat(seen) != 0).float()
    kept = kept[kept.mean(1) < 1]
    assert len(kept) == 80 and len(kept.unique(dim=0)) == 80
    assert kept.mean() == pytest.approx(0.5, abs=0.02)
    assert kept.mean(1).sub(0.5).abs().max() < 0.12


def test_what_the_output_must_be() -> None:
    with pytest.raises(ValueError, match="one number per row: pass a target"):
        F.deletion_auc(MODEL, A, X)
    with pytest.raises(ValueError, match="one number per row"):
        F.deletion_auc(lambda x: x.sum(), A, X)
    with pytest.raises(IndexError):
        F.deletion_auc(MODEL, A, X, target=3)
    assert F.completeness_error(lambda x: x.sum((1, 2), keepdim=True), X, X) < 1e-5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.rank_correlation(A[:, :1], A), ValueError, "pass one value per feature"),
        (lambda: F.rank_correlation(A[:4], A), ValueError, "there are 8 rows"),
        (lambda: F.rank_correlation([A], A), TypeError, "attributions is a list: pass a tensor"),
        (lambda: F.sparseness((A, A[:2])), ValueError, "same number B of rows"),
        (lambda: F.sparseness(A[:0]), ValueError, "no rows"),
        (lambda: F.sparseness(A, torch.zeros(5).long()), ValueError, "feature_mask has shapes.*broadcasts"),
        (lambda: F.sparseness(A, (torch.zeros(1, 2, 3),) * 2), ValueError, "feature_mask has shapes"),
        (lambda: F.top_k_agreement(A, A, k=7), ValueError, "pass k from 1 to 6"),
        (lambda: F.top_k_agreement(A, A, kind="set"), ValueError, "pass one of feature, rank"),
        (lambda: F.pointing_game(A, torch.zeros(8, 2, 3)), ValueError, "False everywhere in rows"),
        (lambda: F.pointing_game(A, torch.ones(8, 5)), ValueError, "relevant has shapes"),
        (lambda: F.deletion_auc(MODEL, A, X, torch.zeros(3, 2, 3), Y), ValueError, "pass a number, or a tensor"),
        (lambda: F.deletion_auc(MODEL, A, X, (0, 0), Y), ValueError, "2 entries for 1 inputs"),
        (lambda: F.deletion_auc(MODEL, A, X, target=Y, n_steps=0), ValueError, "n_steps is 0"),
        (lambda: F.deletion_auc(MODEL, A, X, target=Y, max_rows=0), ValueError, "max_rows is 0"),
        (lambda: F.deletion_auc(MODEL, A, X, X, Y, normalise=True), ValueError, "pass normalise=False"),
        (lambda: F.sufficiency(MODEL, A, X, target=Y, fractions=[2.0]), ValueError, "from 0 to 1"),
        (lambda: F.faithfulness_correlation(MODEL, A, X, target=Y, fraction=0), ValueError, "above 0 and up to 1"),
        (lambda: F.max_sensitivity(lambda x: x, X.long()), ValueError, "floating inputs"),
        (lambda: F.max_sensitivity(lambda x: x, X, n_perturb_samples=0), ValueError, "n_perturb_samples is 0"),
        (lambda: F.local_lipschitz(lambda x: x, X, n_perturb_samples=0), ValueError, "n_perturb_samples is 0"),
        (lambda: F.infidelity(MODEL, A, X, target=Y, n_perturb_samples=0), ValueError, "n_perturb_samples is 0"),
        (lambda: F.max_sensitivity(X, X), TypeError, "not callable"),
        (lambda: F.parameter_randomisation(lambda m: m, lambda x: x, X), TypeError, "pass an nn.Module"),
        (lambda: F.parameter_randomisation(lambda m: m, torch.nn.Tanh(), X), ValueError, "no parameters"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_say_what_to_pass(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_players_of_a_tuple_may_share_groups() -> None:
    parts = (torch.zeros(2, 3), torch.zeros(2, 1, 2))
    players = Players.of(parts, (torch.tensor([[9, 4, 4]]), torch.tensor([[[9, 5]]])))
    assert players.counts.tolist() == [3, 3]
    assert players.values((torch.tensor([[7.0, 1, 1]] * 2), torch.tensor([[[7.0, 3]]] * 2))).tolist() == [[1, 3, 7]] * 2
    shares = players.shares(torch.tensor([[1.0, 3.0, 7.0]] * 2))
    assert shares[0][0].tolist() == [3.5, 0.5, 0.5]
    torch.testing.assert_close(shares[1], torch.tensor([[[3.5, 3.0]]] * 2))


@pytest.mark.parametrize("case", ON_MODEL, ids=lambda case: case.id)
def test_batch_statistics_of_a_model_in_train_mode_stay(case: Any) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6), nn.Linear(6, 3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    case.function(model, **case.select(DATA))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("case", ON_MODEL, ids=lambda case: case.id)
def test_outputs_may_be_numpy_arrays_and_what_is_no_output_is_named(case: Any) -> None:
    value = case.function(lambda inputs: MODEL(inputs).numpy(), **case.select(DATA), **case.options)
    torch.testing.assert_close(value, case.function(MODEL, **case.select(DATA), **case.options))
    with pytest.raises(AssertionError, match="forward_func gave a dict"):
        case.function(lambda inputs: {"logits": MODEL(inputs)}, **case.select(DATA))
