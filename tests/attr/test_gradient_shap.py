"""Expected gradients: the estimator in the plainest way, what is evaluated, and how it compares with Captum's."""

from statistics import median_low

import pytest
import torch
from captum.attr import GradientShap
from torch import Tensor, nn

from captum_meta.attr import MetaGradientShap
from captum_meta.attr._draws import Draws
from captum_meta.attr.gradient_shap import distribution_of
from captum_meta.benchmark.peers import seeded
from captum_meta.functional import attribution_error
from tests.attr.conftest import untrained

X = torch.tensor([[1.0, -0.5, 2.0, 0.25], [0.5, 1.5, -1.0, 0.75], [-2.0, 0.0, 1.0, 1.25]], dtype=torch.float64)
B = torch.tensor([[0.5, 0.5, 0.0, -1.0], [-0.5, 1.0, 0.25, 0.0]], dtype=torch.float64)


def quadratic(x: Tensor, *weights: Tensor) -> Tensor:
    return x.square().sum(1) + x[:, 0] * x[:, 1] * (weights[0] if weights else 1.0)


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(8, 24), nn.Tanh() if seed % 2 else nn.ReLU(), nn.Linear(24, 3)]
    return nn.Sequential(*layers, nn.Softmax(1)) if seed % 3 else nn.Sequential(*layers)


def test_values_tend_to_expected_gradients() -> None:
    many = MetaGradientShap(quadratic).attribute(X, B, 20_000)
    expected = torch.zeros_like(X)
    for b in B:
        expected += (X.square() - b.square()) / 2
        for i, other in ((0, 1), (1, 0)):
            expected[:, i] += (X[:, i] - b[i]) * (X[:, other] + b[other]) / 4
    assert torch.allclose(many, expected, atol=0.02)


@pytest.mark.parametrize("n_samples", [3, 5, 12])
def test_half_a_standard_error_of_the_gap_is_shared_out_by_size(n_samples: int) -> None:
    one = B[:1]  # of one baseline each draw's product with the difference is known
    draws = Draws.made(*distribution_of(quadratic, X, one, 0.0, None, None), n_samples, 0)[0]
    values = MetaGradientShap(quadratic).attribute(X, one, n_samples)
    for row, found in enumerate(values):
        gradients = draws.gradients[row * n_samples : (row + 1) * n_samples]
        change = (quadratic(X[row : row + 1]) - quadratic(one)).item()
        plain = gradients.mean(0) * (X[row] - one[0])
        missed = [change - float(gradient @ (X[row] - one[0])) for gradient in gradients]
        middle = median_low(missed)
        allowed = 0.5 * 1.4826 * median_low([abs(one - middle) for one in missed]) / n_samples**0.5
        gap = min(max(change - float(plain.sum()), -allowed), allowed)
        assert abs(float(found.sum() - plain.sum()) - gap) < 1e-9
        torch.testing.assert_close(found - plain, gap * plain.abs() / plain.abs().sum())


@pytest.mark.parametrize("jump", [0.0, 1.0, 4.0])
def test_a_jump_of_f_is_not_shared_out(jump: float) -> None:
    model, generator = net(1), torch.Generator().manual_seed(0)
    x, baselines = (torch.randn(40, 8, generator=generator) for _ in range(2))
    weights = torch.randn(8, generator=generator) / 3

    def gated(x: Tensor) -> Tensor:
        return 3 * model(x)[:, 1] + jump * (x @ weights > 0.2)

    right = MetaGradientShap(lambda x: 3 * model(x)[:, 1]).attribute(x, baselines, 3000)
    ours = attribution_error(MetaGradientShap(gated).attribute(x, baselines), right)
    with seeded(0):
        theirs = attribution_error(GradientShap(gated).attribute(x, baselines), right)
    assert ours.mean() < 0.9 * theirs.mean()


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_takes_no_single_row_is_looked_at_with_all_of_them() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2)).train()
    x, baseline = torch.randn(8, 6), torch.randn(1, 6)
    assert MetaGradientShap(model).attribute(x, baseline, target=0).isfinite().all()


@pytest.mark.parametrize("stdevs", [0.0, 0.1])
@pytest.mark.parametrize("n_baselines", [2, 40])
def test_arguments_of_rows_stay_with_their_rows(stdevs: float, n_baselines: int) -> None:
    generator = torch.Generator().manual_seed(0)
    baselines = torch.randn(n_baselines, 4, generator=generator, dtype=torch.float64)
    weights, attr = torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64), MetaGradientShap(quadratic)
    options = {"n_samples": 4, "stdevs": stdevs, "return_convergence_delta": True}
    values, deltas = attr.attribute(X, baselines, additional_forward_args=weights, **options)
    for row, weight in enumerate(weights):
        alone = attr.attribute(X[row : row + 1], baselines, additional_forward_args=weight[None], **options)
        assert torch.allclose(alone[0][0], values[row]) and torch.allclose(alone[1], deltas.reshape(3, 4)[row])


def test_targets_of_rows_stay_with_their_rows() -> None:
    model, x, baselines = net(1), torch.randn(4, 8), torch.randn(3, 8)
    together = MetaGradientShap(model).attribute(x, baselines, target=[0, 2, 1, 2])
    for row, target in enumerate([0, 2, 1, 2]):
        alone = MetaGradientShap(model).attribute(x[row : row + 1], baselines, target=target)
        assert torch.allclose(alone[0], together[row], atol=1e-6)


def test_default_calls_are_twice_as_exact_as_captums() -> None:
    ratios = []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        x, baselines = (torch.randn(12, 8, generator=generator) for _ in range(2))
        model = net(seed)
        right = MetaGradientShap(model).attribute(x, baselines, 3000, target=1)
        ours, theirs = [], []
        for run in range(3):
            ours.append(attribution_error(MetaGradientShap(model).attribute(x, baselines, target=1, seed=run), right))
            with seeded(run):
                theirs.append(attribution_error(GradientShap(model).attribute(x, baselines, target=1), right))
        ratios.append(float(torch.stack(ours).mean() / torch.stack(theirs).mean()))
    assert max(ratios) < 1 and sum(ratios) / len(ratios) < 0.5


def test_a_learner_that_is_named_shares_out_the_gap() -> None:
    x, baselines, model = torch.randn(3, 8), torch.randn(5, 8), net(3)
    plain = MetaGradientShap(model).attribute(x, baselines, target=0)
    for learner in (untrained("path"), "zero-shot"):
        values = MetaGradientShap(model, learner=learner).attribute(x, baselines, target=0)
        assert torch.allclose(values.sum(1), plain.sum(1), atol=1e-5) and not torch.allclose(values, plain, atol=1e-5)


def test_rows_that_act_on_each_other_stop_together() -> None:
    def centred(x: Tensor) -> Tensor:
        return ((x - x.mean(0)) * x).tanh().sum(1)

    with pytest.warns(UserWarning, match="does not answer for each"):
        _, deltas = MetaGradientShap(centred).attribute(X, B, 20, tolerance=1e-9, return_convergence_delta=True)
    assert deltas.shape == (3 * 20,) and deltas.isfinite().all()
