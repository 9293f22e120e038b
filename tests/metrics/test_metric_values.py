"""Each metric against a plain derivation of its formula, row by row, and against Captum's and SciPy's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from captum import metrics as captum_metrics
from captum.attr import IntegratedGradients, KernelShap, Saliency
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import Classifier, make_data
from scipy import stats
from torch import Tensor, nn

from captum_meta import functional as F

DATA, MODEL = make_data(), Classifier().eval()
MASK = torch.tensor([[[7, 7, 2], [0, 2, 0]]])
RAGGED = torch.cat([MASK, torch.arange(6).view(1, 2, 3)]).repeat(4, 1, 1)
MASKS = [None, MASK, RAGGED]
masks = pytest.mark.parametrize("mask", MASKS, ids=["features", "groups", "ragged groups"])


def groups_of(mask: Tensor | None, row: int) -> list[np.ndarray]:
    """The elements of each player of a row, as bool vectors of length 6."""
    ids = np.arange(6) if mask is None else mask.expand(8, 2, 3)[row].flatten().numpy()
    return [ids == i for i in sorted(set(ids.tolist()))]


def by_player(values: Tensor, mask: Tensor | None, row: int) -> np.ndarray:
    flat = values[row].flatten().numpy().astype(float)
    return np.array([flat[group].mean() for group in groups_of(mask, row)])


def repeated(values: Tensor, mask: Tensor | None) -> Tensor:
    """As Captum gives them: every element of a group has the same value."""
    out = values.clone()
    for row in range(len(values)):
        for group in groups_of(mask, row):
            out[row].view(-1)[torch.from_numpy(group)] = values[row].flatten()[torch.from_numpy(group)][0]
    return out


def evaluate(row: int, kept: list[int], mask: Tensor | None) -> float:
    groups = groups_of(mask, row)
    keep = sum((groups[i] for i in kept), np.zeros(6, bool)).reshape(2, 3)
    x = torch.where(torch.from_numpy(keep), DATA["inputs"][row], DATA["baselines"][row])
    return MODEL(x.unsqueeze(0))[0, DATA["target"][row]].item()


def arguments(mask: Tensor | None) -> dict[str, Any]:
    names = ("inputs", "baselines", "target")
    return {"feature_mask": mask, "reduction": "none", **{name: DATA[name] for name in names}}


def check(values: Tensor, expected: Any) -> None:
    np.testing.assert_allclose(values.detach().numpy(), np.array(expected, dtype=float), atol=2e-5, rtol=1e-5)


@masks
def test_attribution_error(mask: Tensor | None) -> None:
    a, r = (repeated(DATA[name], mask) for name in ("attributions", "reference"))
    rows = [(by_player(a, mask, i), by_player(r, mask, i)) for i in range(8)]
    check(F.attribution_error(a, r, mask, reduction="none"), [((p - q) ** 2).sum() / (q**2).sum() for p, q in rows])
    pooled = sum(((p - q) ** 2).sum() for p, q in rows) / sum((q**2).sum() for _, q in rows)
    check(F.attribution_error(a, r, mask), pooled)


@masks
@pytest.mark.parametrize("kind", ["feature", "rank", "sign", "signed_rank"])
def test_top_k_agreement(mask: Tensor | None, kind: Any) -> None:
    a, r = (repeated(DATA[name], mask) for name in ("attributions", "reference"))
    expected = []
    for row in range(8):
        p, q = by_player(a, mask, row), by_player(r, mask, row)
        top_p, top_q = np.argsort(-abs(p))[:2].tolist(), np.argsort(-abs(q))[:2].tolist()
        agreed = 0
        for i in set(top_p) & set(top_q):
            place = top_p.index(i) == top_q.index(i)
            sign = np.sign(p[i]) == np.sign(q[i])
            agreed += {"feature": True, "rank": place, "sign": sign, "signed_rank": place and sign}[kind]
        expected.append(agreed / 2)
    check(F.top_k_agreement(a, r, mask, k=2, kind=kind, reduction="none"), expected)


@masks
def test_rank_correlation(mask: Tensor | None) -> None:
    a, r = (repeated((2 * DATA[name]).round(), mask) for name in ("attributions", "reference"))
    expected = [stats.spearmanr(by_player(a, mask, i), by_player(r, mask, i)).statistic for i in range(8)]
    check(F.rank_correlation(a, r, mask, reduction="none"), np.nan_to_num(expected))


@masks
def test_sparseness_and_complexity(mask: Tensor | None) -> None:
    a = repeated(DATA["attributions"], mask)
    gini, entropy = [], []
    for row in range(8):
        sizes = np.sort(abs(by_player(a, mask, row)))
        differences = abs(sizes[:, None] - sizes[None, :]).mean()
        gini.append(differences / (2 * sizes.mean()))
        entropy.append(stats.entropy(sizes))
    check(F.sparseness(a, mask, reduction="none"), gini)
    check(F.complexity(a, mask, reduction="none"), entropy)


@masks
def test_localisation(mask: Tensor | None) -> None:
    a, relevant = repeated(DATA["attributions"], mask), DATA["relevant"]
    pointing, accuracy = [], []
    for row in range(8):
        marks = relevant[row].flatten().numpy()
        hit = {i for i, group in enumerate(groups_of(mask, row)) if marks[group].any()}
        order = np.argsort(-by_player(a, mask, row)).tolist()
        pointing.append(order[0] in hit)
        accuracy.append(len(hit & set(order[: len(hit)])) / len(hit))
    check(F.pointing_game(a, relevant, mask, reduction="none"), pointing)
    check(F.relevance_rank_accuracy(a, relevant, mask, reduction="none"), accuracy)


@masks
@pytest.mark.parametrize("n_steps", [2, 10])
@pytest.mark.parametrize("normalise", [False, True])
def test_areas(mask: Tensor | None, n_steps: int, normalise: bool) -> None:
    a = repeated(DATA["attributions"], mask)
    widest = max(len(groups_of(mask, row)) for row in range(8))
    steps = min(n_steps, widest)
    deletion, insertion = [], []
    for row in range(8):
        order = np.argsort(-by_player(a, mask, row), kind="stable").tolist()
        counts = [math.floor(len(order) * k / steps + 0.5) for k in range(steps + 1)]
        gone = np.array([evaluate(row, order[c:], mask) for c in counts])
        come = np.array([evaluate(row, order[:c], mask) for c in counts])
        if normalise:
            low, high = come[0], come[-1]
            gone, come = (gone - low) / (high - low), (come - low) / (high - low)
        shares = np.array(counts) / len(order)
        deletion.append(np.trapezoid(gone, shares))
        insertion.append(np.trapezoid(come, shares))
    options = {"n_steps": n_steps, "normalise": normalise}
    np.testing.assert_allclose(F.deletion_auc(MODEL, a, **arguments(mask), **options), deletion, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(F.insertion_auc(MODEL, a, **arguments(mask), **options), insertion, rtol=1e-3, atol=1e-5)


@masks
def test_falls(mask: Tensor | None) -> None:
    a, fractions = repeated(DATA["attributions"], mask), (0.1, 1 / 3, 0.5, 1.0)
    without, alone = [], []
    for row in range(8):
        order = np.argsort(-by_player(a, mask, row)).tolist()
        counts = [math.ceil(round(q * len(order), 6)) for q in fractions]
        whole = evaluate(row, order, mask)
        without.append(np.mean([whole - evaluate(row, order[c:], mask) for c in counts]))
        alone.append(np.mean([whole - evaluate(row, order[:c], mask) for c in counts]))
    check(F.comprehensiveness(MODEL, a, **arguments(mask), fractions=fractions), without)
    check(F.sufficiency(MODEL, a, **arguments(mask), fractions=fractions), alone)


@masks
def test_completeness_error(mask: Tensor | None) -> None:
    a = repeated(DATA["attributions"], mask)
    everyone = [list(range(len(groups_of(mask, row)))) for row in range(8)]
    change = [evaluate(row, everyone[row], mask) - evaluate(row, [], mask) for row in range(8)]
    expected = [abs(by_player(a, mask, row).sum() - change[row]) for row in range(8)]
    check(F.completeness_error(MODEL, a, **arguments(mask)), expected)


def test_completeness_error_is_the_size_of_captums_delta() -> None:
    names = ("inputs", "baselines", "target")
    method = IntegratedGradients(MODEL)
    a, delta = method.attribute(*(DATA[name] for name in names), n_steps=2, return_convergence_delta=True)
    check(F.completeness_error(MODEL, a, **arguments(None)), delta.abs())


class Recorder:
    """Keeps what it was called with."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.calls: list[Tensor] = []

    def __call__(self, inputs: Tensor, **kwargs: Any) -> Tensor:
        self.calls.append(inputs.detach().clone())
        return self.function(inputs, **kwargs)


