"""The inner loop over modules that know nothing of it, against MAML written out, one task after another."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_meta.optim import (
    Backprop,
    FirstOrder,
    GradientDescent,
    Hypergradient,
    Implicit,
    InnerLoop,
    MomentumSGD,
    MultiStepLoss,
    PersistentES,
    Reversible,
    Segmented,
    Truncated,
)

TASKS, ROWS, RATE, STEPS, WORDS = 3, 4, 0.05, 2, 7
Loss = Callable[..., Tensor]
mse, cross_entropy = nn.functional.mse_loss, nn.functional.cross_entropy


class Recurrent(nn.Module):
    """A recurrent layer's last state, read by a linear one."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Words(nn.Module):
    """Scores of words whose output weights are those of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(WORDS, 4), nn.Linear(4, WORDS, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.embedding(x).mean(1))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Counting(nn.Module):
    """Counts its calls in a buffer, and reads another; a parameter acts on nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.idle, self.linear = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2)), nn.Linear(3, 1)
        self.register_buffer("shift", torch.arange(3.0))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(self.scale * x + self.shift)


class Named(nn.Module):
    """Gives its answers by name."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        mean, log_deviation = self.linear(x).unbind(-1)
        return {"mean": mean, "log_deviation": log_deviation}


class Looking(nn.Module):
    """Chooses what it computes by looking at values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if x.sum().item() > 0 else self.linear(x).tanh()


def likelihood(said: dict[str, Tensor], y: Tensor) -> Tensor:
    return (said["log_deviation"] + ((y[:, 0] - said["mean"]) / said["log_deviation"].exp()).square() / 2).mean()


def applied_twice() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(3, 1))


def normalised(training: bool, counts: bool = True) -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5, track_running_stats=counts), nn.ReLU(), nn.Linear(5, 1))
    for buffer in net[1].buffers():
        buffer.add_(0.3 if buffer.is_floating_point() else 2)
    return net.train(training)


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3,)
    loss: Loss = mse
    words: bool = False
    counts: bool = False


CASES = {
    "batch norm in eval mode": Case(lambda: normalised(False)),
    "batch norm in train mode": Case(lambda: normalised(True), counts=True),
    "batch norm without statistics": Case(lambda: normalised(True, False)),
    "convolution": Case(lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(9, 1)), (2, 5)),
    "pooling": Case(
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 1)), (1, 6, 6)
    ),
    "group norm": Case(
        lambda: nn.Sequential(nn.Conv1d(2, 4, 1), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(20, 1)), (2, 5)
    ),
    "GRU": Case(lambda: Recurrent(nn.GRU(2, 4, batch_first=True)), (5, 2)),
    "LSTM": Case(lambda: Recurrent(nn.LSTM(2, 4, batch_first=True)), (5, 2)),
    "embedding, tied weights": Case(Words, (4,), cross_entropy, words=True),
    "attention": Case(Attending, (5, 4)),
    "transformer": Case(
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(4, 2, 8, dropout=0, batch_first=True), nn.Flatten(), nn.Linear(20, 1)
        ),
        (5, 4),
    ),
    "a layer applied twice": Case(applied_twice),
    "buffers, an idle parameter": Case(Counting, counts=True),
    "weight norm": Case(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 1))),
    "a dictionary": Case(Named, loss=likelihood),
    "looking at values": Case(Looking),
    "dropout in eval mode": Case(lambda: nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 1)).eval()),
    "PReLU": Case(lambda: nn.Sequential(nn.Linear(3, 4), nn.PReLU(), nn.Linear(4, 1))),
}


