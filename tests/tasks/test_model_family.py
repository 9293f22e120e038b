"""Tasks from the user's own models."""

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients, KernelShap, ShapleyValues, ShapleyValueSampling
from torch import Tensor, nn

from captum_meta.estimators import kernel_shapley_values
from captum_meta.evidence import Game
from captum_meta.tasks import ExplainedData, ModelTaskFamily
from captum_meta.tasks.cache import ExplanationCache, describe, key_of, make
from captum_meta.tasks.fingerprint import fingerprint
from captum_meta.tasks.joining import join
from captum_meta.tasks.labelling import LabelError, by_shared_plan, composite, path_reference, shared_plan


def rows(width: int = 4, count: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def net(seed: int = 0, width: int = 4, outputs: int = 3) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, outputs))


def family(**arguments: Any) -> ModelTaskFamily:
    return ModelTaskFamily(**{"models": [net(0), net(1)], "datasets": rows(), "rows": 5, **arguments})


def plain_shapley(function: Callable[[Tensor], Tensor], x: Tensor, baseline: Tensor) -> Tensor:
    """Mean gain of each player over all orders."""
    total = torch.zeros(x.numel())
    orders = list(permutations(range(x.numel())))
    for order in orders:
        here = baseline.clone()
        for player in order:
            before = function(here[None])
            here[player] = x[player]
            total[player] += (function(here[None]) - before).squeeze()
    return total / len(orders)


def test_default_labels_are_shapley_values_of_the_predicted_class() -> None:
    model, data = net().eval(), ExplainedData(rows(), baselines=rows(seed=1))
    task = ModelTaskFamily([model], data, rows=12).variants(0)[0]
    with torch.no_grad():
        classes = model(rows()).argmax(1)
        expected = [
            plain_shapley(lambda x, c=c: model(x)[:, c], x, b) for x, b, c in zip(rows(), rows(seed=1), classes, strict=True)
        ]
    order = ModelTaskFamily([model], data, rows=12)
    assert task.attributions.shape == (1, 12, 4)
    drawn = [int((torch.stack(expected) - label).abs().sum(1).argmin()) for label in task.attributions[0]]
    assert sorted(drawn) == list(range(12))
    assert torch.allclose(task.attributions[0], torch.stack(expected)[drawn], atol=1e-5)
    assert torch.equal(task.labels[0], classes[drawn])
    assert torch.equal(order.variants(0)[0].attributions, task.attributions)


def test_more_than_twelve_players_are_labelled_closely() -> None:
    """A sum of pairs, whose Shapley values are half of each pair."""

    class Pairs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x[:, 0::2] * x[:, 1::2]).sum(1)

    x = rows(14, 4)
    task = ModelTaskFamily([Pairs()], ExplainedData(x, target=None), rows=4).variants(0)[0]
    halves = (x[:, 0::2] * x[:, 1::2] / 2).repeat_interleave(2, 1)
    total = halves.sum(1)
    match = [int((total - t).abs().argmin()) for t in task.evidence.total[0]]
    assert torch.allclose(task.attributions[0], halves[match], atol=1e-4)


