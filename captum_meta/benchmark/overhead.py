"""`captum-meta benchmark overhead`: what explaining costs beside the model's own evaluations."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from functools import partial
from statistics import median
from time import process_time

import torch
from captum.attr import KernelShap
from rich.console import Console
from torch import Tensor, nn

from captum_meta.attr import MetaKernelShap
from captum_meta.benchmark.nets import perceptron
from captum_meta.benchmark.tables import table_of
from captum_meta.benchmark.timing import in_turn

_ROWS, _REPEATS = 64, 5
_MULTIPLES = (2, 4, 8, 16, 32)


class _Timed(nn.Module):
    """A three-layer MLP that adds up the seconds spent in it; those of a backward count as twice its forward."""

    def __init__(self, n_players: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = perceptron(n_players, 128, 128, 3)
        self.seconds = 0.0

    def forward(self, x: Tensor) -> Tensor:
        start = process_time()
        output: Tensor = self.layers(x)
        self.seconds += (process_time() - start) * (3 if output.requires_grad and torch.is_grad_enabled() else 1)
        return output


def measure(n_players: int, n_samples: int) -> tuple[float, float, float]:
    """Seconds of ours, of the model within ours, and of Captum's KernelShap at its best ``perturbations_per_eval``."""
    model = _Timed(n_players).eval()
    x = torch.randn(_ROWS, n_players, generator=torch.Generator().manual_seed(0))
    ours, captum = MetaKernelShap(model), KernelShap(model)

    def explain(at_once: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            return captum.attribute(x, target=0, n_samples=n_samples, perturbations_per_eval=at_once)

    def attribute() -> None:
        ours.attribute(x, target=0, n_samples=n_samples)

    total = median(in_turn({"ours": attribute}, _REPEATS)["ours"])
    model.seconds = 0.0
    for _ in range(_REPEATS):
        attribute()
    inside = model.seconds / _REPEATS
    theirs = in_turn({f"{at_once}": partial(explain, at_once) for at_once in (32, n_samples)}, _REPEATS)
    return total, inside, min(map(median, theirs.values()))


def main(arguments: Sequence[str]) -> None:
    """Time MetaKernelShap beside Captum's KernelShap: 64 rows of a three-layer MLP, equal numbers of coalitions."""
    parser = ArgumentParser(prog="captum-meta benchmark overhead", description=main.__doc__)
    parser.add_argument("--players", type=int, default=16, help="number of features of the model (default: 16)")
    n_players = parser.parse_args(arguments).players
    torch.set_num_threads(1)
    columns = ("coalitions", "MetaKernelShap", "of it the model", "Captum KernelShap", "our overhead / Captum")
    table = table_of(f"64 rows, {n_players} players, medians of {_REPEATS} runs; seconds", columns)
    for multiple in _MULTIPLES:
        total, inside, captum = measure(n_players, multiple * n_players)
        ratio = (total - inside) / captum
        table.add_row(str(multiple * n_players), f"{total:.3f}", f"{inside:.3f}", f"{captum:.3f}", f"{ratio:.3f}")
    Console().print(table)
