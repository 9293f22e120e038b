"""Calibrated attributions: bounds that hold, rows that go on, mistakes that are named, models of odd forms."""

import copy
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from captum.attr import (
    Attribution,
    FeatureAblation,
    GradientShap,
    IntegratedGradients,
    KernelShap,
    NoiseTunnel,
    Saliency,
    ShapleyValueSampling,
)
from torch import Tensor, nn

from captum_meta.attr import (
    CalibratedAttribution,
    MetaAttribution,
    MetaGradientShap,
    MetaIntegratedGradients,
    MetaKernelShap,
    MetaLayerIntegratedGradients,
    MetaShapleyValueSampling,
)
from captum_meta.attr._calibration import Calibration
from captum_meta.attr._calibration_warnings import warn_of_wrong_estimates
from captum_meta.attr._compared import Compared, Errors, Lengths
from captum_meta.functional import rank_correlation
from tests.attr.conftest import CountingModel, untrained

pytestmark = pytest.mark.usefixtures("few_trees")
M = 6


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, M, generator=torch.Generator().manual_seed(seed))


def model(x: Tensor) -> Tensor:
    return torch.stack([(2 * x[:, 0] * x[:, 1] * x[:, 2]).tanh() + x.sum(1), x.prod(1)], dim=1)


def kernel(**arguments: Any) -> CalibratedAttribution:
    return CalibratedAttribution(MetaKernelShap(model, learner=untrained("shapley")), **arguments)


def exact(x: Tensor) -> Tensor:
    return MetaKernelShap(model, learner=untrained("shapley")).attribute(x, target=0, n_samples=2**M - 2)


def wide(x: Tensor) -> Tensor:
    """Nine players, of whom 16M coalitions leave something open."""
    return (3 * x[:, :3].prod(1)).tanh() + (x[:, 3:].sum(1) * 2).tanh() + x.prod(1)


def wide_rows(count: int, seed: int) -> Tensor:
    return torch.randn(count, 9, generator=torch.Generator().manual_seed(seed))


def exact_of_wide(x: Tensor) -> Tensor:
    return MetaKernelShap(wide).attribute(x, n_samples=2**9 - 2)


@pytest.fixture(scope="module")
def wider() -> CalibratedAttribution:
    return CalibratedAttribution(MetaKernelShap(wide)).calibrate(wide_rows(90, seed=0), alpha=0.2)


@pytest.fixture(scope="module")
def calibrated() -> CalibratedAttribution:
    return kernel().calibrate(rows(120), target=0, alpha=0.2)


