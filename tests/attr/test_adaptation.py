"""What adapting costs, labels of a budget, and when it pays."""

from typing import Any

import pytest
import torch
from torch import Tensor

from captum_meta.attr import MetaIntegratedGradients, MetaKernelShap
from captum_meta.attr._adaptation import pays_after
from captum_meta.learners import Ridge, load_learner
from tests.attr.conftest import CountingModel

PLAYERS = 6


def rows(count: int = 8) -> Tensor:
    return (8 * torch.randn(count, PLAYERS, generator=torch.Generator().manual_seed(0))).round() / 8


def ridge() -> Ridge:
    return Ridge(load_learner("zero-shot").explainer)


class Counted(torch.nn.Module):
    """Rows evaluated, a gradient counted as three."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluations = 0

    def forward(self, x: Tensor) -> Tensor:
        self.evaluations += len(x) * (3 if x.requires_grad else 1)
        return torch.stack([torch.tanh(x[:, 0] * x[:, 1] * x[:, 2]) + x[:, 3], x[:, 4]], dim=1)


@pytest.mark.parametrize("n_samples", [None, 16])
def test_evaluations_are_counted(n_samples: int | None) -> None:
    model = Counted()
    attr = MetaKernelShap(model, learner=ridge()).adapt(rows(), target=0, n_samples=n_samples)
    told = attr.adaptation
    assert told.rows == 8 and told.evaluations == model.evaluations
    attr.adapt(rows() / 2, target=0, n_samples=n_samples)
    assert attr.adaptation.rows == 16 and attr.adaptation.evaluations == model.evaluations


def test_cheap_labels_share_their_coalitions_with_the_evidence() -> None:
    model = CountingModel()
    MetaKernelShap(model, learner=ridge()).adapt(torch.randn(5, 6), target=1, n_samples=20)
    assert model.rows <= 5 * (3 + 20) + 20  # and not 12 of the border again


@pytest.mark.parametrize("count", [5, 8, 19])
def test_exact_labels_share_their_coalitions_with_the_evidence(count: int) -> None:
    """All 64 coalitions, one output and three gradients of each row, and at most nine for the probe."""
    model = Counted()
    MetaKernelShap(model, learner=ridge()).adapt(rows(count), target=0)
    assert model.evaluations <= count * (64 + 1 + 9) + 9


def test_sampled_labels_share_their_coalitions_with_the_evidence() -> None:
    """32 coalitions for each of 13 players, gradients of labels and of evidence, an output, and nine for the probe."""
    model = Counted()
    x = (8 * torch.randn(9, 13, generator=torch.Generator().manual_seed(0))).round() / 8
    MetaKernelShap(model, learner=ridge()).adapt(x, target=0)
    assert model.evaluations <= 9 * (32 * 13 + 2 * 9 + 1) + 9


def test_noise_is_told_to_the_learner(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    learner = ridge()
    monkeypatch.setattr(Ridge, "adapt", lambda self, support: found.append(support) or self.initial_state())
    attr = MetaKernelShap(Counted(), learner=learner).adapt(rows(), target=0, n_samples=16)
    attr.adapt(rows(3), target=0)
    first, both = found
    assert first.variance.shape == (8, PLAYERS) and bool((first.variance[:, :3] > 0).any())
    torch.testing.assert_close(both.variance, torch.cat([first.variance, torch.zeros(3, PLAYERS)]), check_dtype=False)


def test_labels_of_all_coalitions_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(Ridge, "adapt", lambda self, support: found.append(support) or self.initial_state())
    for n_samples in (None, 2**PLAYERS):
        MetaKernelShap(Counted(), learner=ridge()).adapt(rows(), target=0, n_samples=n_samples)
    torch.testing.assert_close(found[1].attributions, found[0].attributions, atol=1e-5, rtol=1e-4)
    assert not found[1].variance.any()


def test_left_out_errors_are_those_of_adapting_to_the_others() -> None:
    x = rows()
    told = MetaKernelShap(Counted(), learner=ridge()).adapt(x, target=0).adaptation
    truth = MetaKernelShap(Counted()).attribute(x, target=0, n_samples=2**PLAYERS)
    zero_shot = MetaKernelShap(Counted(), learner="zero-shot").attribute(x, target=0)
    missed = torch.zeros(())
    for fold in range(4):
        these = torch.arange(8) % 4 == fold
        attr = MetaKernelShap(Counted(), learner=ridge()).adapt(x[~these], target=0)
        missed += (attr.attribute(x[these], target=0) - truth[these]).square().sum()
    size = truth.square().sum()
    assert told.zero_shot_error == pytest.approx(float((zero_shot - truth).square().sum() / size), rel=1e-3)
    assert told.error == pytest.approx(float(missed / size), rel=1e-2)


def test_it_tells_what_came_of_it() -> None:
    attr = MetaKernelShap(Counted(), learner=ridge()).adapt(rows(), target=0)
    assert "8 support rows" in repr(attr.adaptation) and "pay" in repr(attr.adaptation)
    few = MetaKernelShap(Counted(), learner=ridge()).adapt(rows(2), target=0).adaptation
    assert few.error != few.error and "nan after>" in repr(few)


def test_where_nothing_is_saved_it_never_pays() -> None:
    assert pays_after(100, 12, before=0.1, after=0.2) == float("inf")
    assert pays_after(100, 12, before=0.1, after=0.01) < pays_after(200, 12, before=0.1, after=0.01)


def test_mistakes() -> None:
    with pytest.raises(RuntimeError, match="call adapt"):
        _ = MetaKernelShap(Counted(), learner=ridge()).adaptation
    with pytest.raises(ValueError, match="attributions="):
        MetaKernelShap(Counted(), learner=ridge()).adapt(rows(), target=0, attributions=rows(), n_samples=10)
    with pytest.raises(ValueError, match="n_samples"):
        MetaIntegratedGradients(Counted()).adapt(rows(), target=0, n_samples=10)


def test_paths_do_not_know_when_they_pay() -> None:
    told = MetaIntegratedGradients(Counted()).adapt(rows(), target=0).adaptation
    assert told.evaluations > 0 and told.pays_after != told.pays_after
