"""Code written for shap.KernelExplainer runs with the import changed: the same calls of both, and their answers."""

import warnings
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
import shap
import torch
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from captum_meta.attr import MetaShapExplainer

matplotlib.use("Agg")
NAMES = list("abcde")
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(60, 5))
FRAME = pd.DataFrame(X, columns=NAMES)
MODEL = LogisticRegression().fit(X, (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int) + (X[:, 3] > 0.5))
WHOLE = {"nsamples": 32, "silent": True, "l1_reg": False}
CONSTANT, WITHOUT = X.copy(), X.copy()
CONSTANT[:, 3], WITHOUT[20:, 1], WITHOUT[:10, 1] = 2.0, np.nan, 0.0
COUNTS, CODES = (3 * X).astype(int), GENERATOR.normal(size=40)
PEOPLE = pd.DataFrame({"age": (30 + 8 * X[:, 0]).round(), "job": np.array(list("xyz"))[COUNTS[:, 1] % 3], "pay": X[:, 2]})
PIPELINE = make_pipeline(make_column_transformer((OneHotEncoder(), ["job"]), (StandardScaler(), ["age", "pay"])), MODEL)
PIPELINE = make_pipeline(PIPELINE[0], LogisticRegression()).fit(PEOPLE, X[:, 0] * (COUNTS[:, 1] % 3) > 0)
torch.manual_seed(0)
LINEAR = torch.nn.Linear(5, 2)


def one(rows: np.ndarray) -> np.ndarray:
    return MODEL.predict_proba(rows)[:, 1]


def of_tensors(rows: np.ndarray) -> np.ndarray:
    return LINEAR(torch.from_numpy(rows)).tanh().detach().numpy()


def of_frame(rows: np.ndarray) -> np.ndarray:
    return PIPELINE.predict_proba(pd.DataFrame(rows, columns=PEOPLE.columns))


