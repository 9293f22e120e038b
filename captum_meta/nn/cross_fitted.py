"""Networks fitted to the explained model's evaluations at many rows, each without a part of the rows.

A row is explained by the network that has not seen it (cross-fitting: Chernozhukov et al. 2018), so its errors at
the row's coalitions are those of new rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int64
from torch import Generator, Tensor
from torch.nn import functional

from captum_meta.games import SurrogateGame
from captum_meta.nn.distillation import adamw_step, one_cycle
from captum_meta.records import Record, part
from captum_meta.types import SHAPLEY_POINTS

FOLDS = 5
_WIDTH, _BLOCKS = 96, 3
_RATE, _AGAIN, _DECAY, _RISING = 3e-3, 1e-3, 0.1, 0.15
_POINTS, _GRADIENTS = 256, 32
"""Of one step."""
_CROSS_ENTROPY = 0.1
_FIRST, _MOST = 300, 1300
_JUDGED, _LEAST_JUDGED, _SIGNS = 256, 16, 2**22
"""Most and fewest rows on which the networks' fit is measured, and about how many numbers their coalitions have."""


@dataclass(frozen=True)
class KnownRows(Record):
    """Evaluations of the explained model at N rows.

    Attributes:
        inputs, baselines: ``(N, M, D)``, elements of the players.
        members: ``(N, S, M)`` bool, coalitions, those of all players and of none among them.
        values: ``(N, S)``, f of the coalitions.
        measured: ``(N, S)`` bool, which of these are known.
        effects: ``(N, M, 3)``, gradient times input minus baseline, summed over each player's elements, at the points
            1, 1/2 and 0 of the path from baseline to input.
        differentiable: ``(N, M, 3)`` bool, where these are known.
        outputs: ``(N,)`` int64, indices of the model's outputs.
        folds: ``(N,)`` int64 from 0 to 4, the network that is not fitted to the row.
    """

    inputs: Tensor
    baselines: Tensor
    members: Tensor = field(metadata=part("S M"))
    values: Tensor = field(metadata=part("S", scale=1))
    measured: Tensor = field(metadata=part("S"))
    effects: Tensor = field(metadata=part(scale=1))
    differentiable: Tensor
    outputs: Tensor
    folds: Tensor

    def __len__(self) -> int:
        return len(self.values)


