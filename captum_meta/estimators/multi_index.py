"""Games of few directions: a prior for worths that depend on a few weighted sums of the players.

A saturated class probability is a bent line: a function of one weighted sum of the players, whose interactions are of every
order and yet known once the bend is known. A network is a function of several such sums (a multi-index model: Li 1991); the
gradients at the ends and the middle of the path span them. With s in {-1, 1}^M for "in" and "out" and directions
:math:`g_d`, a smooth random function of the indices :math:`g_d \\cdot s` has an odd part with covariance

    k(s, t) = sum_q a_q sin(w_q s) sin(w_q t),  w_q = sum_d omega_qd g_d

in random Fourier features (Rahimi and Recht 2007). The Shapley values of each wave are closed-form.
"""

from __future__ import annotations

from functools import lru_cache
from math import pi

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from captum_meta._numbers import TINY
from captum_meta.estimators.quadrature import gauss_legendre

_JOINT, _SINGLE = 64, 8
"""Waves across all directions, and along each."""
_SPREAD, _LENGTH = 2.0, 0.3
"""Standard deviation of the joint frequencies, and length of the Matern-3/2 functions of one index in [-1, 1]."""
_MAX_NODES = 8


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def spectrum(n_directions: int) -> tuple[Float[Tensor, "Q D"], Float[Tensor, " Q"]]:
    """Frequencies omega ``(Q, D)`` and amplitudes a ``(Q,)``, which sum to 1."""
    joint = _SPREAD * torch.randn(_JOINT, n_directions, generator=Generator().manual_seed(1)).double()
    single = pi * (torch.arange(_SINGLE).double() + 0.5)
    matern = (1 + (single * _LENGTH).square()) ** -2
    amplitudes = [torch.full((_JOINT,), 1 / _JOINT).double(), (matern / matern.sum() / n_directions).repeat(n_directions)]
    along = torch.kron(torch.eye(n_directions).double(), single.unsqueeze(-1))
    return torch.cat([joint, along]), torch.cat(amplitudes) / 2


def _half_of_the_nodes(n_players: int) -> list[tuple[float, float]]:
    """Values of 2 t - 1, none negative, and their weights, for even polynomials of degree below ``n_players``."""
    nodes, weights = gauss_legendre(min(_MAX_NODES, (n_players + 1) // 2))
    both = zip((2 * nodes - 1).tolist(), weights.tolist(), strict=True)
    return [(node, weight if node < 1e-9 else 2 * weight) for node, weight in both if node > -1e-9]


class MultiIndexWaves:
    """The waves sqrt(a_q) sin(w_q s), whose inner products are the covariance, in the precision of the directions.

    Args:
        directions: ``(*batch, D, M)``; their lengths do not matter, and those of zeros are ignored.
    """

    def __init__(self, directions: Float[Tensor, "*batch D M"]) -> None:
        directions = directions / directions.abs().sum(-1, keepdim=True).clamp(min=TINY)
        frequencies, amplitudes = spectrum(directions.shape[-2])
        self._frequencies = frequencies.to(directions) @ directions
        self._sizes = amplitudes.to(directions).sqrt()

    def at(self, signs: Float[Tensor, "*batch P M"]) -> Float[Tensor, "*batch P Q"]:
        """``(*batch, P, Q)`` at the coalitions ``(*batch, P, M)`` of -1 and 1."""
        return self._sizes * torch.sin(signs @ self._frequencies.mT)

    def shapley_values(self) -> Float[Tensor, "*batch Q M"]:
        r"""``(*batch, Q, M)``, by the multilinear extension.

        .. math:: \phi_i(\sin w \cdot s) = 2 \sin w_i \int_0^1 \mathrm{Re} \prod_{j \neq i}
            (\cos w_j + \mathrm{i} (2 t - 1) \sin w_j) \, dt

        The integrand is even in 2 t - 1, so that half of the nodes will do.
        """
        angles = self._frequencies.mT.contiguous()  # products over what is not the last dimension take a fourth of the time
        sine, cosine = angles.sin(), angles.cos()
        squares, rest, others = sine.square(), cosine.square(), torch.zeros_like(sine)
        for node, weight in _half_of_the_nodes(sine.shape[-2]):
            product = torch.complex(cosine, node * sine).prod(-2, keepdim=True)
            # The product over its own factor, by the factor's conjugate and square.
            conjugate = torch.addcmul(product.real * cosine, sine, product.imag, value=node)
            others = torch.addcdiv(others, conjugate, torch.add(rest, squares, alpha=node**2), value=weight)
        return (self._sizes * 2 * sine * others).mT


class FullWaves(MultiIndexWaves):
    """Waves of both parts, odd and even: sqrt(a_q) times the cosine and sine of w_q s."""

    def at(self, signs: Float[Tensor, "*batch P M"]) -> Float[Tensor, "*batch P Q"]:
        """``(*batch, P, 2 Q)`` at the coalitions ``(*batch, P, M)`` of -1 and 1: cosines, then sines."""
        angles = signs @ self._frequencies.mT
        return torch.cat([self._sizes * angles.cos(), self._sizes * angles.sin()], dim=-1)

    def slopes(
        self, weights: Float[Tensor, "*batch Q"], t: float
    ) -> tuple[Float[Tensor, "*batch M"], Float[Tensor, "*batch M M"]]:
        r"""Derivatives on the diagonal t of the multilinear extension of the waves' sum with ``weights (*batch, 2 Q)``.

        .. math:: E_t[e^{\mathrm{i} w \cdot s}] = \prod_j (\cos w_j + \mathrm{i} (2 t - 1) \sin w_j)

        Returns:
            First derivatives ``(*batch, M)``, and second ones ``(*batch, M, M)``, whose diagonal means nothing.
        """
        cosine, sine = weights.chunk(2, dim=-1)
        factors = torch.complex(self._frequencies.cos(), (2 * t - 1) * self._frequencies.sin())
        products = torch.complex(cosine, -sine) * self._sizes * factors.prod(-1)
        gains = 2j * self._frequencies.sin() / factors
        pairs = (gains.mT * products.unsqueeze(-2)) @ gains
        return (products.unsqueeze(-2) @ gains).squeeze(-2).real, pairs.real

    def at_sums(
        self, weights: Float[Tensor, "*batch Q"], first: Float[Tensor, "A M"], second: Float[Tensor, "B M"]
    ) -> Float[Tensor, "*batch B A"]:
        """Sums of the waves with ``weights (*batch, 2 Q)`` at all sums of ``first (A, M)`` and ``second (B, M)``."""
        cosine, sine = weights.chunk(2, dim=-1)
        one, two = ((1j * (signs @ self._frequencies.mT)).exp() for signs in (first, second))
        return ((two * (torch.complex(cosine, -sine) * self._sizes).unsqueeze(-2)) @ one.mT).real
