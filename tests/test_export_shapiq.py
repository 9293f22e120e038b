"""Interactions in shapiq's form: what shapiq itself finds, and plots that can be drawn."""

import matplotlib
import pytest
import torch
from torch import Tensor

from captum_meta.attr import MetaKernelShap
from captum_meta.export import to_shapiq
from tests.attr.conftest import untrained

shapiq = pytest.importorskip("shapiq")
matplotlib.use("Agg")
NAMES = ["one", "two", "three", "four"]


def model(x: Tensor) -> Tensor:
    return x[:, 0] * x[:, 1] + torch.tanh(x[:, 2] * x[:, 3] + x[:, 0])


@pytest.fixture
def found() -> Tensor:
    attr = MetaKernelShap(model, learner=untrained("shapley"))
    return attr.interactions(torch.tensor([[1.0, -2.0, 0.5, 3.0]]), n_samples=14)[0]


def test_values_are_those_of_shapiq(found: Tensor) -> None:
    x = torch.tensor([[1.0, -2.0, 0.5, 3.0]])
    computer = shapiq.ExactComputer(n_players=4, game=lambda members: model(x * torch.as_tensor(members)).double().numpy())
    theirs, ours = computer("k-SII", 2), to_shapiq(found, model(0 * x))
    assert ours.index == "k-SII"
    for group, value in theirs.interactions.items():
        if group:
            assert float(ours[group]) == pytest.approx(float(value), abs=1e-5)
    assert float(ours[()]) == pytest.approx(float(model(0 * x)))


@pytest.mark.parametrize("plot", ["plot_network", "plot_upset", "plot_force", "plot_waterfall", "plot_stacked_bar"])
def test_plots_are_drawn(found: Tensor, plot: str) -> None:
    values = to_shapiq(found, 0.0)
    assert getattr(values, plot)(show=False, **({} if plot == "plot_stacked_bar" else {"feature_names": NAMES})) is not None
    matplotlib.pyplot.close("all")


def test_mistakes_are_named(found: Tensor) -> None:
    with pytest.raises(ValueError, match=r"interactions\[0\]"):
        to_shapiq(found.unsqueeze(0), 0.0)
    with pytest.raises(ValueError, match="2 entries"):
        to_shapiq(found, torch.zeros(2))