def rows(case: Case, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if case.words:
        shapes = (TASKS, ROWS, *case.shape), (TASKS, ROWS)
        x, y = (torch.randint(WORDS, shape, generator=generator) for shape in shapes)
        return x, y
    x = torch.randn(TASKS, ROWS, *case.shape, generator=generator, dtype=torch.float64)
    return x, torch.randn(TASKS, ROWS, 1, generator=generator, dtype=torch.float64)


def made(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return case.make().double()


def written_out(net: nn.Module, loss: Loss, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor]) -> Tensor:
    """What the parameters become is set by hand in each place that holds them, one task after another."""
    total = torch.zeros((), dtype=torch.float64)
    names = [(prefix, name, value) for prefix, part in net.named_modules() for name, value in part._parameters.items()]
    trained = [value for value in net.parameters() if value.requires_grad]

    def called(values: dict[int, Tensor], x: Tensor) -> Tensor:
        places = {f"{prefix}.{name}".lstrip("."): values.get(id(value), value) for prefix, name, value in names}
        answer: Tensor = functional_call(net, places, (x,), tie_weights=False)
        return answer

    with sdpa_kernel(SDPBackend.MATH):
        for task in range(TASKS):
            values = {id(value): value for value in trained}
            for _ in range(STEPS):
                error = loss(called(values, support[0][task]), support[1][task])
                slopes = torch.autograd.grad(
                    error, list(values.values()), create_graph=True, allow_unused=True, materialize_grads=True
                )
                values = {key: value - RATE * slope for (key, value), slope in zip(values.items(), slopes, strict=True)}
            total = total + loss(called(values, query[0][task]), query[1][task])
    return total / TASKS


def gradients(loss: Tensor, net: nn.Module) -> list[Tensor]:
    trained = [value for value in net.parameters() if value.requires_grad]
    return list(torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True))


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("name", CASES)
def test_maml_of_a_module_is_the_loop_written_out(name: str) -> None:
    case = CASES[name]
    net, support, query = made(case), rows(case, 1), rows(case, 2)
    right = written_out(made(case), case.loss, support, query)
    expected = gradients(written_out(again := made(case), case.loss, support, query), again)
    before = state(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop = InnerLoop(net, case.loss, GradientDescent(RATE), STEPS)
        found = loop.meta_loss(support, query)
        assert torch.allclose(found, right, rtol=1e-10)
        for ours, theirs in zip(gradients(found, net), expected, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-12)
        adapted = loop.adapt(support)
        answers = loop(adapted, query[0])
    assert torch.as_tensor(next(iter(answers.values())) if isinstance(answers, dict) else answers).isfinite().all()
    assert all(
        value is None or isinstance(value, nn.Parameter) for part in net.modules() for value in part._parameters.values()
    )
    assert case.counts or all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", ["GRU", "batch norm in eval mode", "buffers, an idle parameter", "convolution"])
@pytest.mark.parametrize(
    "hypergradient",
    [FirstOrder(), Segmented(1), Truncated(5), MultiStepLoss(10), Implicit(3), Reversible(), PersistentES(2, 2, 0.01)],
    ids=lambda hypergradient: type(hypergradient).__name__,
)
def test_every_hypergradient_takes_any_module(name: str, hypergradient: Hypergradient) -> None:
    case = CASES[name]
    net = made(case)
    rule = MomentumSGD([name for name, _ in net.named_parameters()], STEPS, 0.05, 0.5).double()
    losses = []
    for chosen in (hypergradient, Backprop()):
        loop = InnerLoop(net, case.loss, rule, STEPS, chosen)
        losses.append(loop.meta_loss(rows(case, 1), rows(case, 2)))
    found, exact = (gradients(loss, rule) for loss in losses)
    assert losses[0].isfinite() and len(found) == 2 and all(value.isfinite().all() for value in found)
    if isinstance(hypergradient, (Segmented, Truncated)):
        assert all(torch.allclose(*pair, rtol=1e-8, atol=1e-12) for pair in zip(found, exact, strict=True))


def test_frozen_parameters_stay_where_they_are() -> None:
    net = made(CASES["convolution"])
    net[0].requires_grad_(False)
    loop = InnerLoop(net, mse, GradientDescent(RATE), STEPS)
    assert list(loop.adapt(rows(CASES["convolution"], 1))) == ["3.weight", "3.bias"]
    right = written_out(net, mse, rows(CASES["convolution"], 1), rows(CASES["convolution"], 2))
    assert torch.allclose(loop.meta_loss(rows(CASES["convolution"], 1), rows(CASES["convolution"], 2)), right, rtol=1e-10)
    named = InnerLoop(net, mse, GradientDescent(RATE), fast=["0.*"])
    assert named.names == ["0.weight", "0.bias"]
    with pytest.raises(ValueError, match=r"No parameter of the module requires a gradient: pass .* fast="):
        InnerLoop(net.requires_grad_(False), mse, GradientDescent(RATE))


@pytest.mark.parametrize(
    ("support", "query", "message"),
    [
        ((3, 0), (3, 4), "needs support and query rows"),
        ((3, 4), (3, 0), "needs support and query rows"),
        ((0, 4), (0, 4), "needs support and query rows"),
        ((3, 4), (2, 4), r"There are \[2, 3\] tasks"),
    ],
)
def test_tasks_without_rows_or_of_different_numbers_are_refused(
    support: tuple[int, int], query: tuple[int, int], message: str
) -> None:
    loop = InnerLoop(nn.Linear(2, 1), mse, GradientDescent(RATE))
    made_of = [(torch.randn(*shape, 2), torch.randn(*shape, 1)) for shape in (support, query)]
    with pytest.raises(ValueError, match=message):
        loop.meta_loss(*made_of)
    if 0 in support:
        with pytest.raises(ValueError, match=message):
            loop.adapt(made_of[0])


def test_a_loss_of_many_numbers_is_refused() -> None:
    loop = InnerLoop(made(CASES["PReLU"]), lambda said, y: (said - y).square(), GradientDescent(RATE))
    with pytest.raises(ValueError, match=r"loss of one task has the shape \(4, 1\), but must be one number"):
        loop.adapt(rows(CASES["PReLU"], 1))


def test_running_statistics_of_a_norm_that_trains_are_counted() -> None:
    case = CASES["batch norm in train mode"]
    net = made(case)
    before = state(net)
    InnerLoop(net, mse, GradientDescent(RATE)).adapt(rows(case, 1))
    assert not torch.equal(net.state_dict()["1.running_mean"], before["1.running_mean"])
