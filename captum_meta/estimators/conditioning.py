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

    L is the Cholesky factor of the covariance with its waves, or, where waves are fewer than pairs, of that without them:
    then the inverse of I + W W^T comes from the factor of I + W^T W (Woodbury). White is what was multiplied by L^-1.
    """

    share: float
    factor: Float[Tensor, "*batch P P"]  # (*batch, P, P), L
    residual: Float[Tensor, "*batch P 1"]  # (*batch, P, 1), what the pairs have beyond the prior mean, white
    shapley: Float[Tensor, "*batch P M"]  # (*batch, P, M), covariance of the pairs with the Shapley values, without waves
    at: Float[Tensor, "*batch P Q"]  # (*batch, P, Q), the waves at the pairs
    of_waves: Float[Tensor, "*batch Q M"]  # (*batch, Q, M), their Shapley values
    waves: Float[Tensor, "*batch P Q"] | None = None  # (*batch, P, Q), W, white
    inner: Float[Tensor, "*batch Q Q"] | None = None  # (*batch, Q, Q), factor of I + W^T W
    without: Given | None = None  # with the same factor and no waves

    def whitened(self, columns: Float[Tensor, "*batch P A"]) -> Float[Tensor, "*batch P A"]:
        """L^-1 times ``columns (*batch, P, A)``."""
        return torch.linalg.solve_triangular(self.factor, columns, upper=False)

    def _explained(self, white: Tensor) -> Tensor:
        """Columns whose inner products are the part of those of ``white (*batch, P, A)`` that waves explain."""
        assert self.waves is not None and self.inner is not None
        return torch.linalg.solve_triangular(self.inner, self.waves.mT @ white, upper=False)

    @cached_property
    def values(self) -> Float[Tensor, "*batch P M"]:
        """The covariance of the pairs with the Shapley values, white, ``(*batch, P, M)``."""
        if self.without is None or self.waves is None:
            return self.whitened(self.shapley.add(self.at @ self.of_waves, alpha=self.share) if self.share else self.shapley)
        return self.without.values.add(self.waves @ self.of_waves, alpha=self.share**0.5)

    @cached_property
    def surprise(self) -> Float[Tensor, "*batch"]:
        """Squared residuals in units of their covariance, summed, ``(*batch,)``."""
        plain = self.residual.square().sum((-2, -1))
        return plain if self.inner is None else plain - self._explained(self.residual).square().sum((-2, -1))

    def log_volume(self) -> Float[Tensor, "*batch"]:
        """Logarithm of the square root of the covariance's determinant, ``(*batch,)``."""
        factors = (self.factor,) if self.inner is None else (self.factor, self.inner)
        return torch.stack([factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) for factor in factors]).sum(0)

    @cached_property
    def _explained_values(self) -> Tensor:
        return self._explained(self.values)

    def correction(self) -> Float[Tensor, "*batch M"]:
        """``(*batch, M)``, Shapley values beyond the prior mean's. White values, which take long, are not needed."""
        coefficients = self.coefficients()
        plain = self.shapley.mT @ coefficients
        if self.share:
            plain = plain.add(self.of_waves.mT @ (self.at.mT @ coefficients), alpha=self.share)
        return plain.squeeze(-1)

    def correction_from(self, residual: Float[Tensor, "*batch P 1"]) -> Float[Tensor, "*batch M"]:
        """The same for another white ``residual (*batch, P, 1)``."""
        plain = self.values.mT @ residual
        if self.inner is not None:
            plain = plain - self._explained_values.mT @ self._explained(residual)
        return plain.squeeze(-1)

    def correction_of_first(self, count: int) -> Float[Tensor, "*batch M"]:
        """The same from the first ``count`` pairs: the first rows of a factor, and of white columns, are theirs alone."""
        residual, values = self.residual[..., :count, :], self.values[..., :count, :]
        plain = values.mT @ residual
        if self.waves is not None:
            waves = self.waves[..., :count, :]
            inner = _inner(waves.mT @ waves)
            of_residual, of_values = (
                torch.linalg.solve_triangular(inner, waves.mT @ white, upper=False) for white in (residual, values)
            )
            plain = plain - of_values.mT @ of_residual
        return plain.squeeze(-1)

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
        residual, values: ``(*batch, P, 1)``, what the pairs have beyond the prior mean, and ``(*batch, P, M)``, their
            covariance with the Shapley values, without waves.
        waves, of_waves: ``(*batch, P, Q)`` and ``(*batch, Q, M)``, at the pairs, and their Shapley values.
    """
    known = (values, waves, of_waves)
    if waves.shape[-1] >= waves.shape[-2]:
        more = waves @ waves.mT
        factors = [cholesky_factor(among.add(more, alpha=share)) for share in SHARES]
        white = [torch.linalg.solve_triangular(factor, residual, upper=False) for factor in factors]
        return [Given(*parts, *known) for parts in zip(SHARES, factors, white, strict=True)]
    factor = cholesky_factor(among)
    right = torch.linalg.solve_triangular(factor, torch.cat([residual, waves], dim=-1), upper=False)
    residual, white_waves = right.tensor_split([1], dim=-1)
    without, gram = Given(0.0, factor, residual, *known), white_waves.mT @ white_waves
    given = [without]
    for share in SHARES[1:]:
        given.append(Given(share, factor, residual, *known, share**0.5 * white_waves, _inner(share * gram), without))
    return given
