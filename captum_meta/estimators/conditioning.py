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
    """Cholesky factors of lower triangles, with a larger ridge where rounding has spoilt one. NaN spoils its row alone.

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
class Factor:
    """One Cholesky factor L of the pairs' covariance, and what was multiplied by its inverse, which is white.

    Processes share it where waves are fewer than pairs; they are then not in it.
    """

    within: float
    """Share of the waves in the covariance."""
    factor: Float[Tensor, "*batch P P"]  # (*batch, P, P), L
    residual: Float[Tensor, "*batch P 1"]  # (*batch, P, 1), what the pairs have beyond the prior mean, white
    shapley: Float[Tensor, "*batch P M"]  # (*batch, P, M), covariance of the pairs with the Shapley values, without waves
    at: Float[Tensor, "*batch P Q"]  # (*batch, P, Q), the waves at the pairs
    of_waves: Float[Tensor, "*batch Q M"]  # (*batch, Q, M), their Shapley values
    waves: Float[Tensor, "*batch P Q"] | None = None  # (*batch, P, Q), the waves at the pairs, white, if not within
    white: Float[Tensor, "*batch P M"] | None = None  # (*batch, P, M), the values, if they are known

    def whitened(self, columns: Float[Tensor, "*batch P A"]) -> Float[Tensor, "*batch P A"]:
        """L^-1 times ``columns (*batch, P, A)``."""
        return torch.linalg.solve_triangular(self.factor, columns, upper=False)

    @cached_property
    def values(self) -> Float[Tensor, "*batch P M"]:
        """Covariance of the pairs with the Shapley values, white, ``(*batch, P, M)``."""
        if self.white is not None:
            return self.white
        within = self.shapley.add(self.at @ self.of_waves, alpha=self.within) if self.within else self.shapley
        return self.whitened(within)

    @cached_property
    def gram(self) -> Float[Tensor, "*batch Q Q"]:
        """Inner products of the white waves, ``(*batch, Q, Q)``."""
        assert self.waves is not None
        return self.waves.mT @ self.waves

    @cached_property
    def cross(self) -> Float[Tensor, "*batch Q M"]:
        """Inner products of the white waves and values, ``(*batch, Q, M)``."""
        assert self.waves is not None
        return self.waves.mT @ self.values

    def first(self, count: int) -> Factor:
        """That of the first ``count`` pairs: the first rows of a factor, and of white columns, are theirs alone."""
        factor, waves = self.factor[..., :count, :count], None if self.waves is None else self.waves[..., :count, :]
        residual, shapley, at = (part[..., :count, :] for part in (self.residual, self.shapley, self.at))
        return Factor(self.within, factor, residual, shapley, at, self.of_waves, waves, self.values[..., :count, :])


@dataclass(frozen=True)
class Given:
    """The Gaussian process with one share of the waves, conditioned on the pairs seen.

    Where waves are not in the factor, with white ones W the inverse of I + s W W^T comes from the factor of I + s W^T W
    (Woodbury).
    """

    share: float
    base: Factor

    @cached_property
    def inner(self) -> Float[Tensor, "*batch Q Q"] | None:
        """Factor of I + s W^T W, ``(*batch, Q, Q)``; None without waves beside the factor's."""
        if self.share == self.base.within:
            return None
        gram = self.share * self.base.gram
        return torch.linalg.cholesky_ex(gram + torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device))[0]

    def _explained(self, along: Tensor) -> Tensor:
        """Columns whose inner products are the part of those of white ones that waves explain.

        Args:
            along: the white waves' inner products with these, ``(*batch, Q, A)``.
        """
        assert self.inner is not None
        return torch.linalg.solve_triangular(self.inner, self.share**0.5 * along, upper=False)

    def _along(self, white: Float[Tensor, "*batch P A"]) -> Float[Tensor, "*batch Q A"]:
        assert self.base.waves is not None
        return self.base.waves.mT @ white

    @cached_property
    def _explained_residual(self) -> Tensor:
        return self._explained(self._along(self.base.residual))

    @cached_property
    def _of_waves(self) -> Float[Tensor, "*batch Q M"]:
        """The waves' inner products with their part of the white values."""
        return self.share * (self.base.gram @ self.base.of_waves)

    @cached_property
    def _explained_values(self) -> Tensor:
        return self._explained(self.base.cross + self._of_waves)

    @cached_property
    def surprise(self) -> Float[Tensor, "*batch"]:
        """Squared residuals in units of their covariance, summed, ``(*batch,)``."""
        plain = self.base.residual.square().sum((-2, -1))
        return plain if self.inner is None else plain - self._explained_residual.square().sum((-2, -1))

    def log_volume(self) -> Float[Tensor, "*batch"]:
        """Logarithm of the square root of the covariance's determinant, ``(*batch,)``."""
        factors = (self.base.factor,) if self.inner is None else (self.base.factor, self.inner)
        return torch.stack([factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) for factor in factors]).sum(0)

    def correction(self) -> Float[Tensor, "*batch M"]:
        """``(*batch, M)``, Shapley values beyond the prior mean's. White values, which take long, are not needed."""
        coefficients = self.coefficients()
        plain = self.base.shapley.mT @ coefficients
        if self.share:
            plain = plain.add(self.base.of_waves.mT @ (self.base.at.mT @ coefficients), alpha=self.share)
        return plain.squeeze(-1)

    def correction_from(self, residual: Float[Tensor, "*batch P 1"]) -> Float[Tensor, "*batch M"]:
        """The same for another white ``residual (*batch, P, 1)``."""
        plain = self.base.values.mT @ residual
        if self.inner is not None:
            along = self._along(residual)
            of_waves = (self.share * self.base.of_waves).mT @ along
            plain = plain + of_waves - self._explained_values.mT @ self._explained(along)
        return plain.squeeze(-1)

    def known(self) -> Float[Tensor, "*batch M"]:
        """Reduction of each Shapley value's variance by the pairs seen, ``(*batch, M)``."""
        plain = self.base.values.square().sum(-2)
        if self.inner is None:
            return plain
        of_waves = (self.share * self.base.of_waves * (2 * self.base.cross + self._of_waves)).sum(-2)
        return plain + of_waves - self._explained_values.square().sum(-2)

    def coefficients(self) -> Float[Tensor, "*batch P 1"]:
        """The inverse of the covariance times the residual, ``(*batch, P, 1)``."""
        right = self.base.residual
        if self.base.waves is not None and self.inner is not None:
            explained = torch.linalg.solve_triangular(self.inner.mT, self._explained_residual, upper=True)
            right = right - self.share**0.5 * (self.base.waves @ explained)
        return torch.linalg.solve_triangular(self.base.factor.mT, right, upper=True)

    def left_out(self, inverse: Float[Tensor, "*batch P P"]) -> Float[Tensor, "*batch P"]:
        """How far each pair is from what all others let expect, ``(*batch, P)``, with the inverse of L (Dubrule 1983)."""
        precisions = inverse.square().sum(-2)
        if self.inner is not None:
            precisions = precisions - self._explained(self._along(inverse)).square().sum(-2)
        return self.coefficients().squeeze(-1) / precisions