def test_shared_plans_solve_kernel_shap() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(15, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    game = Game(model, rows(15, 3).double(), None, 0)
    members, _ = shared_plan(3, 15, 2)
    ends = game.at(torch.tensor([0.0, 1.0])).squeeze(-1)
    worths = game.values(members).squeeze(-1) - ends[:, :1]
    everyone, total = torch.ones(3, 15, dtype=torch.bool), ends[:, 1] - ends[:, 0]
    known = torch.ones_like(worths, dtype=torch.bool)
    nothing = torch.zeros(3, 15, dtype=torch.float64)
    expected = kernel_shapley_values(members, worths, known, everyone, total, nothing, nothing + 1e-9)
    assert torch.allclose(by_shared_plan(game, 2, ends), expected, atol=1e-6)
    assert not torch.equal(shared_plan(3, 15, 1)[0], members)


@pytest.mark.parametrize("teacher", [KernelShap, ShapleyValueSampling, IntegratedGradients])
def test_a_teacher_labels_as_it_would_itself(teacher: type) -> None:
    model = net().eval()
    data = ExplainedData(rows(4, 3), target=1)
    arguments = {"n_steps": 20} if teacher is IntegratedGradients else {"n_samples": 300}
    task = ModelTaskFamily([model], data, teacher, teacher_arguments=arguments, rows=3).variants(0)[0]
    torch.manual_seed(0)
    expected = teacher(model).attribute(rows(4, 3), target=1, **arguments)
    for label in task.attributions[0]:
        assert (expected - label).norm(dim=1).min() < (1e-5 if teacher is IntegratedGradients else 0.15 * label.norm())


def test_repeats_tell_the_noise_of_the_labels() -> None:
    def many(repeats: int) -> Tensor:
        arguments: dict[str, Any] = {"teacher_arguments": {"n_samples": 1}, "repeats": repeats}
        return ModelTaskFamily([net()], rows(), ShapleyValueSampling, rows=12, **arguments).variants(0)[0]

    exact = ModelTaskFamily([net()], rows(), rows=12).variants(0)[0]
    noisy = many(30)
    assert (exact.variance == 0).all()
    order = [int((exact.evidence.total - t).abs().argmin()) for t in noisy.evidence.total[0]]
    squared = (noisy.attributions[0] - exact.attributions[0][order]).square().sum()
    assert 0.3 < squared / noisy.variance.sum() < 3


def test_feature_masks_paths_and_tuples() -> None:
    masked = family(datasets=ExplainedData(rows(), feature_mask=torch.tensor([[0, 0, 1, 1]])))
    assert masked.variants(0)[0].attributions.shape == (1, 5, 2)
    taught = family(
        datasets=ExplainedData(rows(), feature_mask=torch.tensor([[0, 0, 1, 1]])),
        teacher=ShapleyValues,
    )
    assert torch.allclose(taught.variants(0)[0].attributions, masked.variants(0)[0].attributions, atol=1e-5)
    paths = family(kind="path", points=(2, 4)).variants(0)
    assert [view.evidence.effects.shape for view in paths] == [(1, 5, 4, 2), (1, 5, 4, 4)]
    assert torch.allclose(paths[1].attributions.sum(-1), paths[1].evidence.total, atol=1e-4)

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor, scale: float) -> Tensor:
            return scale * torch.stack([(x * y).sum(1), x.sum(1)], 1)

    data = ExplainedData((rows(2), rows(2, seed=1)), target=lambda outputs: outputs.argmin(1), additional_forward_args=2.0)
    assert ModelTaskFamily([Two()], data, rows=6).variants(0)[0].attributions.shape == (1, 6, 4)


def test_tasks_of_different_widths_join() -> None:
    views = [ModelTaskFamily([net(width=w)], rows(w), rows=5).variants(0)[0] for w in (3, 5, 1)]
    joined = join(views)
    assert joined.attributions.shape == (3, 5, 5)
    assert joined.evidence.players.sum(-1).unique().tolist() == [1, 3, 5]
    assert (joined.attributions[~joined.evidence.players] == 0).all()
    for number, view in enumerate(views):
        width = view.attributions.shape[-1]
        assert torch.equal(joined.attributions[number, :, :width], view.attributions[0])
        coalitions = joined.evidence.coalitions
        assert coalitions is not None and not coalitions.members[number, ..., width:].any()
    with pytest.raises(ValueError, match=r"of \[5, 6\] rows cannot be joined"):
        join([views[0], ModelTaskFamily([net()], rows(), rows=6).variants(0)[0]])