class TestBounds:
    def test_answers_are_the_methods(self, calibrated: CalibratedAttribution) -> None:
        x = rows(5, seed=1)
        wanted = MetaKernelShap(model, learner=untrained("shapley")).attribute(x, target=0)
        assert torch.equal(calibrated.attribute(x, target=0), wanted)
        tuples, bounds = calibrated.attribute((x,), target=0, return_error_bound=True)
        assert isinstance(tuples, tuple) and torch.equal(tuples[0], wanted)
        assert bounds.shape == (5,)

    def test_the_right_share_of_new_rows_is_within_each_kind_of_bound(self, calibrated: CalibratedAttribution) -> None:
        x = rows(400, seed=2)
        truth = exact(x)
        values, distance = calibrated.attribute(x, target=0, return_error_bound=True)
        error = (values - truth).norm(dim=1)
        _, relative = calibrated.attribute(x, target=0, return_error_bound="relative")
        _, widths = calibrated.attribute(x, target=0, return_error_bound="players")
        assert widths.shape == values.shape
        held = {
            "distance": error <= distance,
            "relative": error / truth.norm(dim=1) <= relative,
            "players": ((values - truth).abs() <= widths).all(1),
        }
        # 80 rows calibrate: coverage varies with a deviation of .045 between calibrations, and .02 between sets of 400 rows.
        for name, kept in held.items():
            assert abs(float(kept.double().mean()) - 0.8) < 0.15, name

    def test_the_scale_is_a_quantile_of_rows_that_did_not_teach(self, calibrated: CalibratedAttribution) -> None:
        known = calibrated.calibration
        assert known is not None and int(known.fitted.sum()) == 40
        ratios = (known.rows.errors.distance / known.scores)[~known.fitted, 0]
        assert float(known.scale("distance")) == sorted(ratios.tolist())[65 - 1]  # ceil(81 * .8) of 80
        _, bounds = calibrated.attribute(rows(3, seed=1), target=0, return_error_bound=True)
        assert (bounds > 0).all()

    def test_bounds_scale_with_the_model(self) -> None:
        x, attr = rows(40), kernel().calibrate(rows(30, seed=3), target=0)
        hundred = CalibratedAttribution(MetaKernelShap(lambda x: 128 * model(x), learner=untrained("shapley")))
        _, large = hundred.calibrate(rows(30, seed=3), target=0).attribute(x, target=0, return_error_bound=True)
        _, small = attr.attribute(x, target=0, return_error_bound=True)
        assert torch.allclose(large, 128 * small, rtol=1e-3)

    def test_difficult_rows_have_larger_bounds(self, wider: CalibratedAttribution) -> None:
        x = wide_rows(60, seed=4)
        values, bounds = wider.attribute(x, return_error_bound=True)
        errors = (values - exact_of_wide(x)).norm(dim=1)
        assert rank_correlation(bounds[None], errors[None]) > 0.4


class TestTolerance:
    def test_accepted_rows_are_within_the_tolerance_and_the_others_are_the_teachers(
        self, wider: CalibratedAttribution
    ) -> None:
        x = wide_rows(60, seed=1)
        truth = exact_of_wide(x)
        tolerance = 0.05 * float(wider.attribute(x, return_error_bound=True)[1].median())
        values, bounds = wider.attribute(x, tolerance=tolerance, return_error_bound=True)
        assert (bounds <= tolerance * (1 + 1e-6)).all()
        accepted = bounds > 0
        assert 10 < int(accepted.sum()) < 60
        assert torch.allclose(values[~accepted], truth[~accepted], atol=1e-5)
        missed = (values - truth).norm(dim=1)[accepted] > bounds[accepted]
        assert float(missed.double().mean()) < 0.45  # .2, with a deviation of .12 where some 22 rows pass of both kinds

    def test_a_looser_tolerance_costs_less(self) -> None:
        counting = CountingModel(M)
        attr = CalibratedAttribution(MetaKernelShap(counting, learner=untrained("shapley")))
        attr.calibrate(rows(90), target=0, alpha=0.2)
        _, bounds = attr.attribute(rows(40, seed=6), target=0, return_error_bound=True)
        costs = []
        for factor in (4.0, 0.5, 1e-9):
            counting.rows = 0
            attr.attribute(rows(40, seed=6), target=0, tolerance=factor * float(bounds.median()))
            costs.append(counting.rows)
        assert costs[0] < costs[1] < costs[2]

    def test_a_row_does_not_depend_on_the_others(self, calibrated: CalibratedAttribution) -> None:
        x = rows(8, seed=7)
        values, bounds = calibrated.attribute(x, target=0, tolerance=0.05, return_error_bound=True)
        for row in (0, 5):
            alone, bound = calibrated.attribute(x[row : row + 1], target=0, tolerance=0.05, return_error_bound=True)
            assert torch.allclose(alone[0], values[row], atol=1e-5)
            assert torch.allclose(bound[0], bounds[row], rtol=1e-3)

    def test_too_few_rows_for_a_tolerance(self) -> None:
        attr = kernel().calibrate(rows(30), target=0, alpha=0.2)
        with pytest.raises(ValueError, match="pass at least 60 rows"):
            attr.attribute(rows(3), target=0, tolerance=0.1)
        rarely = kernel().calibrate(rows(66), target=0, alpha=0.05)
        with pytest.raises(ValueError, match="pass at least 118 rows"):
            rarely.attribute(rows(3), target=0, tolerance=0.1)

    @pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan")])
    def test_a_tolerance_is_positive(self, calibrated: CalibratedAttribution, tolerance: float) -> None:
        with pytest.raises(ValueError, match="tolerance must be positive"):
            calibrated.attribute(rows(3), target=0, tolerance=tolerance)