def conditioned(
    among: Float[Tensor, "*batch P P"],
    residual: Float[Tensor, "*batch P 1"],
    values: Float[Tensor, "*batch P M"],
    waves: Float[Tensor, "*batch P Q"],
    of_waves: Float[Tensor, "*batch Q M"],
) -> list[Given]:
    """The processes of all shares.

    Args:
        among: ``(*batch, P, P)``, covariance of the pairs without waves, of which the lower triangle is read.
        residual, values: ``(*batch, P, 1)``, what the pairs have beyond the prior mean, and ``(*batch, P, M)``, their
            covariance with the Shapley values, without waves.
        waves, of_waves: ``(*batch, P, Q)`` and ``(*batch, Q, M)``, at the pairs, and their Shapley values.
    """
    known = (values, waves, of_waves)
    if waves.shape[-1] >= waves.shape[-2]:
        more, given = waves @ waves.mT, []
        for share in SHARES:
            factor = cholesky_factor(among.add(more, alpha=share))
            white = torch.linalg.solve_triangular(factor, residual, upper=False)
            given.append(Given(share, Factor(share, factor, white, *known)))
        return given
    factor = cholesky_factor(among)
    right = torch.linalg.solve_triangular(factor, torch.cat([residual, waves], dim=-1), upper=False)
    white, white_waves = right.tensor_split([1], dim=-1)
    shared = Factor(0.0, factor, white, *known, white_waves)
    return [Given(share, shared) for share in SHARES]
