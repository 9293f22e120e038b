"""`captum-meta benchmark metrics`: our deletion and insertion curves beside Quantus's PixelFlipping, in one run."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from captum_meta.benchmark.nets import perceptron
from captum_meta.benchmark.tables import table_of
from captum_meta.benchmark.timing import in_turn
from captum_meta.metrics import DeletionAUC, InsertionAUC

_ROWS, _SIDE, _CLASSES = 512, 8, 10
_PLAYERS = _SIDE * _SIDE
_MAX_ROWS = 4096


@dataclass(frozen=True)
class Speed:
    """One metric: its least seconds, and PixelFlipping's over these."""

    metric: str
    seconds: float
    ratio: float


def _problem() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A small net on images of 8 x 8 pixels, each a player; rows, classes and attributions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), perceptron(_PLAYERS, 64, _CLASSES), nn.Softmax(1)).eval()
        x, attributions = torch.rand(2, _ROWS, 1, _SIDE, _SIDE)
    with torch.no_grad():
        return model, x, model(x).argmax(1), attributions


def _pixel_flipping(model: nn.Module, x: Tensor, target: Tensor, attributions: Tensor) -> np.ndarray:
    """Quantus's curves ``(B, M)``, all rows in one batch, which is how it is fastest."""
    try:
        import quantus
    except ImportError as error:
        raise SystemExit("Quantus is not installed: pip install 'captum-meta[benchmark]'.") from error
    metric = quantus.PixelFlipping(normalise=False, perturb_baseline=0.0, disable_warnings=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        curves = metric(model, x.numpy(), target.numpy(), attributions.numpy(), softmax=True, batch_size=len(x))
    return np.array(curves)


def measure(repeats: int = 5) -> tuple[list[Speed], float]:
    """Speeds of PixelFlipping and of ours, and the largest difference between the areas that both give a row."""
    model, x, target, attributions = _problem()

    def area(metric: type[DeletionAUC] | type[InsertionAUC], n_steps: int) -> Callable[[], Tensor]:
        settings = {"n_steps": n_steps, "max_rows": _MAX_ROWS, "reduction": "none"}
        return lambda: metric(model, **settings)(attributions=attributions, inputs=x, target=target)

    cases: dict[str, Callable[[], object]] = {
        "Quantus PixelFlipping": lambda: _pixel_flipping(model, x, target, attributions),
        f"DeletionAUC, {_PLAYERS} steps": area(DeletionAUC, _PLAYERS),
        f"InsertionAUC, {_PLAYERS} steps": area(InsertionAUC, _PLAYERS),
        "DeletionAUC, 10 steps (default)": area(DeletionAUC, 10),
        "InsertionAUC, 10 steps (default)": area(InsertionAUC, 10),
    }
    times = in_turn(cases, repeats)
    peer = min(times["Quantus PixelFlipping"])
    speeds = [Speed(name, min(seconds), peer / min(seconds)) for name, seconds in times.items()]
    with torch.no_grad():
        whole = model(x).gather(1, target.unsqueeze(1)).numpy()
    curves = np.concatenate([whole, _pixel_flipping(model, x, target, attributions)], axis=1)
    areas = (curves[:, :-1] + curves[:, 1:]).sum(1) / (2 * _PLAYERS)
    return speeds, float(np.abs(areas - area(DeletionAUC, _PLAYERS)().numpy()).max())


def main(arguments: Sequence[str]) -> None:
    """Time the deletion and insertion curves of 512 rows and 64 players beside Quantus's PixelFlipping."""
    ArgumentParser(prog="captum-meta benchmark metrics", description=main.__doc__).parse_args(arguments)
    torch.set_num_threads(1)
    speeds, difference = measure()
    title = f"{_ROWS} rows, {_PLAYERS} players, the same model, one thread: best of 5"
    table = table_of(title, ("metric", "seconds", "times as fast"), words=("metric",))
    for speed in speeds:
        table.add_row(speed.metric, f"{speed.seconds:.4f}", f"{speed.ratio:.1f}")
    console = Console()
    console.print(table)
    console.print(f"Largest difference between the areas of both, of any row: {difference:.1e}")