def test_models_are_untouched() -> None:
    model = net().train()
    model[2].eval()
    model[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    for arguments in ({}, {"teacher": ShapleyValueSampling, "teacher_arguments": {"n_samples": 2}}, {"kind": "path"}):
        family(models=[model], **arguments).variants(0)
    assert [part.training for part in model.modules()] == [True, True, True, False, True, True]
    assert not model[0].weight.requires_grad and model[4].weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_models_are_explained_in_eval_mode() -> None:
    trained, evaluated = net().train(), net().eval()
    one, other = (family(models=[model]).variants(0)[0] for model in (trained, evaluated))
    assert torch.equal(one.attributions, other.attributions)


def test_holding_out_splits_by_model_and_by_data() -> None:
    everything = family(models=[net(i) for i in range(4)], datasets=[rows(seed=i) for i in range(3)])
    left, held = everything.hold_out(models=[3], datasets=[0])
    assert len(everything) == 12 and len(left) == 6 and len(held) == 6
    assert {describe(left, i)["model"] for i in range(6)}.isdisjoint({describe(everything, i)["model"] for i in (9, 10, 11)})
    keys = [key_of(describe(some, i)) for some in (left, held) for i in range(6)]
    assert sorted(keys) == sorted(key_of(describe(everything, i)) for i in range(12))
    with pytest.raises(ValueError, match="No task would be left"):
        everything.hold_out(models=range(4))


def test_checkpoints_and_factories_load_when_needed(tmp_path: Path) -> None:
    for seed in range(2):
        torch.save(net(seed).state_dict(), tmp_path / f"{seed}.pt")

    def load(path: Path) -> nn.Module:
        model = net(9)
        model.load_state_dict(torch.load(path, weights_only=True))
        return model

    loaded = family(models=[tmp_path / "0.pt", tmp_path / "1.pt"], load=load)
    made = family(models=range(2), load=net)
    for other in (loaded, made):
        assert [key_of(describe(other, i)) for i in (0, 1)] == [key_of(describe(family(), i)) for i in (0, 1)]
        assert torch.equal(other.variants(1)[0].attributions, family().variants(1)[0].attributions)


CHANGES: dict[str, dict[str, Any]] = {
    "weights": {"models": [net(5), net(1)]},
    "code": {"models": [nn.Sequential(*net(0)[:4], nn.ReLU()), net(1)]},
    "data": {"datasets": rows(seed=3)},
    "baseline": {"datasets": ExplainedData(rows(), baselines=1.0)},
    "target": {"datasets": ExplainedData(rows(), target=lambda outputs: outputs.argmin(1))},
    "teacher": {"teacher": KernelShap},
    "rows": {"rows": 6},
    "coalitions": {"coalitions": 8},
    "kind": {"kind": "path"},
    "repeats": {"repeats": 2},
    "seed": {"seed": 1},
}


@pytest.mark.parametrize("change", CHANGES)
def test_labels_are_made_again_when_anything_changes(change: str) -> None:
    assert key_of(describe(family(**CHANGES[change]), 0)) != key_of(describe(family(), 0))


def test_labels_are_kept_when_only_other_models_change() -> None:
    more = family(models=[net(7), net(0), net(1), net(8)])
    assert key_of(describe(more, 1)) == key_of(describe(family(), 0))
    assert torch.equal(more.variants(1)[0].attributions, family().variants(0)[0].attributions)
    assert fingerprint(net().eval()) == fingerprint(net().train())


def test_teachers_arguments_count() -> None:
    keys = {key_of(describe(family(teacher=KernelShap, teacher_arguments={"n_samples": n}), 0)) for n in (20, 30)}
    assert len(keys) == 2


def test_bare_callables_need_a_key_to_be_kept() -> None:
    models = [lambda x: x.sum(1), lambda x: x.prod(1)]
    bare = family(models=models, datasets=ExplainedData(rows(), target=None))
    assert bare.variants(0)[0].attributions.shape == (1, 5, 4)
    with pytest.raises(TypeError, match="pass keys="):
        bare.description(0)
    keyed = family(models=models, datasets=ExplainedData(rows(), target=None), keys=["sum, version 1", "product"])
    again = family(models=models, datasets=ExplainedData(rows(), target=None), keys=["sum, version 2", "product"])
    assert key_of(keyed.description(0)) != key_of(again.description(0))
    assert key_of(keyed.description(1)) == key_of(again.description(1))


class Sometimes:
    """A teacher that fails, or gives nonsense, on the row whose first feature is ``bad``."""

    def __init__(self, model: nn.Module, bad: float, nonsense: bool = False) -> None:
        self.bad, self.nonsense = bad, nonsense

    def attribute(self, inputs: tuple[Tensor, ...], target: Any) -> tuple[Tensor, ...]:
        wrong = inputs[0][:, 0] == self.bad
        if wrong.any() and not self.nonsense:
            raise RuntimeError("the service is down")
        return (torch.where(wrong.unsqueeze(1), torch.nan, inputs[0]),)


@pytest.mark.parametrize("nonsense", [False, True])
def test_a_teacher_that_fails_on_a_row_is_told_and_finished_work_kept(tmp_path: Path, nonsense: bool) -> None:
    good, bad = rows(seed=1), rows(seed=2)
    data = [ExplainedData(good, name="good"), ExplainedData(bad, name="bad")]
    broken = family(models=[net()], datasets=data, teacher=lambda m: Sometimes(m, float(bad[7, 0]), nonsense), rows=12)
    cache = ExplanationCache(tmp_path)
    keys = [key_of(describe(broken, index)) for index in range(2)]
    expected = r"of rows \[7\] of the data are not finite" if nonsense else "RuntimeError on row .*the service is down"
    with pytest.raises(LabelError, match=rf"Model 0 on 'bad' cannot be explained.*{expected}.*are kept"):
        list(make(broken, cache, range(2), keys, workers=0))
    assert cache.intact(keys[0]) and not cache.intact(keys[1])


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="kind is 'paths': pass one of 'shapley', 'path', 'general'"):
        family(kind="paths")
    with pytest.raises(ValueError, match="no models"):
        family(models=[])
    with pytest.raises(ValueError, match="no data"):
        family(datasets=[])
    with pytest.raises(ValueError, match="no data"):
        family(datasets=torch.zeros(0, 4))
    with pytest.raises(ValueError, match="has 12 rows, but each task explains 13"):
        family(rows=13)
    with pytest.raises(ValueError, match="1 keys for 2 models"):
        family(keys=["one"])
    with pytest.raises(LabelError, match=r"outputs of shape \(B, 2\), but model 0 of this family \(B, 3\)"):
        family(models=[net(0), net(1, outputs=2)]).variants(1)
    with pytest.raises(AssertionError, match="forward_func gave a dict"):
        family(models=[lambda x: {"logits": x}]).variants(0)
    with pytest.raises(LabelError, match="3 outputs and none is selected"):
        family(datasets=ExplainedData(rows(), target=None)).variants(0)


