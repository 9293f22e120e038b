"""`captum-meta benchmark small`: learners after 16 rows of ten small models, beside a ridge on three gradient weights.

The models are MLPs and residual nets, trained for a moment on synthetic tables of their own; none is a held-out problem, and
no training saw them. Errors are relative squared errors of 32 rows against all coalitions.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Generator, Tensor, nn

from captum_meta._model import unmoved_random_state
from captum_meta.attr import MetaKernelShap
from captum_meta.benchmark.nets import learn, perceptron, residual
from captum_meta.benchmark.table_models import exact_values
from captum_meta.benchmark.tables import table_of
from captum_meta.learners import MetaLearner, list_learners, load_learner
from captum_meta.learners.storage import shipped_explainer
from captum_meta.nn import Prior
from captum_meta.types import LEAVE_ONE_OUT, Evidence, Explanations, Record

SUPPORT, QUERIES = 16, 32
RIDGE = "ridge on three gradients"
_TRAINED, _STEPS, _WIDTH = 512, 400, 32
_STRENGTH = 1e-2
_PLAYERS = (6, 8, 8, 9, 10)


@dataclass(frozen=True)
class Weights(Record):
    """Weights of the gradients at input, midway and baseline, ``(*batch, 3)``."""

    weights: Tensor


class ThreeGradients(MetaLearner[Weights]):
    r"""Ridge regression of the explainer's residual, :math:`\sum_c w_c\, g_c(i)`, with one w for all players."""

    def adapt(self, support: Explanations) -> Weights:
        self.require_rows(support)
        start = self.explainer.trained_prior(support.evidence)
        missed = support.attributions - self.explainer.complete(start, support.evidence).attributions
        x = _gradients(support.evidence).flatten(-3, -2)
        gram = x.mT @ x
        strength = _STRENGTH * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] * torch.eye(3).to(gram)
        right = x.mT @ missed.flatten(-2).unsqueeze(-1)
        return Weights(torch.linalg.lstsq(gram + strength, right).solution.squeeze(-1))

    def corrected(self, prior: Prior, state: Weights, evidence: Evidence) -> Prior:
        added = (_gradients(evidence) * state.weights[..., None, None, :]).sum(-1)
        return replace(prior, attributions=prior.attributions + added)


def _gradients(evidence: Evidence) -> Tensor:
    effects = torch.where(evidence.measured, evidence.effects, 0.0)
    return effects[..., :LEAVE_ONE_OUT]


@dataclass(frozen=True)
class SmallModel:
    """A model ``(N, M) -> (N, 3)`` with rows ``(48, M)``, the class of each, and their Shapley values."""

    name: str
    model: Callable[[Tensor], Tensor]
    inputs: Tensor
    target: Tensor
    exact: Tensor


def small_models() -> list[SmallModel]:
    """Ten of them, the same on every machine up to rounding."""
    return [_made(skips, m, seed) for skips in (False, True) for seed, m in enumerate(_PLAYERS)]


def _made(skips: bool, n_features: int, seed: int) -> SmallModel:
    probability = seed % 2 == 0
    with unmoved_random_state(torch.device("cpu")):
        torch.manual_seed(1000 + seed)
        generator = Generator().manual_seed(2000 + seed)
        x = torch.randn(_TRAINED + SUPPORT + QUERIES, n_features, generator=generator)
        x = x @ (torch.eye(n_features) + 0.3 * torch.randn(n_features, n_features, generator=generator))
        teacher = nn.Sequential(nn.Linear(n_features, 16), nn.Tanh(), nn.Linear(16, 3)).requires_grad_(False)
        labels = (3 * teacher(x)).argmax(1)
        net = _residual_net(n_features) if skips else perceptron(n_features, _WIDTH, _WIDTH, 3)
        learn(net, x[:_TRAINED], labels, _STEPS, batch=64, rate=5e-3)
    model = (nn.Sequential(net, nn.Softmax(1)) if probability else net).eval().requires_grad_(False)
    inputs = x[_TRAINED:]
    target = model(inputs).argmax(1)
    kind = f"{'residual net' if skips else 'MLP'}, {'probability' if probability else 'logit'}, M={n_features}"
    return SmallModel(kind, model, inputs, target, exact_values(model, inputs, target))


def _residual_net(n_features: int) -> nn.Module:
    block = residual(_WIDTH, _WIDTH, nn.GELU)
    return nn.Sequential(nn.Linear(n_features, _WIDTH), block, nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, 3))


def errors(learner: MetaLearner, small: SmallModel, n_samples: int | None) -> tuple[float, float]:
    """Errors before and after 16 rows."""
    attr = MetaKernelShap(small.model, learner=learner)
    inputs, target, right = (each[SUPPORT:] for each in (small.inputs, small.target, small.exact))

    def error() -> float:
        found = attr.attribute(inputs, target=target, n_samples=n_samples)
        return float((found - right).square().sum() / right.square().sum())

    before = error()
    attr.adapt(small.inputs[:SUPPORT], target=small.target[:SUPPORT], attributions=small.exact[:SUPPORT])
    return before, error()


def measured(names: Sequence[str], n_samples: int | None) -> dict[str, list[tuple[float, float]]]:
    """Errors of each learner, and of the ridge on three gradients, on every model."""
    learners: dict[str, MetaLearner] = {name: load_learner(name) for name in names}
    learners[RIDGE] = ThreeGradients(shipped_explainer()).eval().requires_grad_(False)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in learners}
    for small in track(small_models(), description="Ten small models"):
        for name, learner in learners.items():
            found[name].append(errors(learner, small, n_samples))
    return found


def table(found: dict[str, list[tuple[float, float]]], title: str) -> Table:
    """One line for each learner."""
    columns = ("learner", "before", "after", "after / before", "models better", "after / the ridge's")
    shown = table_of(title, columns, ("learner",))
    rivals = _logs(found[RIDGE])[:, 1]
    for name, pairs in found.items():
        logs = _logs(pairs)
        before, after = logs.mean(0).exp().tolist()
        ratio, rival = (float(x.mean().exp()) for x in (logs[:, 1] - logs[:, 0], logs[:, 1] - rivals))
        better = sum(end < start for start, end in pairs)
        shown.add_row(name, f"{before:.4f}", f"{after:.4f}", f"{ratio:.2f}", f"{better} of {len(pairs)}", f"{rival:.2f}")
    return shown


def _logs(pairs: Sequence[tuple[float, float]]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.float64).clamp(min=1e-9).log()


def main(arguments: Sequence[str]) -> None:
    """Explain rows of ten small models before and after 16 explained rows, and compare with a ridge on three gradients."""
    parser = ArgumentParser(prog="captum-meta benchmark small", description=main.__doc__)
    parser.add_argument("--learners", nargs="*", metavar="NAME", default=list_learners(), help="default: all that ship")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for n_samples, title in ((0, "gradients alone"), (None, "2M coalitions")):
        Console(width=120).print(table(measured(chosen.learners, n_samples), f"{title}: geometric means over ten models"))
