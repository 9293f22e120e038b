"""The explainer whose cost does not grow with the players: its weights, and what holds of them for any parameters."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from captum_meta.attr import MetaIntegratedGradients
from captum_meta.estimators import interval_weights
from captum_meta.evidence import Game, measure_bent_path
from captum_meta.learners import Ridge, ZeroShot
from captum_meta.nn import PathExplainer
from captum_meta.nn.path_rows import RowPathExplainer
from captum_meta.types import Evidence


def measured(n_players: int = 5, n: int = 6) -> Evidence:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(n_players, 8), nn.ReLU(), nn.Linear(8, 1), nn.Tanh()).double()
    return measure_bent_path(Game(model, 2 * torch.randn(3, n_players).double()), n)[0]


def drawn(width: int = 16) -> RowPathExplainer:
    """With parameters that are drawn."""
    torch.manual_seed(1)
    explainer = RowPathExplainer(width, 1).double()
    for parameter in explainer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return explainer.requires_grad_(False)


def test_it_begins_as_the_regression_of_the_gap_on_the_jumps() -> None:
    evidence, explainer = measured(), RowPathExplainer(16, 1).double()
    explainer.whole.bias.data[0] = -10.0  # nothing is shared out interval by interval
    found = explainer(evidence).attributions
    for row in range(3):
        g, t = evidence.effects[row].T, evidence.points[row]
        answer = interval_weights(t).sum(0) @ g
        gap = evidence.total[row] - answer.sum()
        jumps, widths = g[1:] - g[:-1], t[1:] - t[:-1]
        own = sum(h**2 * (j.sum() ** 2 + 0.01 * (j**2).sum()) for h, j in zip(widths, jumps, strict=True))
        share = sum(h**2 * j.sum() * j / own for h, j in zip(widths, jumps, strict=True))
        answer = answer + gap * share
        # half of the rest by the sizes of the jumps, and what is then left by the size of the answer
        sizes = jumps.abs().sum(0) / jumps.abs().sum()
        answer = answer + gap * (1 - share.sum()) * sizes / 2
        answer = answer + (evidence.total[row] - answer.sum()) * answer.abs() / answer.abs().sum()
        assert torch.allclose(found[row], answer, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 6])
class TestAnyParameters:
    def test_attributions_sum_to_the_change(self, n: int) -> None:
        evidence = measured(n=n)
        assert torch.allclose(drawn()(evidence).attributions.sum(-1), evidence.total)

    def test_outputs_in_other_units_are_explained_in_these(self, n: int) -> None:
        evidence, explainer = measured(n=n), drawn()
        factor = torch.tensor([8.0, -0.5, 3.0]).double()
        expected = explainer(evidence).attributions.abs() * factor.abs().unsqueeze(-1)
        assert torch.allclose(explainer(evidence.times(factor.abs())).attributions.abs(), expected, rtol=1e-6)

    def test_players_in_another_order_get_the_same(self, n: int) -> None:
        evidence, explainer, order = measured(n=n), drawn(), torch.tensor([3, 0, 4, 1, 2])
        moved = replace(evidence, effects=evidence.effects[:, order], measured=evidence.measured[:, order])
        assert torch.allclose(explainer(moved).attributions, explainer(evidence).attributions[:, order])

    def test_a_player_without_effects_gets_nothing(self, n: int) -> None:
        evidence = measured(n=n)
        evidence.effects[:, 2] = 0.0
        prior = drawn().prior(evidence)
        assert (prior.attributions[:, 2] == 0).all() and (prior.features[:, 2] == 0).all()


def test_it_answers_in_place_of_the_other_once_it_is_trained_and_gradients_or_players_are_many() -> None:
    many, few = (measured(n=n).to(dtype=torch.float32) for n in (5, 4))
    wide = measured(1024, 4).to(dtype=torch.float32)
    explainer = PathExplainer(16, 1, rows=True)
    assert explainer.rows is not None
    nn.init.normal_(explainer.head.weight)
    learner = ZeroShot(explainer).eval()
    assert torch.equal(learner.propose(None, many).attributions, explainer.rows.prior(many).attributions)
    assert explainer.trained_prior(many).features.shape == (3, 5, 16)
    assert explainer.trained_prior(many, features=False).features.shape == (3, 5, 0)
    assert torch.equal(learner.propose(None, few).attributions, explainer.prior(few).attributions)
    assert torch.equal(learner.propose(None, wide).attributions, explainer.rows.prior(wide).attributions)
    assert torch.equal(learner.train().propose(None, many).attributions, explainer.prior(many).attributions)
    assert not torch.allclose(explainer.rows.prior(many).attributions, explainer.prior(many).attributions)


def test_support_rows_teach_it() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 2), nn.Softmax(1))
    x = 2 * torch.randn(40, 12)
    attr = MetaIntegratedGradients(net, learner=Ridge(PathExplainer(8, 1, rows=True)).eval())
    right = MetaIntegratedGradients(net).attribute(x, target=0, n_steps=32)

    def error() -> Tensor:
        return (attr.attribute(x[30:], target=0, n_steps=8) - right[30:]).square().sum()

    before = error()
    assert attr.adapt(x[:30], target=0, attributions=right[:30]) is attr
    assert error() < 1.1 * before