def removals(seen: Tensor, row: int, mask: Tensor | None) -> list[list[int]]:
    """Which players of a row were at the baseline in each of the inputs seen."""
    gone = (seen == DATA["baselines"][row]).flatten(1).numpy()
    groups = groups_of(mask, row)
    assert all(len({bool(g) for g in line[group]}) == 1 for line in gone for group in groups)
    return [[i for i, group in enumerate(groups) if line[group].all()] for line in gone]


@masks
def test_infidelity(mask: Tensor | None) -> None:
    a, model = repeated(DATA["attributions"], mask), Recorder(MODEL)
    values = F.infidelity(model, a, **arguments(mask), n_perturb_samples=6)
    assert len(model.calls) == 2
    unperturbed, perturbed = model.calls if len(model.calls[0]) == 8 else model.calls[::-1]
    assert torch.equal(unperturbed, DATA["inputs"])
    for row in range(8):
        everyone = range(len(groups_of(mask, row)))
        phi, gaps, subsets = by_player(a, mask, row), [], removals(perturbed.view(8, 6, 2, 3)[row], row, mask)
        for gone in subsets:
            change = evaluate(row, list(everyone), mask) - evaluate(row, [i for i in everyone if i not in gone], mask)
            gaps.append((phi[gone].sum() - change) ** 2)
        check(values[row], np.mean(gaps))


