"""The table of seconds: what it times, and a small run of it."""

from itertools import count
from math import isnan

import pytest
import torch

from captum_meta.benchmark import speed, speed_cases, timing
from captum_meta.benchmark.speed_nets import PATHS, Timed, path_case, perceptron
from captum_meta.benchmark.timing import Comparison, timed


def test_times_are_medians_of_calls_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = count(), []
    durations = {"ours": iter([9.0, 2.0, 4.0, 6.0]), "theirs": iter([9.0, 1.0, 1.0, 2.0])}
    now = [0.0]

    def call(name: str) -> None:
        order.append((next(clock), name))
        now[0] += next(durations[name])

    monkeypatch.setattr(timing, "process_time", lambda: now[0])
    found = timed(Comparison("case", 2.0, lambda: call("ours"), lambda: call("theirs")), runs=3)
    assert [name for _, name in order] == ["ours", "theirs"] * 4
    assert (found.ours, found.theirs, found.ratio) == (4.0, 1.0, 3.0)  # the first of each does not count


def test_short_calls_are_timed_beyond_the_ticks_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some machines count processor time in ticks of four milliseconds, in which a call may take none."""
    now = [0.0]

    def call(duration: float) -> None:
        now[0] += duration

    monkeypatch.setattr(timing, "process_time", lambda: round(now[0] // 0.004) * 0.004)
    found = timed(Comparison("case", 2.0, lambda: call(0.002), lambda: call(0.0005)), runs=3)
    assert found.ratio == pytest.approx(4, rel=0.2) and found.theirs == pytest.approx(0.0005, rel=0.1)


def test_what_has_no_other_call_is_in_seconds() -> None:
    found = timed(Comparison("case", 2.0, lambda: None), runs=1)
    assert isnan(found.theirs) and found.ratio == found.ours


@pytest.mark.parametrize("name", PATHS)
def test_nets_are_the_same_every_time(name: str) -> None:
    state = torch.get_rng_state()
    first, second = path_case(name), path_case(name)
    assert torch.equal(first.inputs, second.inputs)
    with torch.no_grad():
        assert torch.equal(first.model(first.inputs[:1]), second.model(second.inputs[:1]))
    assert torch.equal(torch.get_rng_state(), state)


def test_plain_evaluations_are_those_that_a_call_makes() -> None:
    case = perceptron(6, 5)
    seen: list[torch.Tensor] = []

    def model(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach())
        return case.model(x)

    speed_cases.plainly(Timed(model, case.inputs), 16)()
    assert [len(x) for x in seen] == [3 * 5, 16 * 5]
    assert ((seen[1].unflatten(0, (5, 16)) == case.inputs.unsqueeze(1)) | (seen[1].unflatten(0, (5, 16)) == 0)).all()


def test_steps_are_the_fewest_that_reach_the_error() -> None:
    case = Timed(lambda x: (x**3).sum(1, keepdim=True), torch.tensor([[1.0, 2.0]]))
    assert speed_cases._least_steps(case, 1, case.inputs**3) == 2  # Gauss and Legendre: two points integrate a parabola


def test_a_small_run_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    speed.main(["--sections", "estimates", "--runs", "1"])
    printed = capsys.readouterr().out
    assert "60 coalitions" in printed and "at most" in printed


def test_memory_is_measured_of_both() -> None:
    assert all(speed.peak("transformer", which) > 50 for which in (0, 1))
