"""Models that others built: weights that ship in packages, and architectures of packages trained on scikit-learn's data.

Nothing is downloaded. Each model needs its own package, named in :data:`REAL`; those that are not installed are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from math import pi
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from torch import Tensor, nn

from captum_meta._model import unmoved_random_state
from captum_meta.benchmark.problem import Problem

_ROWS, _STEPS, _BATCH = 8, 400, 128
_CHUNK, _CHUNKS, _RATE = 512, 10, 16000


@dataclass(frozen=True)
class RealModel:
    """What makes a problem, and which packages it needs."""

    make: Callable[[], Problem]
    package: str

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return find_spec(self.package) is not None


@dataclass(frozen=True)
class _Table:
    inputs: Tensor  # (N, M), standardised
    targets: Tensor  # (N,), classes or standardised numbers

    @property
    def n_classes(self) -> int:
        """0 for a regression."""
        return 0 if self.targets.is_floating_point() else int(self.targets.max()) + 1


def _table(load: Callable[..., Any]) -> _Table:
    inputs, targets = (torch.tensor(part) for part in load(return_X_y=True))
    inputs = ((inputs - inputs.mean(0)) / inputs.std(0)).float()
    if targets.is_floating_point():
        targets = ((targets - targets.mean()) / targets.std()).float()
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    return _Table(inputs[order], targets[order])


def _trained(net: nn.Module, table: _Table, rate: float) -> nn.Module:
    """AdamW on random batches of all rows but those explained; in eval mode, frozen."""
    optimizer = torch.optim.AdamW(net.parameters(), rate)
    inputs, targets = table.inputs[_ROWS:], table.targets[_ROWS:]
    for _ in range(_STEPS):
        rows = torch.randint(len(inputs), (_BATCH,))
        outputs = net(inputs[rows])
        if table.n_classes:
            loss = nn.functional.cross_entropy(outputs, targets[rows])
        else:
            loss = (outputs.squeeze(-1) - targets[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval().requires_grad_(False)


def _tabular(load: Callable[..., Any], build: Callable[[_Table], nn.Module], rate: float = 2e-3) -> Problem:
    """Rows against a baseline of zeros, the mean; the probability of the class of each, or the regression's value."""
    table = _table(load)
    with unmoved_random_state(torch.device("cpu")):
        torch.manual_seed(0)
        net = _trained(build(table), table, rate)
    inputs = table.inputs[:_ROWS]
    model = nn.Sequential(net, nn.Softmax(-1)).eval() if table.n_classes else net
    arguments = {"inputs": inputs, "baselines": torch.zeros_like(inputs), "target": 0}
    if table.n_classes:
        arguments["target"] = model(inputs).argmax(-1)
    return Problem(model=model, arguments=arguments)


class _Called(nn.Module):
    """A net that takes or gives more than a tensor, called as ``call(net, x)``."""

    def __init__(self, net: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.call = net, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.net, x)


def _tabnet(table: _Table) -> nn.Module:
    from pytorch_tabnet.tab_network import TabNet

    n_features = table.inputs.shape[1]
    net = TabNet(n_features, table.n_classes or 1, group_attention_matrix=torch.eye(n_features))
    return _Called(net, lambda net, x: net(x)[0])  # beside its loss


def _resnet(table: _Table) -> nn.Module:
    from rtdl_revisiting_models import ResNet

    shape = {"d_in": table.inputs.shape[1], "d_out": table.n_classes or 1, "n_blocks": 2, "d_block": 64}
    return ResNet(**shape, d_hidden_multiplier=2.0, dropout1=0.1, dropout2=0.0)


def _transformer(table: _Table) -> nn.Module:
    from rtdl_revisiting_models import FTTransformer

    size = {"n_blocks": 2, "d_block": 32, "attention_n_heads": 4, "ffn_d_hidden_multiplier": 4 / 3}
    drop = {"attention_dropout": 0.1, "ffn_dropout": 0.1, "residual_dropout": 0.0}
    columns = {"n_cont_features": table.inputs.shape[1], "cat_cardinalities": [], "d_out": table.n_classes or 1}
    return _Called(FTTransformer(**columns, **size, **drop), lambda net, x: net(x, None))  # numbers, no categories


