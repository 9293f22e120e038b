"""The benchmark of a user's own model: right, counted, resumable, and honest in what it recommends."""

import json
import warnings
from html import escape
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from captum_meta._model import Counted
from captum_meta.benchmark import Measurement, ModelBenchmark, benchmark_model, own_model
from captum_meta.benchmark.references import Reference
from captum_meta.functional import attribution_error, deletion_auc
from tests.attr.conftest import probe
from tests.benchmark.conftest import brute_force, small_net, small_problem, untrained

FAST = ["Captum KernelShap", "(leave-one-out + add-one-in) / 2", "shapiq KernelSHAP"]
X = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _plain_learner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours with untrained explainers, so that these tests do not lean on shipped weights."""
    from captum_meta.attr import _learner

    monkeypatch.setattr(_learner, "_shipped", lambda name, kind, device, dtype: untrained(kind).to(device, dtype))


def run(model: object, x: object = X, **arguments: object) -> ModelBenchmark:
    return benchmark_model(model, x, show_progress=False, **{"target": 1, **arguments})  # type: ignore[arg-type]


def test_errors_and_metrics_are_those_of_the_methods() -> None:
    problem = small_problem(5)
    arguments = problem.arguments
    found = run(problem.model, arguments["inputs"], baselines=arguments["baselines"], budgets=[30], methods=FAST)
    exact = brute_force(problem)
    assert torch.allclose(found.reference.values.double(), exact, atol=1e-5)
    (border,) = (m for m in found.measurements if m.method.startswith("(leave"))
    x, b, f = arguments["inputs"], arguments["baselines"], lambda z: problem.model(z)[:, 1]
    total = f(x) - f(b)
    eye = torch.eye(5, dtype=torch.bool)
    out = torch.stack([f(x) - f(torch.where(eye[i], b, x)) for i in range(5)], 1)
    alone = torch.stack([f(torch.where(eye[i], x, b)) - f(b) for i in range(5)], 1)
    values = (out + alone) / 2
    values = values + ((total - values.sum(1)) / 5).unsqueeze(1)
    assert border.error == pytest.approx(float(attribution_error(values.detach().double(), exact)), rel=1e-3)
    assert border.metrics["deletion_auc"] == pytest.approx(float(deletion_auc(problem.model, values, x, b, 1)), abs=1e-5)
    assert border.evaluations == 9 + 10


def test_every_method_spends_at_most_its_budget_and_ours_all_of_it() -> None:
    found = run(small_net(6), budgets=[33, 57], support={"inputs": torch.randn(3, 6), "target": 1})
    ours = [m for m in found.measurements if m.method.startswith("Meta")]
    assert all(m.evaluations <= m.budget for m in found.measurements if m not in ours)
    assert [m.evaluations - probe(4) / 4 for m in ours] == [33, 57, 33, 57]
    assert {m.method for m in ours} == {"MetaKernelShap, zero-shot", "MetaKernelShap, adapted"}
    assert all((m.support_evaluations > 3 * 2**6) == m.method.endswith("adapted") for m in ours)


def test_path_integrals() -> None:
    found = run(small_net(6), kind="path", support={"inputs": torch.randn(3, 6), "target": 1})
    assert len(found.measurements) == 15
    assert [m.evaluations - probe(4) / 4 for m in found.measurements[:5]] == [12, 18, 33, 63, 152]
    captum = [m for m in found.measurements if m.method.startswith("Captum")]
    assert [m.evaluations for m in captum] == [9, 15, 30, 60, 150]
    assert captum[-1].error < 1e-5
    with pytest.raises(RuntimeError, match="kind='shapley'"):
        run(lambda x: torch.as_tensor(x.detach().numpy()).sum(1), kind="path", target=None)


def test_trees_are_black_boxes() -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6))
    trees = HistGradientBoostingRegressor(max_iter=10).fit(x, x[:, 0] * x[:, 1] + x[:, 2])
    rows = torch.tensor(x[:4], dtype=torch.float32)
    found = run(lambda z: torch.as_tensor(trees.predict(z.numpy())).float(), rows, target=None)
    names = {m.method for m in found.measurements}
    assert "gradient mean" not in names
    ours = [m for m in found.measurements if m.method == "MetaKernelShap, zero-shot"]
    assert [m.budget for m in ours] == [2 + 6 * k for k in (2, 4, 8, 16)]
    assert ours[-1].error < 1e-6


def test_tuples_groups_and_further_arguments() -> None:
    def model(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        return (x.sum(1) * y.flatten(1).prod(1) * scale).unsqueeze(1)

    x, y = torch.rand(3, 4) + 0.5, torch.rand(3, 2, 2) + 0.5
    mask = (torch.tensor([[0, 0, 1, 2]]), torch.tensor([[[3, 3], [4, 2]]]))
    found = run(
        model, (x, y), target=0, additional_forward_args=torch.tensor([1.0, 2.0, 3.0]), feature_mask=mask, budgets=[40]
    )
    assert found.n_players == 5
    assert len(found.measurements) == 11
    assert found.measurements[0].error < 1e-5
    assert all(set(m.metrics) == {"infidelity", "deletion_auc", "insertion_auc"} for m in found.measurements)


def test_many_players_have_a_sampled_reference_with_its_standard_error() -> None:
    net = small_net(20)
    found = run(net, torch.randn(2, 20, generator=torch.Generator().manual_seed(2)), methods=FAST[1:2], reference_pairs=300)
    assert "300 antithetic pairs" in found.reference.method
    assert 0 < found.reference.error < 0.01
    text = Console(width=200, file=StringIO())
    text.print(found.table())
    assert "antithetic" in text.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("lost", [1, 300])
def test_a_stopped_run_is_taken_up(tmp_path: Path, lost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = tmp_path / "mine.jsonl"
    net = small_net(6)
    first = run(net, methods=FAST, output=journal)
    journal.write_text(journal.read_text()[:-lost])
    calls = []
    original = own_model._measure
    monkeypatch.setattr(own_model, "_measure", lambda *a: calls.append(a) or original(*a))
    monkeypatch.setattr(own_model, "_reference", None)
    again = run(net, methods=FAST, output=journal)
    assert len(calls) == 1
    assert [m.squared_errors for m in again.measurements] == [m.squared_errors for m in first.measurements]
    calls.clear()
    run(net, methods=FAST, output=journal)
    assert not calls


@pytest.mark.parametrize(
    "change", [{"x": X + 1}, {"seed": 1}, {"target": 0}, {"baselines": 1.0}, {"model": small_net(6).requires_grad_(False)}]
)
def test_results_of_something_else_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    if "model" in change:
        change["model"][0].bias.fill_(3.0)  # type: ignore[index]
    run(small_net(6), methods=FAST[1:2], output=tmp_path / "mine.jsonl")
    with pytest.raises(ValueError, match="holds results of another model"):
        run(**{"model": small_net(6), "methods": FAST[1:2], "output": tmp_path / "mine.jsonl", **change})  # type: ignore[arg-type]


def test_files_and_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = run(small_net(6), methods=FAST)
    found.to_json(tmp_path / "r.json")
    found.to_csv(tmp_path / "r.csv")
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["recommendation"] == found.recommendation
    assert [row["error"] for row in content["results"]] == [m.error for m in found.measurements]
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 1 + len(found.measurements)
    assert [label for label in FAST if label in {text.get_text() for text in found.figure().axes[0].texts}] == list(FAST)
    assert list(found.to_pandas()["method"]) == [m.method for m in found.measurements]
    assert repr(found).split()[-5:] == found.recommendation.split()[-5:]
    assert str(found) == repr(found)
    shown = found._repr_html_()
    assert shown.count("<tr>") == 1 + len(found.measurements) and escape(found.recommendation) in shown
    assert shown.count("<b>") == shown.count("</b>") >= 1 and "bold" not in shown and FAST[0] in shown


def test_a_notebook_shows_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found, shown = run(small_net(6), methods=FAST[:1]), []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *told: shown.append(told))
    assert FAST[0] in repr(found) and not shown


def test_the_model_is_left_as_it_was_and_results_repeat() -> None:
    net = small_net(6).train()
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (run(net, methods=FAST) for _ in range(2))
    assert torch.equal(states[0], torch.get_rng_state()) and (states[1] == np.random.get_state()[1]).all()
    assert net.training
    assert [m.squared_errors for m in first.measurements] == [m.squared_errors for m in second.measurements]


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="one number per row"):
        run(small_net(6), target=None)
    with pytest.raises(ValueError, match="each row alone"), pytest.warns(UserWarning, match="each of the rows alone"):
        run(lambda x: (x - x.mean(0)).square().sum(1), target=None)
    with pytest.raises(ValueError, match="one number per row"):
        run(lambda x: x.sum(), target=None)
    with pytest.raises(ValueError, match="kind is 'paths': pass one of 'shapley', 'path'"):
        run(small_net(6), kind="paths")
    with pytest.raises(ValueError, match="no methods"):
        run(small_net(6), methods=["Nonsense"])


def test_a_peer_that_fails_is_left_out_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(problem: object, budget: int) -> Tensor:
        raise ArithmeticError("no")

    monkeypatch.setitem(own_model.METHODS["shapley"], "Captum KernelShap", broken)
    with pytest.warns(UserWarning, match="Captum KernelShap failed"):
        found = run(small_net(6), methods=FAST, budgets=[30])
    assert {m.method for m in found.measurements} == set(FAST[1:])


def test_a_model_that_fails_is_not_swallowed() -> None:
    def model(x: Tensor) -> Tensor:
        raise ArithmeticError("mine")

    with pytest.raises(ArithmeticError, match="mine"), warnings.catch_warnings():
        run(model)


def made_up(method: str, evaluations: float, errors: list[float], support: int = 0) -> Measurement:
    return Measurement(method, int(evaluations), evaluations, errors, [1.0] * len(errors), 0.1, {}, support)


def report(*measurements: Measurement, standard_error: float = 0.0) -> ModelBenchmark:
    reference = Reference(torch.ones(4, 1), torch.full((4, 1), standard_error), "made up")
    return ModelBenchmark("shapley", 1, reference, measurements)


def test_the_cheapest_method_that_is_good_enough_is_recommended() -> None:
    found = report(
        made_up("A", 10, [0.1] * 4),
        made_up("A", 100, [0.001] * 4),
        made_up("B", 50, [0.009] * 4),
        made_up("C", 20, [0.5] * 4),
    )
    said = found.recommendation
    assert said.startswith("B at 50 evaluations per row is the cheapest")
    assert "Next comes A at 100" in said
    assert "tell it apart" not in said and "raise reference_pairs" not in said
    assert found.recommend(0.2).startswith("A at 10")
    assert found.recommend(0.0001).startswith("No method reached an error of 0.0001; A at 100")


def test_what_the_rows_do_not_tell_is_said() -> None:
    close = report(made_up("A", 50, [0.001, 0.009, 0.002, 0.005]), made_up("B", 50, [0.009, 0.001, 0.005, 0.003]))
    assert "do not tell it apart from B" in close.recommendation
    rough = report(made_up("A", 50, [0.005] * 4), standard_error=0.1)
    assert "raise reference_pairs" in rough.recommendation


def test_support_rows_are_counted_in_the_recommendation() -> None:
    adapted, plain = made_up("A", 20, [0.005] * 4, support=900), made_up("B", 50, [0.005] * 4)
    assert "900 evaluations in all, which have paid after 30 explained rows" in report(adapted, plain).recommendation
    assert "without them nothing reached" in report(adapted).recommendation


def test_counting_counts_gradients_as_three() -> None:
    model = Counted(small_net(6))
    model(X)
    assert model.evaluations == 4
    model(X.clone().requires_grad_())
    assert model.evaluations == 16
    with torch.no_grad():
        model(X.clone().requires_grad_())
    assert model.evaluations == 20
