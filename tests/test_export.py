"""Our attributions in other libraries: values are the right ones, and their own plots accept them."""

import matplotlib
import numpy as np
import pytest
import torch
from captum.attr import visualization
from torch import Tensor

from captum_meta.attr import MetaIntegratedGradients, MetaKernelShap
from captum_meta.export import to_pandas, to_shap
from captum_meta.learners import ZeroShot
from captum_meta.nn import ShapleyExplainer

matplotlib.use("Agg")
NAMES = ["a", "b", "c", "d"]


@pytest.fixture(autouse=True)
def _closed_figures():  # type: ignore[no-untyped-def]
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def model(x: Tensor) -> Tensor:
    return x.flatten(1)[:, :2].prod(1) + x.flatten(1)[:, 2:].sum(1)


def shapley(x: Tensor, **arguments: object) -> Tensor:
    return MetaKernelShap(model, learner=ZeroShot(ShapleyExplainer(width=16, depth=1))).attribute(x, **arguments)  # type: ignore[return-value]


X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def test_values_add_up_to_the_output_from_the_base() -> None:
    found = to_shap(shapley(X), X, model(0 * X), NAMES)
    assert np.allclose(found.values.sum(1) + found.base_values, model(X), atol=1e-5)
    assert np.allclose(found.data, X)
    assert found.feature_names == NAMES


def test_groups_are_columns_with_their_value_once() -> None:
    mask = torch.tensor([[5, 5, 1, 0]])
    repeated, grouped = (shapley(X, feature_mask=mask, return_input_shape=shape) for shape in (True, False))
    for values in (repeated, grouped):
        found = to_shap(values, X, 0.0, ["last", "third", "both"], mask)
        assert np.allclose(found.values, grouped[:, [0, 1, 5]])
        assert np.allclose(found.data, torch.stack([X[:, 3], X[:, 2], X[:, :2].mean(1)], 1))
    with pytest.raises(ValueError, match="differs between rows"):
        to_shap(repeated, X, 0.0, feature_mask=torch.arange(24).reshape(6, 4) % 4)


def test_a_table_gives_its_names_and_its_index_back() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X.numpy(), columns=NAMES, index=[f"row {i}" for i in range(6)])
    values = shapley(X)
    found = to_pandas(values, frame)
    assert list(found.columns) == NAMES and list(found.index) == list(frame.index)
    assert np.allclose(found, values)
    explanation = to_shap(values, frame, model)
    assert explanation.feature_names == NAMES and np.allclose(explanation.data, X)
    assert np.allclose(explanation.base_values, float(model(0 * X[:1])), atol=1e-5)


@pytest.mark.parametrize("return_input_shape", [True, False])
def test_a_table_of_categories_gives_its_entries_and_names_back(return_input_shape: bool) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"colour": ["red", None, "blue"], "size": [1.5, float("nan"), 3.0]}, index=["r1", "r2", "r3"])

    def encoded(table: object) -> Tensor:
        columns = [(table["colour"] == name).to_numpy(dtype="float32") for name in ("red", "green", "blue")]  # type: ignore[index]
        return torch.tensor(np.stack([*columns, table["size"].fillna(0).to_numpy(dtype="float32")], 1))  # type: ignore[index]

    mask = torch.tensor([[0, 0, 0, 1]])
    values = shapley(encoded(frame), feature_mask=mask, return_input_shape=return_input_shape)
    found = to_pandas(values, frame, feature_mask=mask)
    assert list(found.columns) == ["colour", "size"] and list(found.index) == ["r1", "r2", "r3"]
    explanation = to_shap(values, frame, lambda table: model(encoded(table)).numpy(), feature_mask=mask)
    assert explanation.data[[0, 2]].tolist() == [["red", 1.5], ["blue", 3.0]]
    assert np.allclose(explanation.values, found)
    assert np.allclose(explanation.base_values, float(model(torch.zeros(1, 4))), atol=1e-5)


def test_several_inputs_stand_side_by_side() -> None:
    parts = (X[:, :1], X[:, 1:].reshape(6, 3, 1))
    found = to_shap(tuple(2 * part for part in parts), parts, 0.0)
    assert np.allclose(found.values, 2 * X)
    assert found.feature_names == [f"feature {i}" for i in range(4)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"feature_names": NAMES[:2]}, "2 feature_names for 4"),
        ({"base_values": torch.zeros(3)}, "3 entries for 6"),
        ({"attributions": X[:, :2]}, "one value for each player"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        to_shap(**{"attributions": X, "inputs": X, "base_values": 0.0, **arguments})  # type: ignore[arg-type]


def test_shaps_plots_show_them() -> None:
    import shap

    found = to_shap(shapley(X), X, model(0 * X), NAMES)
    for axes in (
        shap.plots.beeswarm(found, show=False),
        shap.plots.bar(found, show=False),
        shap.plots.bar(found[0], show=False),
        shap.plots.waterfall(found[0], show=False),
    ):
        axes.figure.canvas.draw()
        labels = {label.get_text().split("= ")[-1] for label in axes.get_yticklabels()}
        assert labels >= set(NAMES)


def test_a_table_of_attributions() -> None:
    values = shapley(X)
    table = to_pandas(values, X, NAMES)
    assert list(table.columns) == NAMES
    assert np.allclose(table.to_numpy(), values)


@pytest.mark.parametrize("sign", ["all", "positive", "absolute_value"])
def test_captum_shows_images(sign: str) -> None:
    image = torch.rand(1, 3, 8, 8)
    mask = (torch.arange(8)[:, None] // 4 * 2 + torch.arange(8) // 4).expand(1, 3, 8, 8)
    values = shapley(image, feature_mask=mask)
    shown = [tensor[0].permute(1, 2, 0).numpy() for tensor in (values, image)]
    figure, _ = visualization.visualize_image_attr(*shown, method="blended_heat_map", sign=sign, use_pyplot=False)
    assert len(figure.axes[0].images) == 2
    visualization.visualize_image_attr_multiple(*shown, ["original_image", "heat_map"], ["all", sign], use_pyplot=False)


@pytest.mark.parametrize("method", ["overlay_individual", "overlay_combined", "colored_graph"])
def test_captum_shows_time_series(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Captum 0.9.0 calls a function that matplotlib 3.9 removed.
    monkeypatch.setattr(matplotlib.cm, "get_cmap", matplotlib.colormaps.get_cmap, raising=False)
    series = torch.rand(1, 12, 2)
    values = MetaIntegratedGradients(model).attribute(series)
    shown = values[0].numpy(), series[0].numpy()
    figure, _ = visualization.visualize_timeseries_attr(*shown, method=method, use_pyplot=False)
    assert figure.axes


def test_captum_shows_words() -> None:
    values = shapley(X)[0]
    record = visualization.VisualizationDataRecord(values / values.abs().max(), 0.9, 1, 1, "1", values.sum(), NAMES, 0.0)
    html = visualization.visualize_text([record]).data
    assert all(name in html for name in NAMES)