def test_a_teacher_of_other_shapes_is_refused() -> None:
    class Short:
        def __init__(self, model: nn.Module) -> None: ...

        def attribute(self, inputs: tuple[Tensor, ...], target: Any) -> Tensor:
            return inputs[0][:, :2]

    with pytest.raises(LabelError, match="attributions of shapes"):
        family(teacher=Short).variants(0)


def trained(seed: int) -> nn.Module:
    """A loader that makes its model, and trains it for a step."""
    model = net(seed).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(rows()).square().mean().backward()
    optimizer.step()
    return model


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_loader_may_train_its_model_wherever_the_task_is_asked_for(context: Callable[[], Any]) -> None:
    expected = family(models=[3], load=trained).variants(0)[0]
    with context():
        found = family(models=[3], load=trained).variants(0)[0]
    assert torch.equal(found.attributions, expected.attributions)


def test_path_labels_are_measured_more_finely_where_f_jumps() -> None:
    """f is a step of slope 300 on the second row's path, which 96 gradients do not see; on the first it hardly moves."""

    def model(x: Tensor) -> Tensor:
        return torch.sigmoid(300 * (x.sum(1) - 0.3))

    x = torch.tensor([[0.02, 0.03], [0.2, 0.8]]).double()
    game = Game(model, x)
    total = model(x) - model(torch.zeros_like(x))
    assert (composite(game, 12).sum(1) - total)[1].abs() > 0.01
    labels = path_reference(game, seed=0)
    assert torch.allclose(labels[1], x[1] * total[1], atol=1e-6)
    assert torch.equal(labels[0], composite(game, 12)[0])
