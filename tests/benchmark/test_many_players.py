"""Default calls of many players answer within memory, at the cost that the guide says."""

from multiprocessing import get_context

import pytest

from captum_meta.benchmark.many_players import CALLS, measure, table

BUDGETS = {
    "MetaKernelShap": lambda m: 2 * m + 19,
    "MetaShapleyValueSampling": lambda m: 25 * m + 19,
}
"""Evaluations of one row of up to 256 players: coalitions, three gradients, and what tells whether rows may be apart."""


def test_one_call_and_its_line() -> None:
    call = measure("128 token ids", "MetaLayerIntegratedGradients")
    assert 8 * 3 <= call.evaluations <= 50 * 3 + 20
    assert table([call]).row_count == 1


@pytest.mark.slow
@pytest.mark.parametrize(("case", "front_end"), [(case, name) for case, names in CALLS.items() for name in names])
def test_default_calls_answer_within_memory(case: str, front_end: str) -> None:
    with get_context("spawn").Pool(1) as process:
        call = process.apply(measure, (case, front_end))
    assert call.megabytes < 800
    n_players = int(case.split()[0].replace(",", ""))
    if front_end in BUDGETS and n_players <= 256:
        assert call.evaluations <= BUDGETS[front_end](n_players)
    else:
        assert call.evaluations <= 50 * 3 + 20
