"""Conformal arithmetic against enumeration, brute force and simulation."""

from itertools import combinations
from math import comb

import pytest
import torch
from torch import Generator, Tensor

from captum_meta.estimators.conformal import (
    binomial_tail,
    conformal_quantile,
    exceedance_tail,
    likely_limit,
    passing_ratios,
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


def _stop(sizes: Tensor, limit: float) -> list[int]:
    """By hand."""
    levels = []
    for row in sizes.tolist():
        within = [level for level, size in enumerate(row) if size <= limit]
        levels.append(within[0] if within else len(row))
    return levels


def test_rows_stop_at_their_first_level_within_the_limit() -> None:
    sizes = torch.rand(50, 4, generator=Generator().manual_seed(1))
    sizes[0, 0], sizes[1] = torch.nan, torch.inf
    for limit in (0.05, 0.2, 0.8):
        assert stopping_levels(sizes, limit).tolist() == _stop(sizes, limit)
    assert stopping_levels(sizes, -torch.inf).eq(4).all()


def _rows(count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Ratios and sizes of rows whose difficulty is told badly, falling over three levels."""
    sizes = torch.randn(count, 3, generator=generator).exp() * torch.tensor([1.0, 0.5, 0.25])
    return torch.randn(count, 3, generator=generator).exp() * (1 + sizes), sizes


@pytest.mark.parametrize("limit", [0.1, 0.5, 2.0])
def test_a_passing_row_needs_its_ratio_or_more_than_any_scale(limit: float) -> None:
    """Bounds of a fine grid of scales, row by row."""
    ratios, sizes = _rows(40, Generator().manual_seed(3))
    ratios[3], tolerance, wanted = torch.inf, 1.5, []
    scales = torch.logspace(-4, 6, 4001)
    for row, level in enumerate(_stop(sizes, limit)):
        if level < 3:
            error = float(ratios[row, level] * sizes[row, level])
            holds = (torch.minimum(scales * sizes[row, level], torch.tensor(tolerance)) >= error).tolist()
            wanted.append(float(scales[holds.index(True)]) if True in holds else float("inf"))
    found = passing_ratios(ratios, sizes, limit, tolerance)
    assert len(wanted) > 1 and torch.allclose(found, torch.tensor(wanted), rtol=0.01)


def test_rows_without_error_hold_with_any_scale() -> None:
    assert passing_ratios(torch.zeros(1, 1), torch.full((1, 1), 3.0), 5.0, 1.0).tolist() == [0.0]
    assert passing_ratios(torch.full((1, 1), torch.inf), torch.zeros(1, 1), 5.0, 1.0).tolist() == [float("inf")]


def _promised(misses: int, known: int, rows: int, alpha: float) -> float:
    """How likely the quantile of ``rows`` numbers is finite, over all orders in which they stand among the known ones.

    Infinite are, as the known ones that miss, those above the largest known one that does not.
    """
    finite = {}
    for above in range(rows + 1):
        numbers = torch.tensor([1.0] * (rows - above) + [torch.inf] * above)
        finite[above] = bool(conformal_quantile(numbers, alpha).isfinite())
    largest = known - misses
    orders = [finite[rows - (seats[largest - 1] - (largest - 1))] for seats in combinations(range(known + rows), known)]
    return sum(orders) / len(orders)


def test_the_limit_is_the_largest_that_other_rows_can_likely_keep() -> None:
    ratios, sizes = _rows(6, Generator().manual_seed(5))
    tolerance, alpha, rows = 0.8, 0.4, 8
    chances = {}
    for limit in sizes.flatten().tolist():
        needed = passing_ratios(ratios, sizes, limit, tolerance)
        missed, passed = int(needed.isinf().sum()), len(needed)
        chances[limit] = 1 - _promised(missed, passed, round(passed * rows / 6), alpha) if missed < passed else 1.0
    assert len(set(chances.values())) > 4
    for risk in (0.01, 0.05, 0.2, 0.4):
        kept = [limit for limit, chance in chances.items() if chance <= risk]
        wanted = max(kept) if kept else min(chances, key=lambda limit: (chances[limit], -limit))
        assert float(likely_limit(ratios, sizes, tolerance, alpha, rows, risk, most=1.0)) == wanted
        found = float(likely_limit(ratios, sizes, tolerance, alpha, rows, risk, most=0.3))
        assert found == (wanted if chances[wanted] <= 0.3 else -float("inf"))


def test_no_row_passes_where_no_bound_can_be_promised() -> None:
    assert float(likely_limit(torch.full((30, 2), torch.inf), torch.ones(30, 2), 5.0, 0.1, 60, 0.05, 0.2)) == -float("inf")


@pytest.mark.parametrize("tolerance", [0.3, 1.5, 6.0])
def test_bounds_of_rows_that_pass_hold_at_the_rate_that_is_promised(tolerance: float) -> None:
    """Over calibrations and new rows together; other rows set the limit anew each time."""
    alpha, generator, trials, count = 0.2, Generator().manual_seed(2), 100, 400
    beyond, passing = [], []
    for _ in range(trials):
        limit = likely_limit(*_rows(24, generator), tolerance, alpha, 60, 0.1, 0.3)
        scale = conformal_quantile(passing_ratios(*_rows(60, generator), limit, tolerance), alpha)
        needed = passing_ratios(*_rows(count, generator), limit, tolerance)
        beyond.append(float((needed > scale).sum()) / count)
        passing.append(len(needed) / count)
    excess = torch.tensor(beyond) - alpha * torch.tensor(passing)
    assert float(excess.mean()) <= 3 * float(excess.std()) / trials**0.5
    assert sum(passing) / trials > 0.05 and sum(beyond) > 0.7 * alpha * sum(passing)  # not by great caution
