"""The memory benchmark on short loops; its processes are spawned by the command alone."""

from math import log2

import pytest
import torch

from captum_meta.benchmark.memory import MOMENTUM, WAYS, measure, table
from captum_meta.optim import InnerProblem, MomentumSGD, Reversible
from captum_meta.optim.reversible import DENOMINATOR, kept_bits


def test_the_table_shows_every_way() -> None:
    peaks = [measure(way, 3) for way in WAYS]
    assert table(peaks).row_count == 3
    assert all(peak.megabytes >= 0 and peak.seconds > 0 for peak in peaks)
    assert peaks[2].bits > log2(1 / MOMENTUM)


@pytest.mark.parametrize("steps", [40, 1000])
def test_the_buffer_grows_by_the_lost_digits(steps: int) -> None:
    rule = MomentumSGD(["a"], 1, 0.01, 0.8)
    start = {"a": torch.ones(3, 4).requires_grad_()}
    kept = kept_bits(Reversible().solve(InnerProblem(lambda p: p["a"].square().sum(), rule, steps), start)["a"])
    lost = log2(DENOMINATOR / round(0.8 * DENOMINATOR))
    assert kept.bits == pytest.approx(steps * lost, abs=2 + steps * lost / 20)
    assert kept.megabytes * 2**20 == pytest.approx(8 * 12 * -(-kept.bits // 60), abs=8 * 12)
