"""Networks with weights of each task's own, of any form, against one task after another."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations

from captum_meta.learners import MAML, ImplicitMAML, LearnedOptimizer, MetaLearner, MetaSGD, MomentumMAML, Reptile
from captum_meta.nn import Explainer, PathExplainer, Prior, ShapleyExplainer
from captum_meta.optim import FirstOrder, call_per_task
from captum_meta.optim.per_task import Calling, batched_by_hand, mapped
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.types import Evidence, Explanations, ExplanationTask

T = M = N = 3
"""As many tasks as rows and players: what is broadcast along the wrong dimension still has a shape that fits."""


class Own(Explainer):
    """What every explainer here ends in: shares of the mean effect."""

    kind = "shapley"

    def prior(self, evidence: Evidence, hidden: Tensor | None = None) -> Prior:
        values = self.answer(evidence.effects)
        spread = torch.full_like(values, 1 / values.shape[-1])
        return Prior(values, spread, torch.ones_like(evidence.total), evidence.effects)

    def answer(self, effects: Tensor) -> Tensor:
        raise NotImplementedError


class PlayerWeights(Own):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(M))

    def answer(self, effects: Tensor) -> Tensor:
        return effects.mean(-1) * self.scale


class Channels(Own):
    def __init__(self) -> None:
        super().__init__()
        self.mixture = nn.Parameter(torch.full((5,), 0.2))
        self.shift = nn.Parameter(torch.zeros(()))

    def answer(self, effects: Tensor) -> Tensor:
        return (effects * self.mixture).sum(-1) + self.shift


class Convolution(Own):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(5, 1, 3, padding=1)

    def answer(self, effects: Tensor) -> Tensor:
        return self.conv(effects.flatten(0, -3).mT).squeeze(1).unflatten(0, effects.shape[:-2])


class Transposed(Own):
    """A linear layer whose weights are read otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 1)

    def answer(self, effects: Tensor) -> Tensor:
        return (effects @ self.linear.weight.T).squeeze(-1) + self.linear.bias


class ThinAttention(Own):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(5, 1, batch_first=True)
        self.out = nn.Linear(5, 1)

    def answer(self, effects: Tensor) -> Tensor:
        flat = effects.flatten(0, -3)
        attended = self.attention(flat, flat, flat, need_weights=True)[0]
        return self.out(attended).squeeze(-1).unflatten(0, effects.shape[:-2])


class Looking(Own):
    """Looks at values, which vmap cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 1)

    def answer(self, effects: Tensor) -> Tensor:
        factor = 2.0 if bool(effects.sum() > 0) else 0.5
        return self.linear(effects).squeeze(-1) * factor


class Normalised(Own):
    """A layer normalisation over two dimensions, half of whose weights are shared."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm((M, 5)), nn.Linear(5, 1)

    def answer(self, effects: Tensor) -> Tensor:
        return self.out(self.norm(effects)).squeeze(-1)


class Weighted(Own):
    def __init__(self) -> None:
        super().__init__()
        self.linear = parametrizations.weight_norm(nn.Linear(5, 1))

    def answer(self, effects: Tensor) -> Tensor:
        return self.linear(effects).squeeze(-1)


class Changed(ShapleyExplainer):
    """Inherits a network that is batched by hand, and changes it."""

    def __init__(self) -> None:
        super().__init__(16, 1)
        self.factor = nn.Parameter(torch.ones(M))

    def prior(self, evidence: Evidence, hidden: Tensor | None = None) -> Prior:
        prior = super().prior(evidence, hidden)
        return Prior(
            prior.attributions * self.factor, prior.spread, prior.scale, prior.features, prior.additive, prior.rates
        )


class Gain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(M, 1))

    def forward(self, values: Tensor) -> Tensor:
        return values * self.gain


def patched() -> Explainer:
    """One of ours with a part of one's own."""
    explainer = ShapleyExplainer(16, 1)
    explainer.norm = Gain()  # type: ignore[assignment]
    return explainer


OWN: dict[str, Callable[[], Explainer]] = {
    "a weight for each player": PlayerWeights,
    "a weight for each channel": Channels,
    "convolution": Convolution,
    "transposed weights": Transposed,
    "attention": ThinAttention,
    "looks at values": Looking,
    "norm of two dimensions": Normalised,
    "parametrised": Weighted,
    "inherits": Changed,
    "patched": patched,
}


def evidence(seed: int, rows: int = N) -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    effects = torch.randn(T, rows, M, 5, generator=generator, dtype=torch.float64)
    points = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64).expand(T, rows, 3)
    ones = torch.ones_like(effects, dtype=torch.bool)
    return Evidence(effects, ones, ones[..., 0], effects.mean(-1).sum(-1), torch.zeros_like(points), points)


def parameters_of(module: nn.Module, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value.detach() + 0.3 * torch.randn(T, *value.shape, generator=generator, dtype=value.dtype)
        for name, value in module.named_parameters()
    }


def one_by_one(module: nn.Module, parameters: dict[str, Tensor], rows: Evidence) -> list[Prior]:
    calling = Calling(module, "prior")
    own = [{f"module.{name}": value[task] for name, value in parameters.items()} for task in range(T)]
    return [functional_call(calling, own[task], (rows[task],)) for task in range(T)]


