"""The table of default calls, and that ours are no worse than Captum's where that takes little time."""

import pytest
import torch

from captum_meta.benchmark import default_calls, default_nets
from captum_meta.benchmark.default_nets import NETS, trained


@pytest.mark.parametrize("name", ["GELU MLP", "residual"])
def test_integrated_gradients_are_no_worse_by_default(name: str) -> None:
    outcome = default_calls.compare_defaults(name, True, "IntegratedGradients", timed=1)
    assert outcome.ratio <= 1.05
    assert outcome.evaluations[1] == 150 and outcome.evaluations[0] < 110


@pytest.mark.parametrize("method", ["KernelShap", "ShapleyValueSampling", "GradientShap"])
def test_sampled_methods_are_no_worse_by_default(method: str) -> None:
    assert default_calls.compare_defaults("GELU MLP", False, method, timed=1).ratio <= 1.05


@pytest.mark.parametrize("name", NETS)
def test_nets_are_the_same_every_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_nets, "_STEPS", 5)
    state = torch.get_rng_state()
    first, second = trained(name, True), trained(name, True)
    assert torch.equal(first.model(first.inputs), second.model(second.inputs))
    assert len(first.players.unique()) <= 12 and first.players.shape == (1, *first.inputs.shape[1:])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_calls, "_STEPS", 50)
    default_calls.main(["--methods", "IntegratedGradients", "--nets", "GRU"])
    printed = capsys.readouterr().out
    assert "GRU, logits" in printed and "GRU, probabilities" in printed and "mean" in printed
