r"""Shapley values of the mean game over background rows: Gaussian-process regression on the explained model's inputs.

Where players who are out take the values of one of K background rows, a coalition S and a row k make one input of the
model, and the game is :math:`v(S) = \frac 1 K \sum_k f(x_S, b_{k, \bar S})`. Averages over drawn rows carry the noise of the
draw. f itself has no noise: a process over the inputs, with the covariance

.. math:: k(z, z') = c + \prod_i \frac{1 + \rho_i \kappa(|z_i - z'_i| / \ell_i)}{1 + \rho_i},
    \quad \kappa(d) = (1 + \sqrt 3 d) e^{-\sqrt 3 d},

predicts f from some pairs (S, k) at all the others. ``rho`` is how much a player acts, and interacts; ``ell`` how far its
values must be apart to act differently. The product makes each term of the mean game multiplicative in the players, so that
its Shapley values are exact by Gauss-Legendre quadrature of the multilinear extension (Owen 1972), over all K rows at no
evaluation. Each row fits its own ``rho``, ``ell`` and noise to what it has seen.

Kernels that multiply over features give Shapley values in closed form: Chau, Hu, Gonzalez and Sejdinovic, *RKHS-SHAP*,
NeurIPS 2022; Chau, Muandet and Sejdinovic, *Explaining the Uncertain*, NeurIPS 2023. Averaging explanations that see one
background row each keeps the error of drawing few rows; averaging worths over drawn rows has their noise in each worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

import torch
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor

from captum_meta.estimators.interactions import InteractionRule
from captum_meta.estimators.likelihood import descended, likelihood_slopes, standardised
from captum_meta.estimators.quadrature import gauss_legendre
from captum_meta.estimators.seats import sum_at_seats

_CONSTANT = 10.0
"""c of the formula, for worths of unit variance."""
_RATE, _LENGTH, _NOISE = -0.5, log(1.5), log(1e-3)
"""Expected logarithms of rho (times log M), ell and the noise's variance."""
_TRUST_RATE, _TRUST_LENGTH, _TRUST_NOISE = 0.05, 1.0, 0.025
"""Half the inverse variances of these."""
_STEPS, _STEP = 16, 0.35
_MOST_FITTED, _FIT_NUMBERS = 320, 2**21
_LEAST_NOISE = 1e-8
_MAX_NODES, _MAX_NUMBERS = 12, 2**22


@dataclass(frozen=True)
class InputKernel:
    """The module's covariance without its constant, and between values of single players; all float64."""

    rates: Float[Tensor, "R M"]  # (R, M), rho
    lengths: Float[Tensor, "R M"]  # (R, M), ell

    def factors(self, distances: Float[Tensor, "R M *values"]) -> Float[Tensor, "R M *values"]:
        """``(R, M, *)``, one factor of the product for each player, from the distances of its values."""
        shape = (*self.rates.shape, *[1] * (distances.dim() - 2))
        rates, scaled = self.rates.reshape(shape), 3**0.5 * distances / self.lengths.reshape(shape)
        return (1 + rates * (1 + scaled) * torch.exp(-scaled)) / (1 + rates)


