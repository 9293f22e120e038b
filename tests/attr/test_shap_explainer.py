"""shap's calls: what KernelExplainer gives, and what is done with it."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import shap
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression

from captum_meta.attr import MetaShapExplainer

matplotlib.use("Agg")
NAMES = ["age", "height", "weight", "income", "rooms"]


@pytest.fixture(scope="module")
def table() -> tuple[pd.DataFrame, np.ndarray]:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(300, 5))
    labels = (rows[:, 0] + rows[:, 1] * rows[:, 2] > 0).astype(int) + (rows[:, 3] > 0.5)
    return pd.DataFrame(rows, columns=NAMES), labels


def error(values, right) -> float:
    return float(((values - right) ** 2).sum() / (right**2).sum())


def test_all_classes_of_a_classifier_with_plots(table) -> None:
    frame, labels = table
    model = LogisticRegression().fit(frame.to_numpy(), labels)
    background = shap.sample(frame, 20, random_state=0)
    explainer = MetaShapExplainer(model.predict_proba, background)
    theirs = shap.KernelExplainer(model.predict_proba, background)
    explanation = explainer(frame.iloc[:6])
    right = theirs(frame.iloc[:6], silent=True)
    assert explanation.shape == right.shape == (6, 5, 3)
    assert error(explanation.values, right.values) < 0.02
    np.testing.assert_allclose(explainer.expected_value, theirs.expected_value, rtol=1e-5)
    np.testing.assert_allclose(explanation.base_values, right.base_values, rtol=1e-5)
    assert explanation.feature_names == NAMES
    total = model.predict_proba(frame.iloc[:6].to_numpy()) - explainer.expected_value
    np.testing.assert_allclose(explanation.values.sum(1), total, atol=1e-6)
    shap.plots.beeswarm(explanation[:, :, 1], show=False)
    shap.plots.waterfall(explanation[0, :, 2], show=False)


def test_a_forest_and_the_centres_of_clusters(table) -> None:
    frame, _ = table
    rows = frame.to_numpy()
    model = RandomForestRegressor(n_estimators=10, random_state=0).fit(rows, rows[:, 0] * rows[:, 1] + rows[:, 4])
    background = shap.kmeans(rows, 8)
    explainer, theirs = MetaShapExplainer(model.predict, background), shap.KernelExplainer(model.predict, background)
    values, right = explainer.shap_values(rows[:4], nsamples=30), theirs.shap_values(rows[:4], silent=True, l1_reg=False)
    assert isinstance(explainer.expected_value, float)
    np.testing.assert_allclose(values, right, atol=1e-5)
    assert error(explainer.shap_values(rows[:4], nsamples=15, l1_reg="num_features(5)"), right) < 0.05
    np.testing.assert_allclose(explainer.shap_values(rows[0], nsamples=30), right[0], atol=1e-5)
    shap.summary_plot(values, rows[:4], feature_names=NAMES, show=False)


def test_trees_in_log_odds(table) -> None:
    frame, labels = table
    model = HistGradientBoostingClassifier(max_iter=10).fit(frame.to_numpy(), labels > 0)

    def positive(rows: np.ndarray) -> np.ndarray:
        return model.predict_proba(rows)[:, 1]

    background = frame.iloc[:15]
    explainer = MetaShapExplainer(positive, background, link="logit")
    theirs = shap.KernelExplainer(positive, background, link="logit")
    right = theirs.shap_values(frame.iloc[20:24], silent=True, l1_reg=False)
    np.testing.assert_allclose(explainer.shap_values(frame.iloc[20:24], nsamples=30), right, atol=1e-4)
    assert error(explainer.shap_values(frame.iloc[20:24], nsamples=15), right) < 0.1
    assert abs(explainer.expected_value - theirs.expected_value) < 1e-6
    shap.plots.bar(explainer(frame.iloc[20:24]), show=False)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_a_module_with_arrays_and_tensors(kind) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    x, background = torch.randn(3, 5), torch.randn(12, 5)
    explainer = MetaShapExplainer(net, kind(background))
    values = explainer.shap_values(kind(x))
    right = shap.KernelExplainer(lambda rows: net(torch.tensor(rows).float()).detach().numpy(), background.numpy())
    assert values.shape == (3, 5, 2)
    assert error(values, right.shap_values(x.numpy(), silent=True, l1_reg=False)) < 0.01


@pytest.mark.usefixtures("unchecked")
def test_mistakes_are_named(table) -> None:
    frame, _ = table
    with pytest.raises(TypeError, match="predict_proba"):
        MetaShapExplainer(LogisticRegression(), frame)
    with pytest.raises(ValueError, match="logit"):
        MetaShapExplainer(len, frame, link="log")
    explainer = MetaShapExplainer(lambda rows: rows.sum(1), frame.iloc[:10])
    with pytest.raises(ValueError, match="5 features"):
        explainer.shap_values(frame.iloc[:2, :4])
    with pytest.raises(TypeError, match="nsamples"):
        explainer.shap_values(frame.iloc[:2], nsamples=1.5)
    with pytest.raises(ValueError, match="positive"):
        explainer.shap_values(frame.iloc[:2], nsamples=0)
    with pytest.raises(ValueError, match="made of numbers"):
        explainer.shap_values(pd.DataFrame([["a", 1, 2, 3, 4]]))


def test_shap_is_needed_for_an_explanation_alone(table, monkeypatch) -> None:
    frame, _ = table
    explainer = MetaShapExplainer(lambda rows: rows.sum(1), frame.iloc[:10])
    monkeypatch.setitem(__import__("sys").modules, "shap", None)
    assert explainer.shap_values(frame.iloc[:2]).shape == (2, 5)
    with pytest.raises(ImportError, match="pip install shap"):
        explainer(frame.iloc[:2])


@pytest.mark.parametrize(("n_outputs", "shape"), [(1, (2, 5)), (3, (2, 5, 3))])
@pytest.mark.parametrize("n_background", [1, 4])
def test_models_that_squeeze_their_answer(n_outputs, shape, n_background) -> None:
    weights = np.random.default_rng(0).normal(size=(5, n_outputs))
    explainer = MetaShapExplainer(lambda rows: np.squeeze(rows @ weights), np.zeros((n_background, 5)))
    rows = np.ones((2, 5))
    np.testing.assert_allclose(explainer.shap_values(rows), np.broadcast_to(weights, (2, *weights.shape)).reshape(shape))
    assert explainer.shap_values(rows[:1]).shape == (1, *shape[1:])
