"""Networks that learn the explained model from other rows than those they explain."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_meta.estimators import all_coalitions
from captum_meta.nn import cross_fitted
from captum_meta.nn.cross_fitted import FOLDS, CrossFitted, KnownRows


def known_rows(n_rows: int = 40, n_players: int = 4, values: Tensor | None = None) -> KnownRows:
    """All coalitions of rows of f(x) = sum of x^2 and the first two's product, with baselines 0."""
    generator = torch.Generator().manual_seed(0)
    x = (8 * torch.randn(n_rows, n_players, generator=generator)).round() / 8
    members = all_coalitions(n_players).expand(n_rows, -1, -1)
    mixed = torch.where(members, x.unsqueeze(1), 0.0)
    along = torch.tensor([1.0, 0.5, 0.0])
    gradients = 2 * x.unsqueeze(-1) * along
    gradients[:, :2] += x[:, [1, 0]].unsqueeze(-1) * along
    return KnownRows(
        inputs=x.unsqueeze(-1),
        baselines=torch.zeros(n_rows, n_players, 1),
        members=members,
        values=mixed.square().sum(-1) + mixed[..., 0] * mixed[..., 1] if values is None else values,
        measured=torch.ones(n_rows, 2**n_players, dtype=torch.bool),
        effects=gradients * x.unsqueeze(-1),
        differentiable=torch.ones(n_rows, n_players, 3, dtype=torch.bool),
        outputs=torch.zeros(n_rows, dtype=torch.long),
        folds=torch.arange(n_rows) % FOLDS,
    )


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_fitted, "_MOST", 20)


@pytest.mark.usefixtures("briefly")
def test_a_network_does_not_see_its_rows() -> None:
    known = known_rows()
    pair = (known.folds == 2).nonzero().flatten()[:2]
    values = known.values.clone()
    values[pair] = values[pair.flip(0)]  # mean and spread of all values stay
    one, other = CrossFitted(), CrossFitted()
    one.fit(known)
    other.fit(replace(known, values=values))
    changed = [
        any(not torch.equal(a[f], b[f]) for a, b in zip(one.weights, other.weights, strict=True)) for f in range(FOLDS)
    ]
    assert changed == [fold != 2 for fold in range(FOLDS)]


def test_rows_it_has_not_seen_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_fitted, "_MOST", 150)
    known = known_rows(80)
    networks = CrossFitted()
    networks.fit(known)
    game = networks.game(known.inputs, known.baselines, known.outputs, known.folds)
    missed = game.worths(known.members) - (known.values - known.values[:, :1])
    assert missed.square().sum() < 0.1 * known.values.square().sum()


@pytest.mark.usefixtures("briefly")
def test_outputs_between_0_and_1_pass_through_the_logistic_function() -> None:
    known = known_rows()
    networks = CrossFitted()
    networks.fit(replace(known, values=known.values.sigmoid()))
    values = networks.game(known.inputs, known.baselines, known.outputs, known.folds).function(known.members.float())
    assert networks.logistic and bool(((values >= 0) & (values <= 1)).all())
    networks.fit(known)  # values beyond 1: networks begin anew
    assert not networks.logistic


@pytest.mark.usefixtures("briefly")
def test_a_further_output_has_a_head_of_its_own() -> None:
    known = known_rows()
    networks = CrossFitted()
    networks.fit(known)
    before = [weight.clone() for weight in networks.weights]
    networks.fit(replace(known, outputs=known.outputs + (torch.arange(len(known)) % 2)))
    assert networks.outputs.tolist() == [0, 1] and networks.weights[-1].shape[-1] == 2
    assert networks.knows(torch.tensor([1, 5])).tolist() == [True, False]
    assert before[0].shape == networks.weights[0].shape and not torch.equal(before[0], networks.weights[0])


def test_the_loss_is_that_of_the_formula() -> None:
    """With all points and gradients drawn once, against loops over rows and networks, of values whose spread is 1."""
    known = known_rows(6, 3)
    known = known.times(1 / known.values.std(unbiased=False).expand(6))
    networks = CrossFitted()
    networks.prepare(known)
    loss = cross_fitted.Loss(networks, known, torch.Generator())
    every = torch.arange(len(loss.rows))
    spread = (known.values - known.values.mean()).square().mean()
    total = torch.zeros(())
    for row in range(6):
        for fold in range(FOLDS):
            if known.folds[row] != fold:
                one = known[row : row + 1]
                played = networks.game(one.inputs, one.baselines, one.outputs, torch.tensor([fold])).function(
                    one.members.float()
                )
                total += (played - one.values).square().sum() / spread
    torch.testing.assert_close(loss.of_values(networks.weights, every), total / len(every))

    total, size = torch.zeros(()), known.effects.square().sum() / 18
    for row in range(6):
        for fold in range(FOLDS):
            if known.folds[row] != fold:
                one = known[row : row + 1]
                for place, along in enumerate((1.0, 0.5, 0.0)):
                    at = torch.full((1, 1, 3), along, requires_grad=True)
                    value = networks.game(one.inputs, one.baselines, one.outputs, torch.tensor([fold])).function(at)
                    effects = torch.autograd.grad(value.sum(), at)[0][0, 0]
                    total += (effects - one.effects[0, :, place]).square().sum() / size
    torch.testing.assert_close(loss.of_gradients(networks.weights, torch.arange(18)).detach(), total / 18)


def test_what_is_understood_is_that_of_the_formula() -> None:
    """In loops over rows and pairs; the explanation that suits all rows best by least squares."""
    known, complements = known_rows(20, 3), [0, 7, 1, 6, 2, 5, 3, 4]
    known = replace(known, members=known.members[:, complements], values=known.values[:, complements])
    networks = CrossFitted()
    networks.prepare(known)
    game = networks.game(known.inputs, known.baselines, known.outputs, known.folds)
    worths = game.worths(known.members)
    signs, right, found = [], [], []
    for row in range(20):
        for place in range(0, 8, 2):
            signs.append([1.0 if inside else -1.0 for inside in known.members[row, place].tolist()])
            right.append(float(known.values[row, place] - known.values[row, place + 1]))
            found.append(float(worths[row, place] - worths[row, place + 1]))
    shared = np.linalg.lstsq(np.array(signs), np.array(right), rcond=None)[0]
    missed = sum((d - h) ** 2 for d, h in zip(right, found, strict=True))
    spread = sum((d - s @ shared) ** 2 for d, s in zip(right, np.array(signs), strict=True))
    assert networks.understood(known) == pytest.approx(1 - missed / spread, rel=1e-4)
