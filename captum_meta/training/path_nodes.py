"""`python -m captum_meta.training.path_nodes`: find the constants that place a path's nodes, on synthetic models.

They are :data:`captum_meta.estimators.path_nodes.PLACING`. Each row's gradients are measured once on a fine grid, whose
straight pieces stand for the true curves; so a step of the search costs no model. What is minimised is the logarithm of the
error once the gap is shared out as the untrained explainer does: by the covariance of gradients with their sum.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import torch
from rich.progress import track
from torch import Generator, Tensor

from captum_meta.estimators import gauss_legendre, interval_weights
from captum_meta.estimators.path_nodes import PLACING, bent, placing
from captum_meta.tasks import SyntheticTaskFamily

GRID = (1 - torch.cos(pi * torch.linspace(0, 1, 257))) / 2
_NUMBERS = (2, 3, 4, 5, 6, 8, 10, 12)
_SHOWN = (3, 5, 10)
_BATCHES, _TESTED, _STEPS, _RATE, _TOGETHER = 150, 60, 1500, 4e-3, 6
_START = ((0.25, 0.0, 0.0, 0.0, 0.0, 0.0), (-0.7, 0.0, 0.0, 0.0, 0.0, 0.0))
_FLOOR, _DEAD = 1e-6, 1e-12


@dataclass(frozen=True)
class Curves:
    """Gradients times differences of rows of one architecture, on a grid of the path.

    Attributes:
        effects: ``(R, M, grid)``.
        right: ``(R, M)``, their integrals.
        values: ``(R, 3)``, f minus f(baseline) at 0, 1/2 and 1.
    """

    effects: Tensor
    right: Tensor
    values: Tensor

    @classmethod
    def of(cls, effects: Tensor) -> Curves:
        """Curves that are straight between the grid's points, so that all else follows from them."""
        changes = (effects[..., 1:] + effects[..., :-1]) / 2 * GRID.diff()
        half = changes[..., : len(GRID) // 2].sum((-2, -1))
        right = changes.sum(-1)
        return cls(effects, right, torch.stack([torch.zeros_like(half), half, right.sum(-1)], dim=-1))

    def error(self, points: Tensor) -> Tensor:
        """Relative squared errors ``(R,)`` of the quadrature at points ``(R, n)``, its gap shared out."""
        weights = interval_weights(points).sum(-2).to(points)
        place = torch.searchsorted(GRID.to(points), points.detach().contiguous()).clamp(1, len(GRID) - 1)
        left, end = GRID.to(points)[place - 1], GRID.to(points)[place]
        along = ((points - left) / (end - left)).unsqueeze(1)
        index = place.unsqueeze(1).expand(-1, self.effects.shape[1], -1)
        at = self.effects.gather(2, index - 1) * (1 - along) + self.effects.gather(2, index) * along
        answer = _shared_out(at, weights.unsqueeze(1), self.values[:, 2])
        return (answer - self.right).square().sum(-1) / self.right.square().sum(-1).clamp(min=_DEAD)


def _shared_out(at: Tensor, weights: Tensor, total: Tensor) -> Tensor:
    answer = (at * weights).sum(-1)
    varying = at - answer.unsqueeze(-1)
    covariance = (varying * varying.sum(1, keepdim=True) * weights.abs()).sum(-1)
    covariance = covariance / covariance.abs().sum(-1, keepdim=True).clamp(min=_DEAD)
    deviation = ((varying.square() * weights.abs()).sum(-1) + _DEAD**2).sqrt()
    left = deviation / deviation.sum(-1, keepdim=True) * (1 - covariance.sum(-1, keepdim=True))
    return answer + (total - answer.sum(-1)).unsqueeze(-1) * (covariance + left)


def measure(seed: int, batches: int, rows: int = 8) -> list[Curves]:
    """The curves of rows whose attributions are not all zero, of each batch of models."""
    family = SyntheticTaskFamily("path", tasks_per_batch=8, rows=rows, seed=seed)
    found = []
    for index in track(range(batches), description=f"Seed {seed}"):
        effects = family.games(index).gradients(GRID)[0].flatten(0, 1)
        alive = (effects.square().mean(-1).sum(-1) > _DEAD) & effects.isfinite().flatten(1).all(-1)
        found.append(Curves.of(effects[alive]))
    return [curves for curves in found if len(curves.right)]


def fit(seen: Sequence[Curves], steps: int = _STEPS, seed: int = 0) -> Tensor:
    """Constants ``(2, 6)`` of least mean log error."""
    constants = torch.tensor(_START, dtype=torch.float64, requires_grad=True)
    generator = Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([constants], _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in track(range(steps), description="Fitting"):
        n = _NUMBERS[step % len(_NUMBERS)]
        drawn = [seen[int(i)] for i in torch.randint(len(seen), (_TOGETHER,), generator=generator)]
        optimizer.zero_grad()
        torch.stack([log_error(curves, n, constants).mean() for curves in drawn]).mean().backward()
        torch.nn.utils.clip_grad_norm_([constants], 1.0)
        optimizer.step()
        schedule.step()
    return constants.detach()


def log_error(curves: Curves, n: int, constants: Tensor) -> Tensor:
    """Logarithms of the rows' errors at ``n`` nodes, ``(R,)``."""
    points = bent(gauss_legendre(n)[0], *placing(curves.values, n, constants))
    return (curves.error(points.to(curves.effects)) + _FLOOR).log()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the constants, and how far they lower the error of Gauss-Legendre nodes on models of another seed."""
    ArgumentParser(prog="python -m captum_meta.training.path_nodes", description=main.__doc__).parse_args(arguments)
    torch.set_num_threads(1)
    constants = fit(measure(41, _BATCHES))
    print(constants.numpy().round(3).tolist())
    unseen = measure(42, _TESTED)
    for n in _SHOWN:
        even = torch.cat(
            [(c.error(gauss_legendre(n)[0].to(c.effects).expand(len(c.right), -1)) + _FLOOR).log() for c in unseen]
        )
        for name, chosen in (("found", constants), ("in use", torch.tensor(PLACING, dtype=torch.float64))):
            placed = torch.cat([log_error(curves, n, chosen) for curves in unseen])
            ratio = (placed - even).mean().exp()
            print(f"{n} gradients, constants {name}: {ratio:.2f} of Gauss-Legendre's error (geometric mean)")


if __name__ == "__main__":
    main()