class InputProcess:
    """The explained model as expected from its values at some mixtures of inputs and background rows.

    Args:
        distances: ``(R, M, L, L)``, between any two of the L values that each player may take, the input's and then those of
            the K background rows, in units of their spread.
        seats: ``(R, N, M)`` int64, indices of the players' values at each point seen.
        worths: ``(R, N)``, f there.
        known: ``(R, N)`` bool, False for padding.
        fitted: the kernel, and the noise ``(R,)``, where they are not to be fitted to the points.
    """

    def __init__(
        self,
        distances: Float[Tensor, "R M L L"],
        seats: Int64[Tensor, "R N M"],
        worths: Float[Tensor, "R N"],
        known: Bool[Tensor, "R N"],
        fitted: tuple[InputKernel, Tensor] | None = None,
    ) -> None:
        self._distances, self._seats, self._worths, self._known = distances, seats, worths, known
        residual, self._middle, self._unit = standardised(worths, known)
        self._kernel, self._noise = fitted or _fitted(distances, seats, residual, known)
        self._table = self._kernel.factors(distances).log()
        covariance = _covariance(sum_at_seats(self._table, seats, seats).exp(), known, self._noise)
        self._factor = torch.linalg.cholesky(covariance)
        self._coefficients = torch.cholesky_solve(residual.unsqueeze(-1), self._factor).squeeze(-1)

    def given(self, known: Bool[Tensor, "R N"]) -> InputProcess:
        """The same process, had only these points ``(R, N)`` bool been seen."""
        return InputProcess(self._distances, self._seats, self._worths, known, (self._kernel, self._noise))

    def at(self, seats: Int64[Tensor, "R A M"]) -> Float[Tensor, "R A"]:
        """Expected f at points ``(R, A, M)``, ``(R, A)`` float64."""
        kernel = torch.where(self._known.unsqueeze(1), sum_at_seats(self._table, seats, self._seats).exp() + _CONSTANT, 0.0)
        return (kernel @ self._coefficients.unsqueeze(-1)).squeeze(-1) * self._unit + self._middle

    def mean_game(self, members: Bool[Tensor, "R S M"], shares: Float[Tensor, " K"]) -> Float[Tensor, "R S"]:
        """Worths of coalitions ``(R, S, M)`` in the mean over background rows, of ``shares (K,)``, ``(R, S)`` float64."""
        worths = torch.stack([self._game_of_row(row, some, shares) for row, some in enumerate(members)])
        return worths * self._unit + self._middle

    def _game_of_row(self, row: int, members: Bool[Tensor, "S M"], shares: Float[Tensor, " K"]) -> Float[Tensor, " S"]:
        table, seats = self._table[row], self._seats[row].mT
        weighted = torch.where(self._known[row], self._coefficients[row], 0.0)
        inside, outside = members.double(), (~members).double()
        own = inside @ table[:, 0].gather(1, seats)  # (S, N)
        worths = own.new_full((len(members),), _CONSTANT) * weighted.sum()
        for share, some in zip(shares.tolist(), table[:, 1 : 1 + len(shares)].unbind(1), strict=True):
            worths += share * ((own + outside @ some.gather(1, seats)).exp() @ weighted)
        return worths

    def shapley_values(self, shares: Float[Tensor, " K"]) -> Float[Tensor, "R M"]:
        """Of the mean game over the background rows, of ``shares (K,)`` that sum to 1, ``(R, M)`` float64."""
        return torch.stack([self._of_row(row, shares) for row in range(len(self._seats))]) * self._unit

    def _of_row(self, row: int, shares: Float[Tensor, " K"]) -> Float[Tensor, " M"]:
        factors, seats = self._kernel.factors(self._distances)[row], self._seats[row].mT  # (M, L, L), (M, N)
        n_players = len(factors)
        nodes, weights = gauss_legendre(min(_MAX_NODES, ceil(n_players / 2)))
        weighted = torch.where(self._known[row], self._coefficients[row], 0.0)
        own = factors[:, 0].gather(1, seats).unsqueeze(1)  # (M, 1, N)
        values = torch.zeros(n_players, dtype=torch.float64, device=seats.device)
        step = max(1, _MAX_NUMBERS // max(1, seats.numel()))
        behind = factors[:, 1 : 1 + len(shares)]
        for some, share in zip(behind.split(step, dim=1), shares.split(step), strict=True):
            others = some.gather(2, seats.unsqueeze(1).expand(-1, some.shape[1], -1))  # (M, k, N)
            gains = own - others
            for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
                mixed = others + node * gains
                products = mixed.log().sum(0).exp() * weighted * share.unsqueeze(-1)
                values += weight * (gains * (products / mixed)).sum((1, 2))
        return values

    def interactions(self, shares: Float[Tensor, " K"], rule: InteractionRule) -> Float[Tensor, "R M M"]:
        """Of the mean game over the background rows, of ``shares (K,)``: ``(R, M, M)`` float64, main effects as diagonal."""
        n_rows, n_players = self._distances.shape[:2]
        main, pairs = shares.new_zeros(n_rows, n_players), shares.new_zeros(n_rows, n_players, n_players)
        for row in range(n_rows):
            for t, weight in zip(*(part.tolist() for part in rule.main), strict=True):
                main[row] += weight * self._slopes(row, shares, t, False)
            for t, weight in zip(*(part.tolist() for part in rule.pairs), strict=True):
                pairs[row] += weight * self._slopes(row, shares, t, True)
        return rule.joined(main * self._unit, pairs * self._unit.unsqueeze(-1))

    def _slopes(self, row: int, shares: Tensor, t: float, second: bool) -> Tensor:
        """First ``(M,)`` or second ``(M, M)`` derivatives on the diagonal t of the mean game's multilinear extension."""
        factors, seats = self._kernel.factors(self._distances)[row], self._seats[row].mT
        weighted = torch.where(self._known[row], self._coefficients[row], 0.0)
        own = factors[:, 0].gather(1, seats)  # (M, N)
        found = torch.zeros([len(factors)] * (2 if second else 1), dtype=torch.float64, device=seats.device)
        for share, some in zip(shares.tolist(), factors[:, 1 : 1 + len(shares)].unbind(1), strict=True):
            others = some.gather(1, seats)
            mixed = others + t * (own - others)
            relative = (own - others) / mixed
            products = share * mixed.log().sum(0).exp() * weighted
            found += (relative * products) @ relative.mT if second else relative @ products
        return found


def value_distances(values: Num[Tensor, "R L M D"], count: int | None = None) -> Float[Tensor, "R M L L"]:
    """Distances between the values that each player may take, in units of their spread.

    Args:
        values: ``(R, L, M, D)``, elements of the input's value and of the K background rows'; 0 where a player has fewer.
        count: K, where further values come behind those of the background; None for L - 1.

    Returns:
        ``(R, M, L, L)`` float64; 0 exactly where values are equal.
    """
    values = values.double()
    background = values[:, 1 : None if count is None else 1 + count]
    spread = (background - background.mean(1, keepdim=True)).square().mean(1, keepdim=True).sqrt()
    away = (values[:, :1] - background).square().mean(1, keepdim=True).sqrt()
    unit = torch.maximum(spread, 0.3 * away)
    scaled = (values / torch.where(unit > 0, unit, 1.0)).transpose(1, 2)
    elements = (unit > 0).sum(-1).clamp(min=1).sqrt().reshape(len(values), -1, 1, 1)
    return torch.cdist(scaled, scaled, compute_mode="donot_use_mm_for_euclid_dist") / elements


def _covariance(
    kernel: Float[Tensor, "R N N"], known: Bool[Tensor, "R N"], noise: Float[Tensor, " R"]
) -> Float[Tensor, "R N N"]:
    """Of the points seen, and ones on the diagonal for those that are not known, ``(R, N, N)``."""
    both = known.unsqueeze(-1) & known.unsqueeze(-2)
    covariance = torch.where(both, kernel + _CONSTANT, 0.0)
    diagonal = torch.where(known, noise.unsqueeze(-1) + _LEAST_NOISE, 1.0)
    return covariance + torch.diag_embed(diagonal)


def _fitted(
    distances: Float[Tensor, "R M L L"],
    seats: Int64[Tensor, "R N M"],
    residual: Float[Tensor, "R N"],
    known: Bool[Tensor, "R N"],
) -> tuple[InputKernel, Float[Tensor, " R"]]:
    """The kernel and noise ``(R,)`` of largest posterior density; from some of the points."""
    n_points, n_players = seats.shape[1:]
    most = min(_MOST_FITTED, max(32, int((_FIT_NUMBERS / n_players) ** 0.5)))
    if n_points > most:
        chosen = torch.linspace(0, n_points - 1, most, device=seats.device).long()
        seats, residual, known = seats[:, chosen], residual[:, chosen], known[:, chosen]
    rate = _RATE * log(n_players)
    start = torch.full((len(seats), 2 * n_players + 1), rate, dtype=torch.float64, device=seats.device)
    start[:, n_players:], start[:, -1] = _LENGTH, _NOISE
    with torch.inference_mode(False), torch.enable_grad():
        distances, seats, residual, known = (part.clone() for part in (distances, seats, residual, known))

        def slope(logs: Tensor) -> Tensor:
            logs = logs.detach().requires_grad_()
            kernel, noise = _read(logs)
            alike = sum_at_seats(kernel.factors(distances).log(), seats, seats).exp()
            slopes = _slopes(alike.detach(), noise.detach(), residual, known)
            doubt = _doubt(logs, rate).sum()
            return torch.autograd.grad([alike, noise, doubt], [logs], [*slopes, torch.ones_like(doubt)])[0]

        return _read(descended(start, slope, _STEPS, _STEP))


def _read(logs: Float[Tensor, "R A"]) -> tuple[InputKernel, Float[Tensor, " R"]]:
    rates, lengths = logs[:, :-1].exp().chunk(2, dim=1)
    return InputKernel(rates, lengths), logs[:, -1].exp()


def _doubt(logs: Float[Tensor, "R A"], rate: float) -> Float[Tensor, " R"]:
    rates, lengths = logs[:, :-1].chunk(2, dim=1)
    squares = _TRUST_RATE * (rates - rate).square().sum(1) + _TRUST_LENGTH * (lengths - _LENGTH).square().sum(1)
    return squares + _TRUST_NOISE * (logs[:, -1] - _NOISE).square()


def _slopes(
    alike: Float[Tensor, "R N N"], noise: Float[Tensor, " R"], residual: Float[Tensor, "R N"], known: Bool[Tensor, "R N"]
) -> tuple[Float[Tensor, "R N N"], Float[Tensor, " R"]]:
    """Gradients of minus the log density of what was seen: of kernel and noise."""
    slopes = likelihood_slopes(_covariance(alike, known, noise), residual, known)
    return slopes, slopes.diagonal(dim1=-2, dim2=-1).sum(-1)
