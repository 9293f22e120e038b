"""What the shipped weights are worth, on random nets against exact answers: methods that only agree with themselves fail."""

import subprocess
import sys
import textwrap

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from captum_meta.attr import MetaGradientShap, MetaIntegratedGradients, MetaKernelShap, _learner
from captum_meta.estimators import all_coalitions, shapley_values
from captum_meta.functional import attribution_error
from captum_meta.learners import load_learner
from captum_meta.nn.error_head import shipped_error_head

N_PLAYERS = 8


def net(seed: int, probability: bool) -> nn.Module:
    """A net with weights three times as large as usual, so that it is far from linear."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Linear(N_PLAYERS, 24), nn.ReLU(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 3))
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.mul_(2.0)
    return (nn.Sequential(layers, nn.Softmax(1)) if probability else layers).eval()


def rows(seed: int) -> Tensor:
    return torch.randn(12, N_PLAYERS, generator=torch.Generator().manual_seed(seed))


def exact(model: nn.Module, x: Tensor) -> Tensor:
    members = all_coalitions(N_PLAYERS)
    with torch.no_grad():
        return shapley_values(torch.stack([model(torch.where(members, row, 0.0))[:, 1] for row in x]))


def errors(explain: "dict[str, object]") -> dict[str, Tensor]:
    """Relative squared errors of each method, over eight nets."""
    return {
        name: torch.stack([method(net(seed, seed % 2 == 0), rows(seed)) for seed in range(8)])  # type: ignore[operator]
        for name, method in explain.items()
    }


def test_more_is_known_than_the_training_free_rules_say() -> None:
    def learned(n_samples: int) -> object:
        def error(model: nn.Module, x: Tensor) -> Tensor:
            values = MetaKernelShap(model, learner="zero-shot").attribute(x, target=1, n_samples=n_samples)
            return attribution_error(values, exact(model, x))

        return error

    def border_mean(model: nn.Module, x: Tensor) -> Tensor:
        singles = torch.eye(N_PLAYERS, dtype=torch.bool)
        with torch.no_grad():
            both = torch.stack(
                [
                    (model(torch.where(singles, row, 0.0)) - model(torch.zeros(1, N_PLAYERS)))[:, 1]
                    + (model(row[None]) - model(torch.where(singles, 0.0, row)))[:, 1]
                    for row in x
                ]
            )
            total = (model(x) - model(torch.zeros_like(x)))[:, 1]
        half = both / 2
        return attribution_error(half + ((total - half.sum(1)) / N_PLAYERS)[:, None], exact(model, x))

    def gradient_mean(model: nn.Module, x: Tensor) -> Tensor:
        gradients = [
            torch.autograd.grad(model(z)[:, 1].sum(), z)[0] for z in (x.clone().requires_grad_(), (0 * x).requires_grad_())
        ]
        half = x * (gradients[0] + gradients[1]) / 2
        with torch.no_grad():
            total = (model(x) - model(torch.zeros_like(x)))[:, 1]
        return attribution_error(half + ((total - half.sum(1)) / N_PLAYERS)[:, None], exact(model, x))

    found = errors(
        {
            "gradients": learned(0),
            "border": learned(16),
            "4M": learned(32),
            "8M": learned(64),
            "gradient mean": gradient_mean,
            "border mean": border_mean,
        }
    )
    assert found["gradients"].mean() < found["gradient mean"].mean() / 2
    assert found["border"].mean() < found["border mean"].mean()
    assert found["4M"].mean() < found["border"].mean() and found["8M"].mean() < found["4M"].mean()


def test_sixteen_explained_rows_do_not_harm() -> None:
    for seed in range(6):
        model, x = net(seed, seed % 2 == 0), rows(seed)
        attr = MetaKernelShap(model)
        before = attribution_error(attr.attribute(x, target=1, n_samples=0), exact(model, x))
        attr.adapt(torch.randn(16, N_PLAYERS, generator=torch.Generator().manual_seed(99)), target=1)
        after = attribution_error(attr.attribute(x, target=1, n_samples=0), exact(model, x))
        assert after < 1.2 * before


@pytest.mark.parametrize("n_steps", [3, 5])
def test_paths_beat_captum_at_the_same_number_of_gradients(n_steps: int) -> None:
    ours, theirs = [], []
    for seed in range(8):
        model, x = net(seed, seed % 2 == 0), rows(seed)
        right = IntegratedGradients(model).attribute(x, target=1, n_steps=400)
        ours.append(attribution_error(MetaIntegratedGradients(model).attribute(x, target=1, n_steps=n_steps), right))
        theirs.append(attribution_error(IntegratedGradients(model).attribute(x, target=1, n_steps=n_steps), right))
    assert torch.stack(ours).mean() < 0.9 * torch.stack(theirs).mean()


def test_gradient_shap_is_exact_for_linear_models_and_converges_for_others() -> None:
    x, baselines = rows(0), rows(1) + 1
    weights = torch.arange(1.0, N_PLAYERS + 1)
    values = MetaGradientShap(lambda z: z @ weights).attribute(x, baselines, n_samples=2)
    assert torch.allclose(values, weights * (x - baselines.mean(0)), atol=1e-4)
    model = net(0, False)
    pairs = [IntegratedGradients(model).attribute(x, row[None].expand_as(x), target=1, n_steps=100) for row in baselines]
    many = MetaGradientShap(model).attribute(x, baselines, n_samples=2000, target=1)
    few = MetaGradientShap(model).attribute(x, baselines, n_samples=5, target=1)
    expected = torch.stack(pairs).mean(0)
    assert attribution_error(many, expected) < 0.01
    assert attribution_error(few, expected) < 1.0


def test_loading_weights_leaves_the_global_random_state_alone() -> None:
    state = torch.get_rng_state()
    load_learner("zero-shot")
    shipped_error_head.__wrapped__(torch.device("cpu"), torch.float32)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", [None, "zero-shot"])
def test_weights_are_read_once_and_whoever_changes_them_has_his_own(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = net(0, False), rows(0)
    first, second = (MetaKernelShap(model, learner=name) for _ in range(2))
    before = first.attribute(x, target=1)
    loads: list[object] = []
    monkeypatch.setattr(_learner, "load_learner", lambda *given: loads.append(given) or load_learner(*given))
    assert torch.equal(MetaKernelShap(model, learner=name).attribute(x, target=1), before)
    assert not loads
    assert first.learner is first.learner is not second.learner
    for parameter in first.learner.parameters():
        parameter.mul_(1.5)
    assert not torch.allclose(first.attribute(x, target=1), before, rtol=1e-3)
    for other in (second, MetaKernelShap(model, learner=name)):
        assert torch.equal(other.attribute(x, target=1), before)
    assert len(loads) == 2


def test_adapting_leaves_shared_weights_alone() -> None:
    model, x = net(0, False), rows(0)
    for name in ("feature-maml", "surrogate-maml", "surrogate"):
        before = MetaKernelShap(model, learner=name).attribute(x, target=1)
        adapted = MetaKernelShap(model, learner=name).adapt(rows(1), target=1).attribute(x, target=1)
        assert not torch.equal(adapted, before)
        assert torch.equal(MetaKernelShap(model, learner=name).attribute(x, target=1), before)


def test_first_calls_import_no_compiler() -> None:
    code = """
        import sys, torch
        from captum_meta.attr import MetaGradientShap, MetaIntegratedGradients, MetaKernelShap, MetaShapleyValueSampling
        model, x = torch.nn.Linear(4, 2), torch.eye(6, 4)
        kernel = MetaKernelShap(model)
        kernel.attribute(x, target=0, return_error_estimate=True)
        kernel.attribute(x, target=0, background=x[:3], n_samples=8)
        kernel.interactions(x, target=0, n_samples=8)
        kernel.adapt(x, target=0).attribute(x, target=0)
        MetaShapleyValueSampling(model).attribute(x, target=0)
        for steps in (None, 4, 10):
            MetaIntegratedGradients(model).attribute(x, target=0, n_steps=steps)
        MetaGradientShap(model).attribute(x, x, target=0)
        MetaKernelShap(model, memory=32).attribute(torch.arange(128.0).reshape(32, 4).sin(), target=0)
        assert "torch._dynamo" not in sys.modules
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], check=True)