METHODS: dict[str, tuple[Callable[[], Attribution], Callable[[], Attribution] | None, dict[str, Any], dict[str, Any]]] = {
    "IntegratedGradients": (lambda: IntegratedGradients(model), lambda: IntegratedGradients(model), {"n_steps": 6}, {}),
    "ShapleyValueSampling": (
        lambda: ShapleyValueSampling(model),
        lambda: MetaShapleyValueSampling(model),
        {"n_samples": 2},
        {"n_samples": 11},
    ),
    "GradientShap": (
        lambda: GradientShap(model),
        lambda: GradientShap(model),
        {"n_samples": 4},
        {"n_samples": 100},
    ),
    "Saliency": (lambda: Saliency(model), lambda: NoiseTunnel(Saliency(model)), {}, {"nt_samples": 4}),
    "MetaIntegratedGradients": (lambda: MetaIntegratedGradients(model), None, {}, {}),
    "MetaIntegratedGradients, 4 steps": (lambda: MetaIntegratedGradients(model), None, {"n_steps": 4}, {}),
    "MetaShapleyValueSampling": (lambda: MetaShapleyValueSampling(model), None, {}, {}),
    "MetaShapleyValueSampling, 3": (lambda: MetaShapleyValueSampling(model), None, {"n_samples": 3}, {}),
    "MetaKernelShap, 20": (lambda: MetaKernelShap(model), None, {"n_samples": 20, "perturbations_per_eval": 4}, {}),
    "MetaKernelShap, gradients": (lambda: MetaKernelShap(model), None, {"n_samples": 0}, {}),
    "MetaGradientShap": (lambda: MetaGradientShap(model), lambda: GradientShap(model), {}, {"n_samples": 50}),
    "MetaAttribution": (
        lambda: MetaAttribution(model, FeatureAblation(model)).adapt(rows(8, seed=9), target=0),
        None,
        {},
        {},
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_any_method_can_be_wrapped(name: str) -> None:
    make, teacher, arguments, further = METHODS[name]
    shared = {"baselines": rows(20, seed=8)} if "GradientShap" in name else {}
    x, method = rows(12, seed=1), make()
    attr = CalibratedAttribution(method, None if teacher is None else teacher())
    attr.calibrate(rows(60), target=0, alpha=0.2, teacher_kwargs=further, **shared, **arguments)
    with torch.random.fork_rng():
        wanted = method.attribute(x, target=0, **shared, **arguments)
    values, bounds = attr.attribute(x, target=0, return_error_bound=True, **shared)
    if not isinstance(method, GradientShap) or isinstance(method, MetaGradientShap):  # Captum's draws from numpy's stream
        assert torch.equal(values, wanted)
    assert bounds.shape == (12,) and bounds.isfinite().all()
    values, widths = attr.attribute(x, target=0, return_error_bound="players", **shared)
    assert widths.shape == values.shape
    _, bounds = attr.attribute(x, target=0, tolerance=0.01, return_error_bound=True, **shared)
    assert (bounds <= 0.01 * (1 + 1e-6)).all()


def test_layers_can_be_wrapped() -> None:
    net = nn.Sequential(nn.Linear(M, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    method = MetaLayerIntegratedGradients(net, net[1])
    attr = CalibratedAttribution(method).calibrate(rows(60), target=1, alpha=0.2)
    values, widths = attr.attribute(rows(4, seed=1), target=1, return_error_bound="players")
    assert values.shape == widths.shape == (4, 4)
    method.adapt(rows(5, seed=3), target=1)
    with pytest.raises(ValueError, match=r"adapted to the calibration rows \[0, 1\]"):
        attr.calibrate(torch.cat([rows(5, seed=3)[3:], rows(58)]), target=1, alpha=0.2)


def test_groups_are_counted_once() -> None:
    mask = torch.tensor([[0, 0, 0, 1, 2, 2]])
    attr = kernel().calibrate(rows(30), target=0, feature_mask=mask, attributions=torch.zeros(30, M))
    grouped = MetaKernelShap(model, learner=untrained("shapley")).attribute(rows(30), target=0, feature_mask=mask)
    known = attr.calibration
    assert known is not None
    assert torch.allclose(known.rows.errors.distance[:, 0], grouped[:, [0, 3, 4]].double().norm(dim=1))


@pytest.mark.usefixtures("unchecked")
class TestMistakes:
    def test_too_few_rows_for_an_alpha(self) -> None:
        for count, alpha, needed in ((8, 0.1, 9), (18, 0.05, 19), (3, 0.2, 4)):
            with pytest.raises(ValueError, match=f"needs at least {needed}"):
                kernel().calibrate(rows(count), target=0, alpha=alpha)
            kernel().calibrate(rows(needed), target=0, alpha=alpha)

    @pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
    def test_alpha_is_a_share(self, alpha: float) -> None:
        with pytest.raises(ValueError, match="alpha must be between 0 and 1"):
            kernel().calibrate(rows(20), target=0, alpha=alpha)

    def test_no_rows(self, calibrated: CalibratedAttribution) -> None:
        with pytest.raises(ValueError, match="no rows"):
            kernel().calibrate(rows(0), target=0)
        with pytest.raises(IndexError, match="no rows"):
            calibrated.attribute(rows(0), target=0)

    def test_nothing_calibrated(self) -> None:
        with pytest.raises(RuntimeError, match="call calibrate"):
            kernel().attribute(rows(2), target=0)

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda attr: pickle.loads(pickle.dumps(attr)), lambda attr: attr])
    def test_rows_used_by_adapt_are_refused_by_what_they_are(self, copied: Callable[[Any], Any]) -> None:
        x = rows(30)
        method = copied(MetaKernelShap(model, learner="ridge").adapt(x[:4].double().clone(), target=1))
        attr = CalibratedAttribution(method)
        with pytest.raises(ValueError, match=r"adapted to the calibration rows \[27\]"):
            attr.calibrate(torch.cat([rows(27, seed=2), x[3:4], x[20:22]]), target=0)
        attr.calibrate(x[4:], target=0)
        method.adapt(rows(3, seed=5), target=0)
        with pytest.raises(RuntimeError, match="adapted after calibrate"):
            attr.attribute(x, target=0)

    def test_a_teacher_is_needed(self) -> None:
        attr = CalibratedAttribution(Saliency(model))
        with pytest.raises(ValueError, match="Saliency has no reference of its own: pass teacher="):
            attr.calibrate(rows(20), target=0)
        attr.calibrate(rows(70), target=0, alpha=0.2, attributions=rows(70, seed=3))
        assert attr.attribute(rows(2), target=0, return_error_bound=True)[1].isfinite().all()
        with pytest.raises(ValueError, match="Saliency has no reference of its own: pass teacher="):
            attr.attribute(rows(2), target=0, tolerance=1e9)  # before it is known whether a row needs one

    @pytest.mark.parametrize(
        ("shape", "message"), [((29, M), r"\[\(29, 6\)\] for 30 rows"), ((30, 1), "1 numbers per row and the method's 6")]
    )
    def test_given_attributions_are_of_these_rows_and_players(self, shape: tuple[int, int], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            kernel().calibrate(rows(30), target=0, attributions=torch.zeros(shape))

    def test_rows_of_another_size(self) -> None:
        attr = CalibratedAttribution(MetaKernelShap(lambda x: x.prod(1))).calibrate(rows(30), alpha=0.2)
        with pytest.raises(ValueError, match="The rows have 4 numbers each and the calibration rows 6"):
            attr.attribute(rows(3)[:, :4])

    def test_players_of_another_number(self) -> None:
        attr = CalibratedAttribution(MetaKernelShap(lambda x: x.prod(1))).calibrate(rows(90), alpha=0.2)
        with pytest.raises(ValueError, match="The rows have 3 players and the calibration rows 6: pass the feature_mask"):
            attr.attribute(rows(3), feature_mask=torch.tensor([[0, 0, 1, 1, 2, 2]]))

    def test_another_model_under_the_wrapper(self) -> None:
        attr = kernel().calibrate(rows(30), target=0)
        attr.forward_func = lambda x: 2 * model(x)
        with pytest.raises(RuntimeError, match="forward_func is not that of the wrapped method"):
            attr.attribute(rows(2), target=0)

    def test_background_rows_need_a_teacher(self) -> None:
        with pytest.raises(ValueError, match="MetaKernelShap with background rows has no reference of its own"):
            kernel().calibrate(rows(30), target=0, background=rows(4, seed=3))

    def test_what_cannot_be_calibrated(self, calibrated: CalibratedAttribution) -> None:
        with pytest.raises(ValueError, match="return_error_estimate cannot be calibrated"):
            kernel().calibrate(rows(20), target=0, return_error_estimate=True)
        with pytest.raises(ValueError, match="return_error_bound is 'length'"):
            calibrated.attribute(rows(2), target=0, return_error_bound="length")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="pass a Captum method"):
            CalibratedAttribution(MetaKernelShap)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="pass a Captum method"):
            CalibratedAttribution(None)  # type: ignore[arg-type]

    def test_a_method_with_memory_changes_with_every_call(self) -> None:
        with pytest.raises(ValueError, match="pass one with memory=0"):
            CalibratedAttribution(MetaKernelShap(model, memory=64)).calibrate(rows(20), target=0)

    def test_the_teachers_answers_must_be_finite(self) -> None:
        wrong = torch.zeros(20, M)
        wrong[7, 2] = torch.nan
        with pytest.raises(ValueError, match=r"of the rows \[7\] are not finite"):
            kernel().calibrate(rows(20), target=0, attributions=wrong)


class TestWarnings:
    def test_rows_unlike_the_calibration_rows(self, calibrated: CalibratedAttribution) -> None:
        with pytest.warns(UserWarning, match="The rows 0, 1, 2 are unlike the calibration rows"):
            calibrated.attribute(rows(3, seed=1) + 8, target=0)
        with pytest.warns(UserWarning, match="The rows 0 are unlike"):
            calibrated.attribute(rows(1, seed=1) + 8, target=0)

    @pytest.mark.parametrize("count", [1, 40])
    def test_rows_like_them_give_few_false_alarms(self, count: int) -> None:
        """Over calibrations and new rows both."""
        generator, trials, alarms = torch.Generator().manual_seed(count), 1000, 0
        for _ in range(trials):
            content = torch.randn(40 + count, 3, generator=generator, dtype=torch.float64).exp()
            known = contents(content[:40])
            alarms += bool(known.unlike(content[40:]))
        assert 0.005 * trials < alarms <= (0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5) * trials

    @pytest.mark.parametrize(("beyond", "warns"), [(0, False), (6, False), (10, False), (11, True), (60, True)])
    def test_a_model_unlike_the_synthetic_ones(self, beyond: int, warns: bool) -> None:
        """Of 60 rows 6 are to be expected beyond an estimate; P(10 or more) is .07 and P(11 or more) .03."""
        rows_known = contents(torch.randn(60, 3, dtype=torch.float64)).rows
        distance = torch.where(torch.arange(60) < beyond, 2.0, 0.5).double().unsqueeze(1)
        wrong = replace(rows_known, errors=Errors(distance, distance, distance))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_wrong_estimates(wrong)  # all estimates are 1
        assert [f"holds for {1 - beyond / 60:.0%}" in str(one.message) for one in caught] == [True] * warns


def contents(content: Tensor) -> Calibration:
    """The calibration of rows of which only their content is known."""
    nothing = torch.zeros(len(content), 1, dtype=torch.float64)
    errors, lengths = Errors(nothing, nothing, nothing), Lengths(nothing, nothing)
    return Calibration.of(
        Compared(errors, lengths, nothing.unsqueeze(2).expand(-1, -1, 2), nothing[:, :, None], content), 0.3, M
    )


ODD: dict[str, tuple[Callable[[Tensor], Tensor], int, dict[str, Any]]] = {
    "constant": (lambda x: torch.full_like(x[:, 0], 3.0), M, {}),
    "constant, no gradient": (lambda x: torch.zeros(len(x)), M, {}),
    "one player": (lambda x: x[:, 0].exp(), 1, {}),
    "one group": (lambda x: x.prod(1), M, {"feature_mask": torch.zeros(1, M, dtype=torch.long)}),
    "two players": (lambda x: x.prod(1), 2, {}),
    "1,024 players": (lambda x: (x.sum(1) / 32).tanh(), 1024, {"n_samples": 0}),
    "linear": (lambda x: x.sum(1), M, {}),
    "very small": (lambda x: 1e-30 * x.prod(1), M, {}),
    "very large": (lambda x: 1e30 * x.prod(1), M, {}),
    "steps": (lambda x: (x > 0).all(1).float() + (x[:, 0] > 1).float(), M, {}),
    "rows act on each other": (lambda x: (x - x.mean(0)).tanh().prod(1) + x.sum(1), M, {}),
    "one batch alone": (lambda x: x.prod(1) * (torch.arange(60.0) + 1), M, {}),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_models(name: str) -> None:
    odd, width, arguments = ODD[name]
    mask = {"feature_mask": arguments["feature_mask"]} if "feature_mask" in arguments else {}
    budget = {"n_samples": arguments["n_samples"]} if "n_samples" in arguments else {}
    x = torch.randn(60, width, generator=torch.Generator().manual_seed(0))
    other = torch.randn(60, width, generator=torch.Generator().manual_seed(1))
    truth = {"attributions": x * odd(x).unsqueeze(1) / width} if width > 1000 else {}
    attr = CalibratedAttribution(MetaKernelShap(odd))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "forward_func|The model has no gradient|The method's own error")
        attr.calibrate(x, alpha=0.2, **mask, **budget, **truth)
        values, bounds = attr.attribute(other, return_error_bound=True, **mask)
        assert values.shape == other.shape and bounds.shape == (60,)
        assert values.isfinite().all() and bounds.isfinite().all() and (bounds >= 0).all()
        if not truth:
            tolerance = float(bounds.median()) / 3 + 1e-12
            _, bounds = attr.attribute(other, tolerance=tolerance, return_error_bound=True, **mask)
            assert (bounds <= tolerance * (1 + 1e-6)).all()
    if "constant" in name:
        assert (bounds < 1e-20).all()


def test_a_row_that_is_not_finite_has_no_bound_and_touches_no_other(calibrated: CalibratedAttribution) -> None:
    x = rows(5, seed=1)
    wanted, bounds = calibrated.attribute(x, target=0, return_error_bound=True)
    x[2, 3] = torch.nan
    for tolerance in (None, 100.0):
        with pytest.warns(UserWarning, match="not finite"):
            values, found = calibrated.attribute(x, target=0, return_error_bound=True, tolerance=tolerance)
        assert values[2].isnan().any() and found[2].isnan()
        assert torch.allclose(values[[0, 1, 3, 4]], wanted[[0, 1, 3, 4]], atol=1e-6)
    assert torch.allclose(bounds[[0, 1, 3, 4]], calibrated.attribute(x, target=0, return_error_bound=True)[1][[0, 1, 3, 4]])


def test_a_method_that_is_not_finite_at_calibration_rows_misses_there() -> None:
    x = rows(20)
    x[4, 0] = torch.nan
    attr = kernel().calibrate(x, target=0, attributions=torch.zeros(20, M))
    assert attr.calibration is not None
    ratios = attr.calibration.rows.errors.ratios("distance", attr.calibration.rows.lengths, attr.calibration.scores)
    assert ratios.isinf().any(1).tolist() == [row == 4 for row in range(20)]


def test_one_number_for_a_whole_batch_has_no_rows() -> None:
    with pytest.raises(ValueError, match="one number for the whole batch"):
        CalibratedAttribution(MetaKernelShap(lambda x: x.sum())).calibrate(rows(20))


def test_copies_and_pickles(calibrated: CalibratedAttribution) -> None:
    x = rows(4, seed=1)
    wanted = calibrated.attribute(x, target=0, return_error_bound=True)
    for other in (copy.deepcopy(calibrated), pickle.loads(pickle.dumps(calibrated))):
        for one, two in zip(other.attribute(x, target=0, return_error_bound=True), wanted, strict=True):
            assert torch.equal(one, two)


def test_the_random_state_stands_still() -> None:
    state = torch.get_rng_state()
    attr = CalibratedAttribution(KernelShap(model), ShapleyValueSampling(model)).calibrate(rows(9), target=0)
    attr.attribute(rows(2), target=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_teacher_that_samples_does_not_draw_what_the_method_draws() -> None:
    """The same method as its own teacher: their distance is the noise of two answers."""
    sampler = ShapleyValueSampling(model)
    attr = CalibratedAttribution(sampler, sampler).calibrate(
        rows(30), target=0, alpha=0.2, n_samples=4, teacher_kwargs={"n_samples": 4}
    )
    x = rows(60, seed=1)
    values, bounds = attr.attribute(x, target=0, return_error_bound=True)
    torch.manual_seed(5)
    others = sampler.attribute(x, target=0, n_samples=4)
    within = ((values - others).norm(dim=1) <= bounds).float().mean()
    assert bounds.min() > 0 and 0.55 < within < 1


@pytest.mark.parametrize("dtype", [torch.long, torch.bfloat16, torch.float64])
def test_inputs_of_other_types(dtype: torch.dtype) -> None:
    x = (3 * rows(150)).round().to(dtype)
    attr = CalibratedAttribution(MetaKernelShap(lambda z: wide(torch.cat([z, z[:, :3]], 1).float())))
    values, bounds = attr.calibrate(x[:90], alpha=0.2).attribute(x[90:], return_error_bound=True)
    truth = attr.method.attribute(x[90:], n_samples=62)
    assert values.dtype == bounds.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert 0.6 < ((values - truth).norm(dim=1) <= bounds + 1e-6).double().mean() < 1


def test_an_infinite_tolerance_accepts_and_a_second_calibration_starts_anew(calibrated: CalibratedAttribution) -> None:
    x = rows(4, seed=1)
    twice = kernel().calibrate(rows(70, seed=5), target=0, n_samples=12).calibrate(rows(120), target=0, alpha=0.2)
    for measure in (True, "players"):
        wanted = calibrated.attribute(x, target=0, return_error_bound=measure)
        for one, two in zip(twice.attribute(x, target=0, return_error_bound=measure), wanted, strict=True):
            assert torch.equal(one, two)
    values, bounds = calibrated.attribute(x, target=0, tolerance=float("inf"), return_error_bound=True)
    assert torch.equal(values, calibrated.attribute(x, target=0)) and (bounds > 0).all()


def test_noise_tunnel_takes_it(calibrated: CalibratedAttribution) -> None:
    assert NoiseTunnel(calibrated).attribute(rows(2), nt_samples=2, stdevs=0.1, target=0).shape == (2, M)