@pytest.mark.parametrize("normalise", [False, True])
def test_infidelity_is_captums(normalise: bool) -> None:
    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = inputs.sin()
        return noise, inputs - noise

    a, x, y = DATA["attributions"], DATA["inputs"], DATA["target"]
    expected = captum_metrics.infidelity(MODEL, perturb, x, a, target=y, n_perturb_samples=3, normalize=normalise)
    options = {"perturb_func": perturb, "n_perturb_samples": 3, "normalise": normalise, "reduction": "none"}
    check(F.infidelity(MODEL, a, x, target=y, **options), expected)


@masks
def test_faithfulness_correlation(mask: Tensor | None) -> None:
    a, model = repeated(DATA["attributions"], mask), Recorder(MODEL)
    values = F.faithfulness_correlation(model, a, **arguments(mask), n_perturb_samples=12, fraction=0.5)
    seen = torch.cat(model.calls).view(8, 12, 2, 3)
    for row in range(8):
        everyone, phi = range(len(groups_of(mask, row))), by_player(a, mask, row)
        subsets = removals(seen[row], row, mask)
        assert {len(gone) for gone in subsets} == {math.ceil(len(everyone) / 2)}
        outputs = [evaluate(row, [i for i in everyone if i not in gone], mask) for gone in subsets]
        check(values[row], stats.pearsonr([phi[gone].sum() for gone in subsets], -np.array(outputs)).statistic)


def explanation(inputs: Any) -> Any:
    if isinstance(inputs, tuple):
        return (explanation(inputs[0]),)
    return inputs**2 * torch.arange(6.0).view(2, 3)


def always(value: Tensor) -> Any:
    return lambda inputs: value


def test_max_sensitivity_and_local_lipschitz() -> None:
    x, radius = DATA["inputs"], 0.3
    options = {"perturb_radius": radius, "n_perturb_samples": 5, "reduction": "none"}
    for function in (F.max_sensitivity, F.local_lipschitz):
        recorder = Recorder(explanation)
        values = function(recorder, x, **options)
        original, perturbed = recorder.calls[0], torch.cat(recorder.calls[1:]).view(8, 5, 2, 3)
        assert torch.equal(original, x)
        noise = perturbed - x.unsqueeze(1)
        assert noise.abs().max() <= radius + 1e-5 and noise.unique().numel() > 200
        for row in range(8):
            before, ratios = explanation(x[row]), []
            for other in perturbed[row]:
                change = np.linalg.norm((explanation(other) - before).flatten())
                scale = before if function is F.max_sensitivity else other - x[row]
                ratios.append(change / np.linalg.norm(scale.flatten()))
            check(values[row], max(ratios))
        if function is F.max_sensitivity:
            replay = captum_metrics.sensitivity_max(explanation, x, always(perturbed.reshape(40, 2, 3)), n_perturb_samples=5)
            check(values, replay)


def test_sensitivity_passes_rows_arguments_on() -> None:
    method = KernelShap(MODEL)
    names = ("inputs", "baselines", "target")
    for mask in (MASK, RAGGED):
        value = F.max_sensitivity(method.attribute, *(DATA[name] for name in names), feature_mask=mask, n_perturb_samples=2)
        assert value.isfinite()


