"""Polynomials along a path, at nodes that lie anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

DEGREES, SHAPES = 3, 4


@dataclass(frozen=True)
class PathPolynomials:
    """The first Legendre polynomials on a path, orthonormal in the norm of a quadrature with G nodes.

    Attributes:
        root: ``(*batch, G)``, square roots of the quadrature's weights.
        basis: ``(*batch, G, K)``, the polynomials at the nodes times these, leading terms positive; K is four, or G if less.
    """

    root: Tensor
    basis: Tensor

    @classmethod
    def at(cls, points: Tensor, weights: Tensor) -> PathPolynomials:
        """At nodes ``points (*batch, G)`` with weights ``(*batch, G)``."""
        root, count = weights.clamp(min=0).sqrt(), min(SHAPES, points.shape[-1])
        powers = root.unsqueeze(-1) * torch.linalg.vander(2 * points - 1, N=SHAPES)[..., :count]
        basis = torch.linalg.qr(powers)[0]
        return cls(root, basis * (basis * powers).sum(-2, keepdim=True).sign())

    def without(self) -> Tensor:
        """What is left of values at the nodes without their mean, line and parabola.

        ``(*batch, 3, G, G)``, zero where the nodes are too few to have anything left.
        """
        kept = min(DEGREES, self.root.shape[-1] - 1)
        rows = self.basis.mT[..., :kept, :]
        parts = rows.unsqueeze(-1) * (rows * self.root.unsqueeze(-2)).unsqueeze(-2)
        left = torch.diag_embed(self.root).unsqueeze(-3) - parts.cumsum(-3)
        return functional.pad(left, (0, 0, 0, 0, 0, DEGREES - kept))

    def covariance_rows(self, values: Tensor) -> Tensor:
        """Weights ``(*batch, 3, G)`` of a curve in its covariance with ``values (*batch, G)``: less mean, line, parabola."""
        seen = self.root * values
        parts = self.basis * (self.basis.mT @ seen.unsqueeze(-1)).mT
        rows = ((seen.unsqueeze(-1) - parts.cumsum(-1)) * self.root.unsqueeze(-1)).mT
        rows = rows[..., : min(DEGREES, self.root.shape[-1] - 1), :]
        return functional.pad(rows, (0, 0, 0, DEGREES - rows.shape[-2]))

    def coefficient_rows(self) -> Tensor:
        """Weights ``(*batch, 4, G)`` of a curve in the coefficients of the polynomials; zero beyond the nodes."""
        rows = (self.basis * self.root.unsqueeze(-1)).mT
        return functional.pad(rows, (0, 0, 0, SHAPES - rows.shape[-2]))