class CrossFitted:
    r"""Five networks with three residual layers, fitted to f's values and to its gradients (Czarnecki et al. 2017).

    .. math:: h(x) = \ell\big(w^\top g(x)\big), \qquad
        \min \frac{\sum (h(x_S) - f(x_S))^2}{\sum (f(x_S) - \bar f)^2}
        + \frac{\sum_i ((x - b)_i \partial_i h - (x - b)_i \partial_i f)^2}{\sum_i ((x - b)_i \partial_i f)^2}

    The link is the logistic function where all of f's values are within 0 and 1, with a tenth of the cross-entropy added
    to the loss, else the identity. Several outputs are heads of the same networks. Fitted again, they go on from where
    they are.

    Args:
        seed: of initial weights and of the order of the examples.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.weights: list[Tensor] = []
        self.logistic = False
        self.fits = 0

    def fit(self, known: KnownRows, shown: Callable[[range], Iterable[int]] = iter) -> None:
        """Learn from rows; ``shown`` may show how far the steps have come."""
        begun = self.prepare(known)
        known = known.to(dtype=torch.float64).times(1 / self.unit.expand(len(known))).to(dtype=torch.float32)
        generator = Generator().manual_seed(self.seed + self.fits)
        steps = min(_MOST, _FIRST + len(known)) // (2 if begun else 1)
        self.fits += 1
        with torch.inference_mode(False), torch.enable_grad():
            weights = [weight.clone().requires_grad_() for weight in self.weights]
            first, second = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
            loss, cycle = Loss(self, known, generator), one_cycle(_AGAIN if begun else _RATE, steps, _RISING)
            for step in shown(range(steps)):
                slopes = torch.autograd.grad(loss(weights), weights)
                with torch.no_grad():
                    for parts in zip(weights, slopes, first, second, strict=True):
                        adamw_step(*parts, step + 1, *cycle[step], _DECAY)
        self.weights = [weight.detach() for weight in weights]

    def understood(self, known: KnownRows) -> float:
        r"""The share of the differences between rows that the networks predict in rows they have not seen: 1 is all, 0 none.

        .. math:: 1 - \frac{\sum_{n, S} (d_n(S) - h_n(S))^2}
                           {\sum_{n, S} (d_n(S) - \sum_{i \in S} m_i + \sum_{i \notin S} m_i)^2}

        with :math:`d_n(S)` f of a coalition of row n less f of the other players, :math:`h_n(S)` the same by the network
        that has not seen the row, and m the one explanation that suits all rows best. It is estimated on the last rows.
        """
        n_pairs, n_players = known.members.shape[1] // 2, known.members.shape[2]
        known = known[-max(_LEAST_JUDGED, min(_JUDGED, _SIGNS // (n_pairs * n_players))) :]
        worths = self.game(known.inputs, known.baselines, known.outputs, known.folds).worths(known.members)
        one, other = (known.members[:, place : 2 * n_pairs : 2] for place in (0, 1))
        both = known.measured[:, 0 : 2 * n_pairs : 2] & known.measured[:, 1 : 2 * n_pairs : 2] & (one ^ other).all(-1)
        right, found = (
            (values[:, 0 : 2 * n_pairs : 2].double() - values[:, 1 : 2 * n_pairs : 2])[both] / self.unit.double()
            for values in (known.values, worths)
        )
        signs = 2.0 * one[both].double() - 1
        shared = torch.linalg.pinv(signs.mT @ signs, hermitian=True) @ (signs.mT @ right)
        spread = (right - signs @ shared).square().sum()
        return 1 - float((right - found).square().sum() / spread)

    def prepare(self, known: KnownRows) -> bool:
        """Set units, link and heads for these rows; returns whether the networks' weights can be kept."""
        values = known.values[known.measured].double()
        logistic = bool((values >= 0).all() & (values <= 1).all())
        if self.weights and logistic >= self.logistic:
            self._add_heads(known.outputs)
            return True
        self.logistic = logistic
        self.outputs = known.outputs.unique()
        spread = (values / _largest(values)).std(unbiased=False) * _largest(values)
        self.unit = torch.ones_like(spread) if logistic else _positive(spread)
        self.centre = torch.zeros_like(spread) if logistic else values.mean() / self.unit
        both = torch.cat([known.inputs, known.baselines]).float()
        self.mean, deviation = both.mean(0), both.std(0)
        self.deviation = torch.where(deviation > 0, deviation, 1.0)
        self.weights = _initial(self.mean.numel(), len(self.outputs), self.seed, self.mean)
        return False

    def _add_heads(self, outputs: Tensor) -> None:
        fresh = outputs.unique()
        fresh = fresh[~torch.isin(fresh, self.outputs)]
        self.outputs = torch.cat([self.outputs, fresh])
        for place in (-2, -1):
            self.weights[place] = functional.pad(self.weights[place], (0, len(fresh)))

    def knows(self, outputs: Int64[Tensor, " N"]) -> Bool[Tensor, " N"]:
        """Outputs ``(N,)`` that have a head."""
        return torch.isin(outputs, self.outputs)

    def heads(self, outputs: Int64[Tensor, " N"]) -> Int64[Tensor, " N"]:
        """Indices of their heads, ``(N,)``."""
        return (outputs.unsqueeze(1) == self.outputs).to(torch.uint8).argmax(1)

    def scaled(self, elements: Float[Tensor, "N M D"]) -> Float[Tensor, "N E"]:
        """Elements ``(N, M, D)`` in units of the first rows, ``(N, M * D)``."""
        return ((elements.to(self.mean) - self.mean) / self.deviation).flatten(1)

    def game(
        self,
        inputs: Float[Tensor, "N M D"],
        baselines: Float[Tensor, "N M D"],
        outputs: Int64[Tensor, " N"],
        folds: Int64[Tensor, " N"],
    ) -> SurrogateGame:
        """The game of rows ``(N, M, D)`` under the network that has not seen them."""
        ends, starts, heads = self.scaled(inputs), self.scaled(baselines), self.heads(outputs)
        n_elements = inputs.shape[-1]

        def function(memberships: Tensor) -> Tensor:
            answers = torch.zeros_like(memberships[..., 0])
            for fold in folds.unique().tolist():
                rows = (folds == fold).nonzero().flatten()
                inside = memberships[rows].float().repeat_interleave(n_elements, dim=-1)
                points = starts[rows, None] + inside * (ends - starts)[rows, None]
                found = network([weight[fold : fold + 1] for weight in self.weights], points.flatten(0, 1)[None])[0]
                index = heads[rows].repeat_interleave(memberships.shape[1]).unsqueeze(1)
                chosen = self.link(found.gather(1, index).squeeze(1)).unflatten(0, (len(rows), -1))
                answers = answers.index_put((rows,), chosen.to(answers))
            return answers * self.unit.to(answers)

        return SurrogateGame(function, inputs[..., 0])

    def link(self, found: Tensor) -> Tensor:
        """The networks' outputs in units of the spread of f's values, or as f where all are within 0 and 1."""
        return found.sigmoid() if self.logistic else self.centre.to(found) + found


