"""Interactions of pairs, against the definitions of their papers, one set after the other."""

from collections.abc import Callable
from itertools import combinations
from math import comb, factorial

import pytest
import torch
from torch import Tensor

from captum_meta.estimators import (
    INDICES,
    InteractionProcess,
    InteractionRule,
    all_coalitions,
    interactions,
    shapley_values,
)

M = 5
Game = Callable[[frozenset[int]], float]
SETS = [frozenset(some) for size in range(M + 1) for some in combinations(range(M), size)]


@pytest.fixture
def worths() -> Tensor:
    return torch.randn(2**M, dtype=torch.float64)


def as_game(worths: Tensor) -> Game:
    return lambda players: float(worths[sum(2**i for i in players)])


def derivative(game: Game, group: frozenset[int], rest: frozenset[int]) -> float:
    """The discrete derivative of the game for a group, where the others in it are the rest."""
    some = [frozenset(part) for size in range(len(group) + 1) for part in combinations(sorted(group), size)]
    return sum((-1) ** (len(group) - len(part)) * game(rest | part) for part in some)


def mean_derivative(game: Game, group: frozenset[int], weight: Callable[[int], float]) -> float:
    return sum(weight(len(rest)) * derivative(game, group, rest) for rest in SETS if not rest & group)


def sii(game: Game, group: frozenset[int]) -> float:
    """Grabisch and Roubens 1999, definition 1."""
    size = len(group)
    return mean_derivative(game, group, lambda t: factorial(t) * factorial(M - t - size) / factorial(M - size + 1))


def k_sii(game: Game, group: frozenset[int]) -> float:
    """Bordt and von Luxburg 2023, with Bernoulli's number -1/2 for pairs."""
    value = sii(game, group)
    if len(group) == 1:
        value -= sum(sii(game, group | {j}) for j in range(M) if j not in group) / 2
    return value


def stii(game: Game, group: frozenset[int]) -> float:
    """Sundararajan, Dhamdhere and Agarwal 2020, definition 1."""
    if len(group) == 1:
        return derivative(game, group, frozenset())
    return mean_derivative(game, group, lambda t: 2 / M / comb(M - 1, t))


def bii(game: Game, group: frozenset[int]) -> float:
    """Grabisch and Roubens 1999: all other coalitions alike."""
    return mean_derivative(game, group, lambda t: 0.5 ** (M - len(group)))


def fsii(game: Game) -> dict[frozenset[int], float]:
    """Tsai, Yeh and Ravikumar 2023: the pairwise game nearest by Shapley-kernel weights, equal at both ends."""
    groups = [group for group in SETS if 1 <= len(group) <= 2]
    weights, rows, values = [], [], []
    for some in SETS:
        inside = 0 < len(some) < M
        kernel = (M - 1) / (comb(M, len(some)) * len(some) * (M - len(some))) if inside else 1e7
        weights.append(kernel)
        rows.append([float(group <= some) for group in groups])
        values.append(game(some) - game(frozenset()))
    root = torch.tensor(weights, dtype=torch.float64).sqrt()
    design = torch.tensor(rows, dtype=torch.float64) * root.unsqueeze(1)
    found = torch.linalg.lstsq(design, (torch.tensor(values, dtype=torch.float64) * root).unsqueeze(1)).solution
    return dict(zip(groups, found.squeeze(1).tolist(), strict=True))


DEFINITIONS: dict[str, Callable[[Game, frozenset[int]], float]] = {
    "SII": sii,
    "k-SII": k_sii,
    "STII": stii,
    "BII": bii,
    "FSII": lambda game, group: fsii(game)[group],
}


@pytest.mark.parametrize("index", INDICES)
def test_definitions(index: str, worths: Tensor) -> None:
    found, game = interactions(worths, index), as_game(worths)
    for i in range(M):
        for j in range(M):
            assert float(found[i, j]) == pytest.approx(DEFINITIONS[index](game, frozenset({i, j})), abs=1e-5)