def _piecewise_linear(table: _Table) -> nn.Module:
    from rtdl_num_embeddings import PiecewiseLinearEmbeddings, compute_bins

    with warnings.catch_warnings():  # a column of two values has one bin
        warnings.simplefilter("ignore")
        bins = compute_bins(table.inputs, 8)
    embed = PiecewiseLinearEmbeddings(bins, 8, activation=False, version="B")
    inner = nn.Linear(8 * table.inputs.shape[1], 64)
    return nn.Sequential(embed, nn.Flatten(), inner, nn.ReLU(), nn.Linear(64, table.n_classes or 1))


def _lightgbm() -> Problem:
    from lightgbm import LGBMClassifier

    table = _table(load_breast_cancer)
    trees = LGBMClassifier(n_estimators=60, random_state=0, n_jobs=1, verbose=-1)
    trees.fit(table.inputs[_ROWS:].numpy(), table.targets[_ROWS:].numpy())

    def model(x: Tensor) -> Tensor:
        return torch.tensor(trees.predict_proba(x.detach().numpy()), dtype=x.dtype)

    inputs = table.inputs[:_ROWS]
    arguments = {"inputs": inputs, "baselines": torch.zeros_like(inputs), "target": model(inputs).argmax(-1)}
    return Problem(model=model, arguments=arguments, has_gradient=False)


def _voice_activity() -> Problem:
    """silero-vad on a vowel that comes and goes: 10 windows as players, silence as baseline, its mean answer."""
    net = torch.jit.load(str(resources.files("silero_vad") / "data" / "silero_vad.jit")).eval()

    def model(x: Tensor) -> Tensor:
        net.reset_states()
        return torch.stack([net(chunk, _RATE).squeeze(-1) for chunk in x.split(_CHUNK, dim=1)]).mean(0)

    inputs = torch.stack([_vowel(pitch) for pitch in torch.linspace(95, 220, _ROWS).tolist()])
    windows = torch.arange(_CHUNKS).repeat_interleave(_CHUNK).unsqueeze(0)
    arguments = {"inputs": inputs, "baselines": torch.zeros_like(inputs), "feature_mask": windows}
    return Problem(model=model, arguments=arguments)


def _vowel(pitch: float) -> Tensor:
    """Harmonics under three formants, with a little noise, ``(10 * 512,)``."""
    time = torch.arange(_CHUNK * _CHUNKS) / _RATE
    harmonics = pitch * torch.arange(1, 30)
    formants = torch.tensor([700.0, 1220.0, 2600.0])
    sizes = (1 / (1 + ((harmonics.unsqueeze(1) - formants) / 120).square())).sum(1)
    sound = (sizes.unsqueeze(1) * torch.sin(2 * pi * harmonics.unsqueeze(1) * time)).sum(0)
    rising = torch.sin(pi * (time / time[-1] * 2)).abs()
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(round(pitch)))
    return 0.3 * rising * sound / sound.abs().max() + 0.003 * noise


REAL = {
    "TabNet, breast cancer": RealModel(lambda: _tabular(load_breast_cancer, _tabnet, 1e-2), "pytorch_tabnet"),
    "TabNet, wine": RealModel(lambda: _tabular(load_wine, _tabnet, 1e-2), "pytorch_tabnet"),
    "rtdl ResNet, breast cancer": RealModel(lambda: _tabular(load_breast_cancer, _resnet), "rtdl_revisiting_models"),
    "rtdl ResNet, diabetes": RealModel(lambda: _tabular(load_diabetes, _resnet), "rtdl_revisiting_models"),
    "rtdl FT-Transformer, wine": RealModel(lambda: _tabular(load_wine, _transformer), "rtdl_revisiting_models"),
    "rtdl PLE, diabetes": RealModel(lambda: _tabular(load_diabetes, _piecewise_linear), "rtdl_num_embeddings"),
    "LightGBM, breast cancer": RealModel(_lightgbm, "lightgbm"),
    "silero-vad, 10 windows": RealModel(_voice_activity, "silero_vad"),
}
"""Models by name."""
