"""Elements and gradients are scaled, cut, padded and turned round with the rest, as measuring the other game would say."""

import torch
from torch import Tensor

from captum_meta.evidence import Game, joined, measure_shapley, measure_support, with_elements
from captum_meta.types import Evidence, Explanations


def _curved(x: Tensor) -> Tensor:
    return (x.sin().cumsum(1) * x).sum(1)


def measured(n_players: int = 4, inside: bool = True) -> tuple[Game, Evidence]:
    generator = torch.Generator().manual_seed(n_players)
    x, b = torch.randn(2, 3, n_players, generator=generator)
    game = Game(_curved, x, b)
    return game, measure_support(game, 0, 30) if inside else with_elements(measure_shapley(game, 0), game)


def test_turned_round() -> None:
    game, evidence = measured()
    other = Game(lambda x: -_curved(x), game.baselines[0], game.inputs[0])
    found, expected = evidence.reversed(), with_elements(measure_shapley(other, 0), other)
    for name in ("effects", "measured", "total", "curve", "points", "inputs", "elements"):
        assert torch.allclose(getattr(found, name).float(), getattr(expected, name).float(), atol=1e-5), name
    coalitions = found.coalitions
    assert coalitions is not None and coalitions.gradients is not None
    values = other.values(coalitions.members) - other.at(torch.zeros(1))
    gradients, _ = other.coalition_gradients(coalitions.members) or (torch.zeros(()), None)
    assert torch.allclose(coalitions.worths, values.squeeze(-1), atol=1e-5)
    assert torch.allclose(coalitions.gradients, gradients.squeeze(-1), atol=1e-5)


def test_scaled() -> None:
    game, evidence = measured()
    three = Game(lambda x: 3 * _curved(x), game.inputs[0], game.baselines[0])
    found, expected = evidence.times(torch.full((3,), 3.0)), measure_support(three, 0, 30)
    assert torch.allclose(found.effects, expected.effects, atol=1e-5)
    assert found.coalitions is not None and expected.coalitions is not None
    assert torch.allclose(found.coalitions.gradients, expected.coalitions.gradients, atol=1e-5)  # type: ignore[arg-type]
    assert found.elements is not None and torch.equal(found.elements, evidence.elements)  # type: ignore[arg-type]


def test_cut() -> None:
    coalitions = measured()[1].coalitions
    assert coalitions is not None and coalitions.gradients is not None
    first = coalitions.first(4)
    assert torch.equal(first.members, coalitions.members[:, :4])
    assert first.gradients is not None and torch.equal(first.gradients, coalitions.gradients[:, :4])


def test_joined_with_rows_without_coalitions() -> None:
    _, one = measured()
    _, other = measured(5, inside=False)
    together = joined([Explanations(part, torch.zeros(part.players.shape)) for part in (one, other)]).evidence
    coalitions = together.coalitions
    assert coalitions is not None and coalitions.gradients is not None and together.elements is not None
    assert torch.equal(coalitions.gradients[:3, :, :4], one.coalitions.gradients)  # type: ignore[union-attr,arg-type]
    assert not coalitions.measured[3:].any() and torch.equal(together.elements[3:], other.elements)  # type: ignore[arg-type]
