"""Conformal arithmetic against enumeration, brute force and simulation."""

from itertools import combinations
from math import comb

import pytest
import torch
from torch import Generator, Tensor

from captum_meta.estimators.conformal import (
    accepted_rows_needed,
    accepted_scale,
    binomial_tail,
    conformal_quantile,
    exceedance_tail,
    ordered_scales,
    rows_needed,
    stopping_levels,
)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9])
def test_rows_needed_is_the_least_number_with_a_finite_bound(alpha: float) -> None:
    finite = [n for n in range(1, 200) if bool(conformal_quantile(torch.arange(float(n)), alpha).isfinite())]
    assert rows_needed(alpha) == finite[0]
    assert finite == list(range(finite[0], 200))


@pytest.mark.parametrize("count", [1, 2, 9, 10, 19, 20, 37])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.25, 0.5])
def test_the_quantile_is_the_smallest_score_that_enough_ranks_stay_below(count: int, alpha: float) -> None:
    scores = torch.rand(count, generator=Generator().manual_seed(count))
    # Of n + 1 exchangeable scores each rank of the new one has probability 1 / (n + 1): count ranks, scores in order.
    enough = [q for place, q in enumerate(sorted(scores.tolist()), 1) if place / (count + 1) >= 1 - alpha - 1e-12]
    assert float(conformal_quantile(scores, alpha)) == (min(enough) if enough else float("inf"))


def test_the_coverage_of_exchangeable_scores_is_exact() -> None:
    """Without ties it is ceil((n + 1)(1 - alpha)) / (n + 1), whatever the distribution; rows of a trial share a level."""
    generator, trials, count, alpha = Generator().manual_seed(0), 20_000, 24, 0.1
    shared = torch.randn(trials, 1, generator=generator).exp()  # exchangeable, and far from independent
    scores = shared * torch.randn(trials, count + 1, generator=generator).abs().pow(3)
    covered = scores[:, -1] <= conformal_quantile(scores[:, :-1], alpha)
    wanted = 23 / 25
    assert abs(float(covered.double().mean()) - wanted) < 4 * (wanted * (1 - wanted) / trials) ** 0.5


def test_scores_that_are_no_numbers_count_as_infinite() -> None:
    scores = torch.tensor([[1.0, torch.nan, 2.0], [1.0, 3.0, 2.0]])
    assert conformal_quantile(scores, 0.25).tolist() == [float("inf"), 3.0]


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_levels_are_between_0_and_1(alpha: float) -> None:
    for call in (lambda: rows_needed(alpha), lambda: conformal_quantile(torch.ones(3), alpha)):
        with pytest.raises(ValueError, match="alpha must be between 0 and 1"):
            call()


def test_binomial_tails_are_sums_of_terms() -> None:
    pairs = [(k, n) for n in range(0, 31) for k in range(n + 1)]
    found = binomial_tail(torch.tensor([k for k, _ in pairs]), torch.tensor([n for _, n in pairs]), 0.15)
    wanted = [sum(comb(n, i) * 0.15**i * 0.85 ** (n - i) for i in range(k + 1)) for k, n in pairs]
    assert torch.allclose(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-12)


def test_accepted_rows_needed_is_the_least_number_that_convinces() -> None:
    for alpha, delta in ((0.05, 0.1), (0.1, 0.1), (0.2, 0.05)):
        needed = accepted_rows_needed(alpha, delta)
        tails = binomial_tail(torch.tensor([0, 0]), torch.tensor([needed, needed - 1]), alpha)
        assert tails[0] <= delta < tails[1]


def test_exceedances_are_counted_over_all_orders() -> None:
    """All ways of placing 3 new rows among 5 calibration rows are equally likely."""
    rows, new = 5, 3
    for place in range(1, rows + 1):
        counts = []
        for seats in combinations(range(rows + new), new):
            own = [seat for seat in range(rows + new) if seat not in seats]
            counts.append(sum(seat > own[place - 1] for seat in seats))
        for exceeding in range(new + 1):
            wanted = sum(count >= exceeding for count in counts) / len(counts)
            assert abs(exceedance_tail(exceeding, new, rows, place) - wanted) < 1e-12


def _stop(sizes: Tensor, scale: float, tolerance: float) -> list[int]:
    """By hand."""
    levels = []
    for row in sizes.tolist():
        within = [level for level, size in enumerate(row) if scale * size <= tolerance]
        levels.append(within[0] if within else len(row))
    return levels


def test_rows_stop_at_their_first_level_within_the_tolerance() -> None:
    sizes = torch.rand(50, 4, generator=Generator().manual_seed(1))
    sizes[0, 0], sizes[1] = torch.nan, torch.inf
    for scale in (0.3, 1.0, 4.0):
        assert stopping_levels(sizes, scale, 0.2).tolist() == _stop(sizes, scale, 0.2)
    together = stopping_levels(sizes, torch.tensor([0.3, 4.0])[:, None, None], 0.2)
    assert together.tolist() == [_stop(sizes, 0.3, 0.2), _stop(sizes, 4.0, 0.2)]


def _rows(count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Ratios and sizes of rows whose difficulty is told badly, falling over three levels."""
    sizes = torch.randn(count, 3, generator=generator).exp() * torch.tensor([1.0, 0.5, 0.25])
    return torch.randn(count, 3, generator=generator).exp() * (1 + sizes), sizes


def test_accepted_rows_miss_too_often_in_at_most_delta_of_all_calibrations() -> None:
    alpha, delta, tolerance, generator = 0.2, 0.1, 1.5, Generator().manual_seed(2)
    ratios, sizes = _rows(100_000, generator)
    scales = 2.0 ** (torch.arange(-4, 13) / 2)
    levels = stopping_levels(sizes, scales[:, None, None], tolerance)
    accepted = levels < 3
    met = ratios.expand(len(scales), -1, -1).gather(2, levels.clamp(max=2).unsqueeze(-1)).squeeze(-1)
    risk = (accepted & (met > scales.unsqueeze(1))).sum(1) / accepted.sum(1)
    chosen = []
    for _ in range(400):
        order = ordered_scales(*_rows(40, generator), scales, tolerance, alpha, rows=120)
        chosen.append(float(accepted_scale(*_rows(120, generator), order, tolerance, alpha, delta)))
    finite = [scale for scale in chosen if scale < float("inf")]
    assert len(finite) > 300  # the test has power
    too_often = sum(float(risk[scales.tolist().index(scale)]) > alpha for scale in finite)
    assert too_often <= (delta + 3 * (delta * (1 - delta) / len(chosen)) ** 0.5) * len(chosen)
    assert 0.5 * alpha < sum(float(risk[scales.tolist().index(scale)]) for scale in finite) / len(finite) < alpha


def test_no_row_is_accepted_where_nothing_convinces() -> None:
    ratios, sizes = torch.full((30, 2), torch.inf), torch.ones(30, 2)
    assert float(accepted_scale(ratios, sizes, torch.tensor([1.0, 2.0]), 5.0, 0.1, 0.1)) == float("inf")