@pytest.mark.parametrize("index", ["k-SII", "STII", "FSII"])
@pytest.mark.parametrize("n_players", [1, 2, 3, 12])
def test_sums(index: str, n_players: int) -> None:
    worths = torch.randn(2, 2**n_players, dtype=torch.float64)
    found = interactions(worths, index)
    total = found.diagonal(dim1=1, dim2=2).sum(1) + found.triu(1).sum((1, 2))
    assert torch.allclose(total, worths[:, -1] - worths[:, 0])


def test_diagonal_of_sii_is_shapley_values(worths: Tensor) -> None:
    assert torch.allclose(interactions(worths, "SII").diagonal(), shapley_values(worths))


def test_mistakes_are_named(worths: Tensor) -> None:
    with pytest.raises(ValueError, match="'k-SII', 'SII'"):
        interactions(worths, "k-sii")
    with pytest.raises(ValueError, match=r"all 2\*\*M"):
        interactions(worths[:-1])


class TestProcess:
    def process(self, worths: Tensor, count: int, known: Tensor | None = None) -> tuple[InteractionProcess, Tensor]:
        n_players = worths.shape[1].bit_length() - 1
        chosen = torch.cat([torch.tensor([0, 2**n_players - 1]), 1 + torch.randperm(2**n_players - 2)[: count - 2]])
        members = all_coalitions(n_players)[chosen].expand(len(worths), -1, -1)
        known = torch.ones(len(worths), count, dtype=torch.bool) if known is None else known
        acting = torch.ones(len(worths), n_players, dtype=torch.bool)
        directions = torch.randn(len(worths), 2, n_players, dtype=torch.float64)
        return InteractionProcess(members, worths[:, chosen], known, acting, directions), chosen

    @pytest.mark.parametrize("index", INDICES)
    def test_closed_form_is_that_of_all_expected_worths(self, index: str) -> None:
        process, _ = self.process(torch.randn(2, 2**6, dtype=torch.float64), 40)
        expected = process.all_worths()
        assert torch.allclose(process.interactions(InteractionRule.of(index, 6)), interactions(expected, index), atol=1e-9)

    def test_passes_through_what_was_seen(self) -> None:
        worths = torch.randn(2, 2**6, dtype=torch.float64)
        process, chosen = self.process(worths, 30)
        assert torch.allclose(process.all_worths()[:, chosen], worths[:, chosen], atol=1e-5)

    def test_pairwise_games_are_told_from_pairs_alone(self) -> None:
        """Of a game of pairs, everyone, no one, the border and one coalition for each pair tell all."""
        members = all_coalitions(7).double()
        pairs, main = torch.randn(7, 7, dtype=torch.float64).triu(1), torch.randn(7, dtype=torch.float64)
        worths = (members @ main + torch.einsum("si,ij,sj->s", members, pairs, members)).unsqueeze(0)
        process, _ = self.process(worths, 60)
        found = process.interactions(InteractionRule.of("SII", 7))[0]
        truth = interactions(worths[0], "SII")
        assert float((found - truth).square().sum() / truth.square().sum()) < 1e-3

    def test_what_is_not_known_does_not_matter(self) -> None:
        worths = torch.randn(1, 2**5, dtype=torch.float64)
        members = all_coalitions(5)[None, :20]
        known = torch.arange(20).unsqueeze(0) < 16
        acting, directions = torch.ones(1, 5, dtype=torch.bool), torch.zeros(1, 1, 5, dtype=torch.float64)
        rule = InteractionRule.of("FSII", 5)
        padded = InteractionProcess(members, worths[:, :20].masked_fill(~known, 1e3), known, acting, directions)
        plain = InteractionProcess(members[:, :16], worths[:, :16], known[:, :16], acting, directions)
        assert torch.allclose(padded.interactions(rule), plain.interactions(rule), atol=1e-8)