class Loss:
    """The loss at some points and gradients, drawn anew at each call."""

    def __init__(self, networks: CrossFitted, known: KnownRows, generator: Generator) -> None:
        self.networks, self.known, self.generator = networks, known, generator
        self.rows, self.turns = known.measured.nonzero(as_tuple=True)
        self.ends, self.starts = networks.scaled(known.inputs), networks.scaled(known.baselines)
        self.heads = networks.heads(known.outputs)
        self.n_elements = known.inputs.shape[-1]
        folds = torch.arange(FOLDS, device=known.folds.device)
        self.seen = (known.folds != folds.unsqueeze(1)).to(self.ends)
        values = known.values[known.measured]
        self.spread = _positive((values - values.mean()).square().mean())
        self.differentiable = known.differentiable.any(1).nonzero()
        effects = torch.where(known.differentiable, known.effects, 0.0)
        self.effects = effects
        self.steepness = _positive(effects.square().sum((0, 1, 2)) / max(1, len(self.differentiable)))

    def __call__(self, weights: list[Tensor]) -> Tensor:
        loss = self.of_values(weights, self._drawn(len(self.rows), _POINTS))
        if len(self.differentiable):
            loss = loss + self.of_gradients(weights, self._drawn(len(self.differentiable), _GRADIENTS))
        return loss

    def _drawn(self, count: int, number: int) -> Tensor:
        return torch.randint(count, (number,), generator=self.generator).to(self.ends.device)

    def _found(self, weights: list[Tensor], points: Tensor, rows: Tensor) -> Tensor:
        """The networks' values at points ``(P, E)`` or ``(F, P, E)``, ``(F, P)``."""
        found = network(weights, points.expand(FOLDS, -1, -1))
        return found.gather(2, self.heads[rows].reshape(1, -1, 1).expand(FOLDS, -1, 1)).squeeze(2)

    def of_values(self, weights: list[Tensor], some: Tensor) -> Tensor:
        """Squared errors of f, in units of its spread: their mean over the points ``some``, summed over the networks."""
        rows, turns = self.rows[some], self.turns[some]
        inside = self.known.members[rows, turns].repeat_interleave(self.n_elements, dim=1)
        values = self.known.values[rows, turns].expand(FOLDS, -1)
        found = self._found(weights, torch.where(inside, self.ends[rows], self.starts[rows]), rows)
        missed = (self.networks.link(found) - values).square() / self.spread
        if self.networks.logistic:
            missed = missed + _CROSS_ENTROPY * functional.binary_cross_entropy_with_logits(found, values, reduction="none")
        return (self.seen[:, rows] * missed).sum() / len(some)

    def of_gradients(self, weights: list[Tensor], some: Tensor) -> Tensor:
        """The same of the effects at the points ``some`` of the path, in units of their mean square."""
        rows, places = self.differentiable[some].unbind(1)
        along = torch.tensor(SHAPLEY_POINTS).to(self.ends)[places].unsqueeze(1)
        delta = self.ends[rows] - self.starts[rows]
        points = (self.starts[rows] + along * delta).expand(FOLDS, -1, -1).clone().requires_grad_()
        answers = self.networks.link(self._found(weights, points, rows))
        gradients = torch.autograd.grad(answers.sum(), points, create_graph=True)[0]
        effects = (gradients * delta).unflatten(-1, (-1, self.n_elements)).sum(-1)
        index = places.reshape(-1, 1, 1).expand(-1, effects.shape[-1], 1)
        right, known = (of_rows[rows].gather(2, index).squeeze(2) for of_rows in (self.effects, self.known.differentiable))
        missed = (known * (effects - right)).square().sum(-1)
        return (self.seen[:, rows] * missed).sum() / self.steepness / len(some)


def network(weights: list[Tensor], points: Tensor) -> Tensor:
    """Networks with residual layers at points ``(F, P, E)``, ``(F, P, outputs)``."""
    hidden = functional.gelu(torch.baddbmm(weights[1], points, weights[0]))
    for place in range(2, len(weights) - 2, 2):
        hidden = hidden + functional.gelu(torch.baddbmm(weights[place + 1], hidden, weights[place]))
    return torch.baddbmm(weights[-1], hidden, weights[-2])


def _initial(n_elements: int, n_outputs: int, seed: int, like: Tensor) -> list[Tensor]:
    """Weights and biases of the layers in turn, ``(F, from, to)`` and ``(F, 1, to)``."""
    generator = Generator().manual_seed(seed)
    layers = [(n_elements, _WIDTH, 1.0), *[(_WIDTH, _WIDTH, 0.5)] * _BLOCKS, (_WIDTH, n_outputs, 0.1)]
    weights = []
    for before, after, size in layers:
        drawn = torch.randn(FOLDS, before, after, generator=generator, device="cpu", dtype=torch.float32)
        weights += [size * drawn / before**0.5, torch.zeros(FOLDS, 1, after, device="cpu", dtype=torch.float32)]
    return [weight.to(like) for weight in weights]


def _positive(size: Tensor) -> Tensor:
    return torch.where(size > 0, size, 1.0)


def _largest(values: Tensor) -> Tensor:
    """The largest absolute value; 1 where all are 0."""
    return _positive(values.abs().amax())