@masks
def test_parameter_randomisation(mask: Tensor | None) -> None:
    seen: list[nn.Module] = []

    def method(module: nn.Module) -> Any:
        seen.append(module)
        return lambda inputs, target: repeated(Saliency(module).attribute(inputs, target), mask)

    states = []

    def recording(module: nn.Module) -> Any:
        states.append([parameter.detach().clone() for parameter in module.parameters()])
        made = method(module)
        results.append(made(DATA["inputs"], DATA["target"]))
        return made

    results: list[Tensor] = []
    values = F.parameter_randomisation(
        recording, MODEL, DATA["inputs"], target=DATA["target"], feature_mask=mask, reduction="none"
    )
    assert len(results) == 3 and all(module is not MODEL for module in seen)
    changed = [[not torch.equal(a, b) for a, b in zip(states[0], state, strict=True)] for state in states]
    assert changed == [[False] * 4, [False, False, True, True], [True] * 4]
    for row in range(8):
        first, *others = (by_player(result, mask, row) for result in results)
        check(values[row], np.mean([stats.spearmanr(first, other).statistic for other in others]))


WEIGHTS = torch.tensor([[5.0, -3.0, 2.0], [1.0, 0.5, -4.0]])


def linear(inputs: Tensor) -> Tensor:
    return (inputs * WEIGHTS).sum((1, 2))


def test_directions() -> None:
    """The exact attributions of a linear model beat random ones, which beat the exact ones inverted."""
    x = torch.rand(64, 2, 3, generator=torch.Generator().manual_seed(0)) + 0.5
    exact = x * WEIGHTS
    random = 3 * torch.randn(64, 2, 3, generator=torch.Generator().manual_seed(1))
    higher = [F.insertion_auc, F.comprehensiveness, F.faithfulness_correlation]
    lower = [F.deletion_auc, F.sufficiency, F.infidelity]
    for function in higher + lower:
        scores = [function(linear, a, x).item() * (1 if function in higher else -1) for a in (exact, random, -exact)]
        assert scores[0] > scores[1] > scores[2], function
    for function in (F.rank_correlation, F.top_k_agreement):
        kwargs = {"k": 3, "kind": "sign"} if function is F.top_k_agreement else {}
        scores = [function(a, exact, **kwargs).item() for a in (exact, random, -exact)]
        assert scores[0] == pytest.approx(1) and scores[0] > scores[1] > scores[2]
    assert F.attribution_error(exact, exact) == 0 and F.attribution_error(0 * exact, exact) == 1
    assert F.attribution_error(-exact, exact) == pytest.approx(4)
    assert F.faithfulness_correlation(linear, exact, x) == pytest.approx(1, abs=1e-4)
    assert F.infidelity(linear, exact, x) < 1e-6 and F.completeness_error(linear, exact, x) < 1e-5
    assert F.completeness_error(linear, -exact, x) > 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=5, max_size=5), min_size=2, max_size=2), st.integers(1, 5))
def test_bounds(rows: list[list[int]], k: int) -> None:
    first, second = torch.tensor(rows).float().unsqueeze(1)
    assert 0 <= F.sparseness(first) <= 1 - 1 / 5 + 1e-6
    assert 0 <= F.complexity(first) <= math.log(5) + 1e-6
    assert -1 <= F.rank_correlation(first, second) <= 1
    agreements = {
        kind: F.top_k_agreement(first, second, k=k, kind=kind) for kind in ("feature", "rank", "sign", "signed_rank")
    }
    assert 0 <= agreements["signed_rank"] <= min(agreements["rank"], agreements["sign"])
    assert max(agreements["rank"], agreements["sign"]) <= agreements["feature"] <= 1
    relevant = torch.tensor([[True, False, True, False, False]])
    assert 0 <= F.relevance_rank_accuracy(first, relevant) <= 1
    assert F.rank_correlation(first, 2 * first + 1) in (0, pytest.approx(1, abs=1e-5))
    assert F.top_k_agreement(first, first, k=k, kind="signed_rank") == 1


def test_constant_and_empty_rows() -> None:
    zeros, ones = torch.zeros(1, 4), torch.ones(1, 4)
    assert F.sparseness(zeros) == 0 and F.complexity(zeros) == pytest.approx(math.log(4))
    assert F.sparseness(ones) == pytest.approx(0, abs=1e-6) and F.complexity(ones) == pytest.approx(math.log(4))
    assert F.rank_correlation(ones, torch.arange(4.0).unsqueeze(0)) == 0
    assert F.faithfulness_correlation(lambda x: 0.3 + 0 * x.sum(1), torch.rand(1, 4), ones) == 0
    assert F.attribution_error(zeros, zeros, reduction="none") == 0
    assert F.attribution_error(ones, zeros, reduction="none") == torch.inf