Call = tuple[Callable[[Any], Any], Callable[[Any], Any]]
CALLS: dict[str, Call] = {
    "all classes": (lambda k: k(MODEL.predict_proba, X[:10]), lambda e: e.shap_values(X[20:23], **WHOLE)),
    "names in the third place": (
        lambda k: k(MODEL.predict_proba, X[:10], NAMES),
        lambda e: e.shap_values(X[20:23], **WHOLE),
    ),
    "link in the fourth": (lambda k: k(one, X[:10], None, "logit"), lambda e: e.shap_values(X[20:23], **WHOLE)),
    "all by name": (
        lambda k: k(model=MODEL.predict_proba, data=X[:10], link="logit"),
        lambda e: e.shap_values(X=X[20:23], gc_collect=True, **WHOLE),
    ),
    "a Series": (lambda k: k(MODEL.predict_proba, FRAME[:10]), lambda e: e.shap_values(FRAME.iloc[20], **WHOLE)),
    "a Series as background": (lambda k: k(one, FRAME.iloc[0]), lambda e: e.shap_values(FRAME[20:22], **WHOLE)),
    "the median": (lambda k: k(one, np.median(X, axis=0).reshape(1, -1)), lambda e: e.shap_values(X[20:22], **WHOLE)),
    "centres of clusters": (lambda k: k(one, shap.kmeans(FRAME, 4)), lambda e: e.shap_values(FRAME[20:22], **WHOLE)),
    "labels": (lambda k: k(MODEL.predict, X[:10]), lambda e: e.shap_values(X[20:23], **WHOLE)),
    "one column": (lambda k: k(lambda r: one(r)[:, None], X[:10]), lambda e: e.shap_values(X[20:23], **WHOLE)),
    "a Series given back": (lambda k: k(lambda r: pd.Series(one(r)), X[:10]), lambda e: e.shap_values(X[20:23], **WHOLE)),
    "a sparse matrix": (
        lambda k: k(MODEL.predict_proba, sparse.csr_matrix(X[:10])),
        lambda e: e.shap_values(sparse.lil_matrix(X[20:23]), **WHOLE),
    ),
    "single precision": (
        lambda k: k(of_tensors, X[:10].astype(np.float32)),
        lambda e: e.shap_values(X[20:23].astype(np.float32), **WHOLE),
    ),
    "whole numbers": (
        lambda k: k(lambda rows: CODES[rows[:, 0] + 20] * rows[:, 1], COUNTS[:10]),
        lambda e: e.shap_values(COUNTS[20:23], **WHOLE),
    ),
    "a column that does not vary": (  # of the other four are 14 coalitions all there are
        lambda k: k(one, CONSTANT[:10]),
        lambda e: e.shap_values(CONSTANT[20:23], nsamples=14, silent=True, l1_reg=False),
    ),
    "missing values": (
        lambda k: k(lambda r: np.where(np.isnan(r[:, 1]), 5.0, r[:, 1]) * r[:, 0], WITHOUT[:10]),
        lambda e: e.shap_values(WITHOUT[20:23], **WHOLE),
    ),
    "columns named weights and data": (
        lambda k: k(one, FRAME.rename(columns={"a": "weights", "b": "data"})[:10]),
        lambda e: e.shap_values(X[20:23], **WHOLE),
    ),
    "names in a column": (lambda k: k(of_frame, PEOPLE[:10]), lambda e: e.shap_values(PEOPLE[20:24], **WHOLE)),
    "a row with a name": (lambda k: k(of_frame, PEOPLE[:10]), lambda e: e.shap_values(PEOPLE.iloc[20], **WHOLE)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("call", CALLS)
def test_the_same_call_gives_the_same(call: str) -> None:
    make, ask = CALLS[call]
    theirs, ours = make(shap.KernelExplainer), make(MetaShapExplainer)
    expected, found = ask(theirs), ask(ours)
    assert isinstance(found, np.ndarray) and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert type(ours.expected_value) is type(theirs.expected_value)
    np.testing.assert_allclose(ours.expected_value, theirs.expected_value, rtol=1e-5)


def gaps(words: list[Any]) -> pd.DataFrame:
    """People of whom a job, a pay, and whether they are married may be missing."""
    table = PEOPLE.assign(
        job=[words[i % len(words)] for i in COUNTS[:, 1]], town=np.array(["here", "there"])[COUNTS[:, 4] % 2]
    )
    return table.assign(pay=table["pay"].where(COUNTS[:, 3] > -2))


WORDS = {
    "words": ["x", "y", "z"],
    "None": ["x", None, "z"],
    "nan": [float("nan"), "y", "z"],
    "both": [float("nan"), None, "z"],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("categorical", [False, True])
@pytest.mark.parametrize("missing", WORDS)
def test_words_and_gaps_of_a_pipeline(missing: str, categorical: bool) -> None:
    """As shap says of a function that makes the DataFrame; the pipeline itself can be passed as well."""
    table = gaps(WORDS[missing])
    table = table.astype({"job": "category"}) if categorical else table
    encode = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["age", "pay"]),
        (make_pipeline(SimpleImputer(strategy="constant", fill_value="gap"), OneHotEncoder()), ["job", "town"]),
    )
    model = make_pipeline(encode, LogisticRegression()).fit(table.astype({"job": object}), X[:, 0] * (COUNTS[:, 1] % 3) > 0)

    def of_arrays(rows: np.ndarray) -> np.ndarray:
        return model.predict_proba(pd.DataFrame(rows, columns=table.columns))

    expected = shap.KernelExplainer(of_arrays, table[:10]).shap_values(table[20:25], **WHOLE)
    assert np.abs(expected[:, 1]).max() > 0.01
    for function in (of_arrays, model.predict_proba):
        found = MetaShapExplainer(function, table[:10]).shap_values(table[20:25], nsamples=16)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_model_is_given_the_missing_values_that_there_are() -> None:
    """pandas.NA, which shap does not take, among them."""
    words, seen = ["x", None, float("nan"), pd.NA, pd.NaT], set[str]()

    def model(rows: np.ndarray) -> np.ndarray:
        seen.update(map(repr, rows[:, 0]))
        return np.array([sum(map(ord, repr(word))) % 11 for word in rows[:, 0]], dtype=float)

    table = pd.DataFrame({"word": pd.Series(words, dtype=object), "number": np.arange(5.0)})
    values = MetaShapExplainer(model, table).shap_values(table, nsamples=4)
    assert seen == {"'x'", "None", "nan", "<NA>", "NaT"}
    worths = np.array([sum(map(ord, repr(word))) % 11 for word in words])
    np.testing.assert_allclose(values, np.stack([worths - worths.mean(), np.zeros(5)], axis=1), atol=1e-6)


def test_an_estimator_fitted_to_names_is_given_them() -> None:
    model = LogisticRegression().fit(FRAME, X[:, 0] > 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = MetaShapExplainer(model.predict_proba, FRAME[:10]).shap_values(FRAME[20:22], nsamples=32)
        plain = MetaShapExplainer(lambda rows: model.predict_proba(pd.DataFrame(rows, columns=NAMES)), X[:10])
        np.testing.assert_allclose(found, plain.shap_values(X[20:22], nsamples=32), atol=1e-7)


@pytest.mark.filterwarnings("ignore")
def test_categories_of_pandas_stay_categories() -> None:
    people = PEOPLE.astype({"job": "category"})

    class Strict(HistGradientBoostingClassifier):
        def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
            assert rows.dtypes["job"] == people.dtypes["job"]
            return super().predict_proba(rows)

    model = Strict(categorical_features="from_dtype", max_iter=5).fit(people, X[:, 2] > 0)
    assert MetaShapExplainer(model.predict_proba, people[:5]).shap_values(people[20:22]).shape == (2, 3, 2)


def test_words_of_documents_are_as_many_players_as_differ_from_the_background() -> None:
    words = ["the", "cat", "dog", "likes", "big", "red", "house", "park", "runs", "sees", "old", "bird", "fish", "hates"]
    documents = [" ".join(GENERATOR.choice(words, 7)) for _ in range(80)]
    table = CountVectorizer(ngram_range=(1, 2)).fit_transform(documents)
    model = LogisticRegression().fit(table, ["cat" in document for document in documents])
    background = sparse.csr_matrix((1, table.shape[1]))
    theirs, ours = (k(model.predict_proba, background) for k in (shap.KernelExplainer, MetaShapExplainer))
    expected = theirs.shap_values(table[:2], nsamples=4000, silent=True, l1_reg=False)
    found = ours.shap_values(table[:2], nsamples=1000)
    assert table.shape[1] > 100
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert not found[(table[:2].toarray() == 0)].any()


def test_calls_take_what_shaps_take() -> None:
    explainer = MetaShapExplainer(MODEL.predict_proba, FRAME[:10])
    explanation = explainer(FRAME[20:40], "num_features(5)", True)
    assert explanation.shape == (20, 5, 3) and explanation.base_values.shape == (20, 3)
    alone = explainer(FRAME.iloc[20])
    assert alone.shape == (1, 5, 3) and alone.data.shape == (1, 5)
    np.testing.assert_allclose(alone.values[0], explanation.values[0], atol=1e-6)
    assert MetaShapExplainer(one, X[:10])(X[:0]).shape == (0, 5)


@pytest.mark.filterwarnings("ignore")
def test_all_of_shaps_plots_of_tables() -> None:
    explainer = MetaShapExplainer(MODEL.predict_proba, FRAME[:10])
    explanation = explainer(FRAME[20:40])[:, :, 1]
    for name in ("beeswarm", "bar", "heatmap", "violin"):
        getattr(shap.plots, name)(explanation, show=False)
        matplotlib.pyplot.close()
    shap.plots.waterfall(explanation[0], show=False)
    shap.plots.scatter(explanation[:, "a"], show=False)
    shap.plots.force(explanation[0], matplotlib=True, show=False)
    shap.plots.decision(explainer.expected_value[1], explanation.values, features=FRAME[20:40], show=False)
    shap.plots.group_difference(explanation.values, np.arange(20) > 9, NAMES, show=False)
    shap.force_plot(explainer.expected_value[1], explanation.values[0], FRAME.iloc[20])
    shap.dependence_plot("a", explanation.values, FRAME[20:40], show=False)
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("rows", [X[:10], FRAME[:10]], ids=["array", "frame"])
def test_a_masker_stands_for_its_rows(rows: Any) -> None:
    def model(given: Any) -> Any:
        assert isinstance(given, type(rows))
        return MODEL.predict_proba(np.asarray(given))

    masker = shap.maskers.Independent(rows)
    right = shap.Explainer(model, masker)(rows[:2])
    found = MetaShapExplainer(model, masker)(rows[:2], nsamples=30)
    np.testing.assert_allclose(found.values, right.values, atol=1e-6)


def test_whole_numbers_of_the_background_do_not_round_the_rows() -> None:
    rows = X[20:23]
    found = MetaShapExplainer(lambda r: r.sum(1), COUNTS[:10]).shap_values(rows, **WHOLE)
    np.testing.assert_allclose(found, rows - COUNTS[:10].mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda: MetaShapExplainer(one), TypeError, "background rows once"),
        (lambda: MetaShapExplainer(one, X, background=X), TypeError, "background rows once"),
        (lambda: MetaShapExplainer(one, X, "logit"), ValueError, "pass link='identity' or 'logit'"),
        (lambda: MetaShapExplainer(one, FRAME, keep_index=True), ValueError, "pass a function that makes the DataFrame"),
        (lambda: MetaShapExplainer(lambda rows: np.array(["x"] * len(rows)), X), ValueError, "predict_proba"),
        (
            lambda: MetaShapExplainer(one, shap.maskers.Impute(X)),
            TypeError,
            "is a Impute, .*: pass the rows, such as masker.data",
        ),
        (lambda: MetaShapExplainer(one, FRAME)(FRAME[list("bacde")]), ValueError, "columns in another order, .*: pass X\\["),
        (lambda: MetaShapExplainer(one, one), TypeError, "is a function, .*: pass the rows"),
        (lambda: MetaShapExplainer(one, X[:0]), ValueError, "pass rows of features"),
        (lambda: MetaShapExplainer(of_frame, PEOPLE).shap_values(X), ValueError, "rows of 3 features"),
        (lambda: MetaShapExplainer(of_frame, PEOPLE[:5]).shap_values(PEOPLE[["job", "age", "pay"]]), ValueError, "'age'"),
    ],
)
def test_mistakes_are_named(make: Callable[[], Any], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        make()


def test_a_module_in_train_mode_is_named_and_left_as_it_is() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Dropout(), torch.nn.Linear(4, 1))
    with pytest.warns(UserWarning, match="is in train mode"):
        explainer = MetaShapExplainer(model, X[:10])
    explainer.shap_values(X[20:22], 8)
    assert model.training
