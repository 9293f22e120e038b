"""Gaussian processes with several shares of a few waves, conditioned on the same observations by few Cholesky factors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

SHARES = (0.0, 2.0, 50.0)
"""Amplitudes of the waves, over the rest of the covariance."""
_JITTER = {torch.float64: 1e-10, torch.float32: 3e-6}
"""Ridge, relative to the diagonal. Errors are equal from 1e-10 to 1e-5, also for smooth models and many coalitions."""
_FLOOR = 1e-14
"""Least ridge, for rows without any expected effect."""


def cholesky_factor(covariance: Float[Tensor, "*batch P P"]) -> Float[Tensor, "*batch P P"]:
    """Cholesky factors; with a larger ridge where rounding has spoilt one. A row of NaN spoils only itself.

    The ridge is added to ``covariance (*batch, P, P)`` in place.
    """
    ridge = (_JITTER[covariance.dtype] * covariance.diagonal(dim1=-2, dim2=-1)).clamp(min=_FLOOR)
    covariance.diagonal(dim1=-2, dim2=-1).add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed.any()):
        larger, _ = torch.linalg.cholesky_ex(covariance + torch.diag_embed(1e4 * ridge))
        factor = torch.where((failed > 0)[..., None, None], larger, factor)
    return factor


@dataclass(frozen=True)
class Given:
    """The Gaussian process with one share of the waves, conditioned on the pairs seen.

    With L the Cholesky factor, everything here is multiplied by its inverse. L is that of the covariance with its waves,
    or, where waves are fewer than pairs, of that without them: then the inverse of I + W W^T comes from the factor of
    I + W^T W (Woodbury).
    """

    factor: Float[Tensor, "*batch P P"]  # (*batch, P, P), L
    residual: Float[Tensor, "*batch P 1"]  # (*batch, P, 1), what the pairs have beyond the prior mean
    values: Float[Tensor, "*batch P M"]  # (*batch, P, M), covariance of the pairs with the Shapley values
    waves: Float[Tensor, "*batch P Q"] | None = None  # (*batch, P, Q), W
    inner: Float[Tensor, "*batch Q Q"] | None = None  # (*batch, Q, Q), factor of I + W^T W

    def whitened(self, columns: Float[Tensor, "*batch P A"]) -> Float[Tensor, "*batch P A"]:
        """L^-1 times ``columns (*batch, P, A)``."""
        return torch.linalg.solve_triangular(self.factor, columns, upper=False)

    def _explained(self, white: Tensor) -> Tensor:
        """Columns whose inner products are the part of those of ``white (*batch, P, A)`` that waves explain."""
        assert self.waves is not None and self.inner is not None
        return torch.linalg.solve_triangular(self.inner, self.waves.mT @ white, upper=False)

    @cached_property
    def _explained_values(self) -> Tensor:
        return self._explained(self.values)

    @cached_property
    def surprise(self) -> Float[Tensor, "*batch"]:
        """Squared residuals in units of their covariance, summed, ``(*batch,)``."""
        plain = self.residual.square().sum((-2, -1))
        return plain if self.inner is None else plain - self._explained(self.residual).square().sum((-2, -1))

    def log_volume(self) -> Float[Tensor, "*batch"]:
        """Logarithm of the square root of the covariance's determinant, ``(*batch,)``."""
        factors = (self.factor,) if self.inner is None else (self.factor, self.inner)
        return torch.stack([factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) for factor in factors]).sum(0)

    def correction(self, residual: Float[Tensor, "*batch P 1"] | None = None) -> Float[Tensor, "*batch M"]:
        """``(*batch, M)``, Shapley values beyond the prior mean's, also for another ``residual (*batch, P, 1)``."""
        residual = self.residual if residual is None else residual
        plain = (self.values.mT @ residual).squeeze(-1)
        if self.inner is None:
            return plain
        return plain - (self._explained_values.mT @ self._explained(residual)).squeeze(-1)

    def known(self) -> Float[Tensor, "*batch M"]:
        """Reduction of each Shapley value's variance by the pairs seen, ``(*batch, M)``."""
        plain = self.values.square().sum(-2)
        return plain if self.inner is None else plain - self._explained_values.square().sum(-2)

    def coefficients(self) -> Float[Tensor, "*batch P 1"]:
        """The inverse of the covariance times the residual, ``(*batch, P, 1)``."""
        right = self.residual
        if self.waves is not None and self.inner is not None:
            explained = torch.linalg.solve_triangular(self.inner.mT, self._explained(right), upper=True)
            right = right - self.waves @ explained
        return torch.linalg.solve_triangular(self.factor.mT, right, upper=True)

    def left_out(self, inverse: Float[Tensor, "*batch P P"]) -> Float[Tensor, "*batch P"]:
        """How far each pair is from what all others let expect, ``(*batch, P)``, with the inverse of L (Dubrule 1983)."""
        precisions = inverse.square().sum(-2)
        if self.inner is not None:
            precisions = precisions - self._explained(inverse).square().sum(-2)
        return self.coefficients().squeeze(-1) / precisions

    def first(self, count: int) -> Given:
        """Given the first ``count`` pairs: the first rows of a factor belong to them alone."""
        parts = (self.factor[..., :count, :count], self.residual[..., :count, :], self.values[..., :count, :])
        if self.waves is None:
            return Given(*parts)
        waves = self.waves[..., :count, :]
        return Given(*parts, waves, _inner(waves.mT @ waves))


def _inner(gram: Float[Tensor, "*batch Q Q"]) -> Float[Tensor, "*batch Q Q"]:
    """Factor of the identity plus ``gram``."""
    return torch.linalg.cholesky_ex(gram + torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device))[0]


def conditioned(
    among: Float[Tensor, "*batch P P"],
    residual: Float[Tensor, "*batch P 1"],
    values: Float[Tensor, "*batch P M"],
    waves: Float[Tensor, "*batch P Q"],
    of_waves: Float[Tensor, "*batch Q M"],
) -> list[Given]:
    """The processes of all shares.

    Args:
        among: ``(*batch, P, P)``, covariance of the pairs without waves.
        residual, values: ``(*batch, P, 1)`` and ``(*batch, P, M)``, as for :class:`Given`, the latter without waves.
        waves, of_waves: ``(*batch, P, Q)`` and ``(*batch, Q, M)``, at the pairs, and their Shapley values.
    """
    if waves.shape[-1] >= waves.shape[-2]:
        more = waves @ waves.mT
        columns = [torch.cat([residual, values.add(waves @ of_waves, alpha=share)], dim=-1) for share in SHARES]
        factors = [cholesky_factor(among.add(more, alpha=share)) for share in SHARES]
        white = [torch.linalg.solve_triangular(f, c, upper=False) for f, c in zip(factors, columns, strict=True)]
        return [Given(f, w[..., :1], w[..., 1:]) for f, w in zip(factors, white, strict=True)]
    factor = cholesky_factor(among)
    right = torch.linalg.solve_triangular(factor, torch.cat([residual, values, waves], dim=-1), upper=False)
    residual, values, waves = right.split([1, values.shape[-1], waves.shape[-1]], dim=-1)
    gram, along = waves.mT @ waves, waves @ of_waves
    given = [Given(factor, residual, values)]
    for share in SHARES[1:]:
        parts = (values.add(along, alpha=share), share**0.5 * waves, _inner(share * gram))
        given.append(Given(factor, residual, *parts))
    return given
