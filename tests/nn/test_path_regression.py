"""The path integral of many players without a network, against the formula in loops."""

import pytest
import torch
from torch import nn

from captum_meta.attr import MetaIntegratedGradients
from captum_meta.estimators import interval_weights
from captum_meta.evidence import Game, measure_bent_path
from captum_meta.learners import Ridge, ZeroShot
from captum_meta.nn import PathExplainer
from captum_meta.nn.path_regression import FEWEST_GRADIENTS, FEWEST_PLAYERS, regressed, suffices
from captum_meta.types import Evidence


def measured(n_players: int, n: int) -> Evidence:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(n_players, 8), nn.ReLU(), nn.Linear(8, 1), nn.Tanh()).double()
    return measure_bent_path(Game(model, 2 * torch.randn(3, n_players).double()), n)[0]


def test_the_gap_goes_where_the_jumps_are() -> None:
    evidence = measured(5, 6)
    found = regressed(evidence, 4).attributions
    for row in range(3):
        g, t = evidence.effects[row].T, evidence.points[row]
        answer = interval_weights(t).sum(0) @ g
        gap = evidence.total[row] - answer.sum()
        jumps, widths = g[1:] - g[:-1], t[1:] - t[:-1]
        own = sum(h**2 * (j.sum() ** 2 + 0.01 * (j**2).sum()) for h, j in zip(widths, jumps, strict=True))
        for h, j in zip(widths, jumps, strict=True):
            answer = answer + gap * h**2 * j.sum() * j / own
        assert torch.allclose(found[row], answer, rtol=1e-9)


@pytest.mark.parametrize(
    ("n_players", "n"), [(FEWEST_PLAYERS, FEWEST_GRADIENTS - 1), (FEWEST_PLAYERS - 1, FEWEST_GRADIENTS)]
)
def test_few_players_or_gradients_are_left_to_the_network(n_players: int, n: int) -> None:
    assert not suffices(measured(n_players, n))


def test_trained_weights_are_not_asked_where_they_add_little() -> None:
    evidence = measured(FEWEST_PLAYERS, FEWEST_GRADIENTS).to(dtype=torch.float32)
    explainer = PathExplainer(8, 1)
    nn.init.normal_(explainer.head.weight)
    learner = ZeroShot(explainer).eval()
    prior = learner.propose(None, evidence)
    assert torch.equal(prior.attributions, regressed(evidence, 8).attributions) and prior.features.shape[-1] == 8
    assert not torch.allclose(explainer.prior(evidence).attributions, prior.attributions)
    assert torch.allclose(learner.train().propose(None, evidence).attributions, explainer.prior(evidence).attributions)
    values = learner.eval().predict(None, evidence)
    assert torch.allclose(values.sum(-1), evidence.total, rtol=1e-4)


def test_a_player_without_effect_gets_nothing_and_support_rows_teach_on() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(FEWEST_PLAYERS, 16), nn.ReLU(), nn.Linear(16, 2), nn.Softmax(1))
    x = torch.randn(6, FEWEST_PLAYERS)
    attr = MetaIntegratedGradients(lambda rows: net(torch.cat([torch.zeros_like(rows[:, :1]), rows[:, 1:]], 1)))
    values = attr.attribute(x, target=0, n_steps=10)
    assert (values[:, 0] == 0).all()
    adapted = MetaIntegratedGradients(net, learner=Ridge(PathExplainer(8, 1)).eval()).adapt(x[:4], target=0)
    assert adapted.attribute(x[4:], target=0, n_steps=10).isfinite().all()