@pytest.mark.parametrize("fast", ["all", "the first", "the last"])
@pytest.mark.parametrize("name", OWN)
def test_any_network_is_called_as_each_task_calls_it(name: str, fast: str) -> None:
    torch.manual_seed(0)
    explainer = OWN[name]().double()
    assert not batched_by_hand(explainer) or name == "looks at values"
    parameters = parameters_of(explainer, 1)
    if fast != "all":
        chosen = list(parameters)[0 if fast == "the first" else -1]
        parameters = {chosen: parameters[chosen]}
    rows = evidence(2)
    together = call_per_task(explainer, "prior", parameters, rows)
    for task, alone in enumerate(one_by_one(explainer, parameters, rows)):
        assert torch.allclose(together.attributions[task], alone.attributions, rtol=1e-9, atol=1e-12)
        assert torch.allclose(together.spread[task], alone.spread, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [lambda: ShapleyExplainer(16, 2), lambda: PathExplainer(16, 1)], ids=["shapley", "path"])
def test_what_is_batched_by_hand_is_what_vmap_gives(make: Callable[[], Explainer]) -> None:
    torch.manual_seed(0)
    explainer = make()
    for value in explainer.parameters():
        nn.init.normal_(value, std=0.2)
    explainer = explainer.double()
    family = SyntheticTaskFamily(explainer.kind, tasks_per_batch=T, rows=4, seed=5)
    rows = (family[1] if explainer.kind == "shapley" else family.variants(5)[2]).to(dtype=torch.float64).evidence
    assert batched_by_hand(explainer)
    for number, (name, values) in enumerate(parameters_of(explainer, 1).items()):
        by_hand = call_per_task(explainer, "prior", {name: values}, rows)
        apart = mapped(Calling(explainer, "prior"), {f"module.{name}": values}, (rows, None))
        for field in ("attributions", "spread", "features"):
            assert torch.allclose(getattr(by_hand, field), getattr(apart, field), rtol=1e-7, atol=1e-9), (number, name)


@pytest.mark.parametrize("name", [name for name in OWN if name != "looks at values"])
@pytest.mark.parametrize("second_order", [True, False])
def test_maml_of_any_network_is_the_loop_over_tasks(name: str, second_order: bool) -> None:
    torch.manual_seed(0)
    explainer = OWN[name]().double()
    learner = MAML(explainer, steps=2, rate=0.1, hypergradient=None if second_order else FirstOrder()).double()
    support, query = (Explanations(rows, rows.effects.square().mean(-1)) for rows in (evidence(3, 4), evidence(4, 5)))
    tasks = ExplanationTask(support, query)
    learner.loss(tasks).backward()
    found = {n: p.grad.clone() for n, p in learner.named_parameters() if p.grad is not None}
    learner.zero_grad()
    torch.stack([learner.loss(tasks[task : task + 1]) for task in range(T)]).mean().backward()
    for parameter, value in learner.named_parameters():
        if value.grad is not None:
            assert torch.allclose(found[parameter], value.grad, rtol=1e-7, atol=1e-10), parameter
    together = answers(learner, tasks)
    for task in range(T):
        assert torch.allclose(together[task], answers(learner, tasks[task]), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("kind", [MAML, MetaSGD, MomentumMAML, ImplicitMAML, LearnedOptimizer, Reptile])
@pytest.mark.parametrize("name", ["a weight for each channel", "convolution"])
def test_every_gradient_learner_takes_any_network(kind: type[MAML], name: str) -> None:
    torch.manual_seed(0)
    learner = kind(OWN[name](), ("*",), 3).double()
    support = Explanations(evidence(3, 4), evidence(3, 4).effects.square().mean(-1))
    tasks = ExplanationTask(support, support)
    learner.loss(tasks).backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in learner.parameters())
    together = answers(learner, tasks)
    for task in range(T):
        assert torch.allclose(together[task], answers(learner, tasks[task]), rtol=1e-7, atol=1e-9)


def answers(learner: MetaLearner, tasks: ExplanationTask) -> Tensor:
    return learner.predict(learner.adapt(tasks.support), tasks.query.evidence)


def test_errors_of_the_network_itself_are_its_own() -> None:
    class Failing(PlayerWeights):
        def answer(self, effects: Tensor) -> Tensor:
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        call_per_task(Failing(), "prior", {"scale": torch.ones(T, M)}, evidence(0))


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.GELU()), True),
        (nn.Sequential(nn.Linear(2, 2), nn.Flatten(1)), False),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), False),
        (nn.LayerNorm((2, 3)), False),
        (parametrizations.spectral_norm(nn.Linear(2, 2)), False),
        (ShapleyExplainer(16, 1), True),
        (Changed(), False),
    ],
    ids=str,
)
def test_what_is_known_to_be_right_by_hand(module: nn.Module, expected: bool) -> None:
    assert batched_by_hand(module) is expected


def test_rows_without_a_dimension_of_their_own() -> None:
    layer, x = nn.Linear(3, 2), torch.randn(T, 3)
    parameters: dict[str, Any] = parameters_of(layer, 0)
    together = call_per_task(layer, "forward", parameters, x)
    for task in range(T):
        assert torch.allclose(together[task], x[task] @ parameters["weight"][task].T + parameters["bias"][task], atol=1e-6)
