"""Deep kernel transfer."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from captum_meta.learners._coordinates import COORDINATES
from captum_meta.learners._kernel import LENGTH, LINEAR, SHARED, Features, KernelRegression
from captum_meta.learners._relative import loss_against_zero_shot
from captum_meta.nn import EvidenceEncoder, Explainer, Prior
from captum_meta.nn.blocks import draw_normal
from captum_meta.nn.encoders import Statistics
from captum_meta.types import Evidence, ExplanationTask

_WAVES = 8
_AMPLITUDE, _NOISE = 2.0, 3.0
"""Largest logarithms of the amplitude and of the noise, either way."""


class DeepKernelTransfer(KernelRegression):
    r"""Kernel ridge regression of the zero-shot residual with a kernel learned over many tasks (Patacchiola et al. 2020).

    As :class:`KernelRidge`, but with the features

    .. math:: \psi = e^{a(h)} \big[\sqrt\rho\, \varphi(\Lambda z, V h),\; W h\big], \qquad
        \chi = e^{a(h)} \big[\sqrt{1 - \rho}\, \varphi(\Lambda z, V h),\; U h\big], \qquad
        \epsilon \sim N(0, \tau e^{b(h)})

    of what is shared and of what is each player's own. h is the encoding of a player within its row, phi are the
    random waves and lines of :class:`KernelRidge`, and the scales Lambda, the maps V, W and U, the amplitude a, the noise b
    and the share rho are learned so that the regression, its choices included, explains other rows of the same model. It
    begins close to the kernel of :class:`KernelRidge`.

    Args:
        explainer: the meta-trained explainer.
        encoder: h, by default of the width 48.
        shared: dimensions of W h.
        own: dimensions of U h.
        confidence, features: as in :class:`KernelRidge`.
    """

    directions: Tensor

    def __init__(
        self,
        explainer: Explainer,
        encoder: EvidenceEncoder | Mapping[str, Any] | None = None,
        shared: int = 32,
        own: int = 16,
        confidence: float = 1.0,
        features: int = 64,
    ) -> None:
        super().__init__(explainer, confidence, features)
        built = EvidenceEncoder(**encoder) if isinstance(encoder, Mapping) else encoder
        self.encoder = built or EvidenceEncoder(int(explainer.width))  # type: ignore[arg-type]
        self.shared, self.own = shared, own
        width = self.encoder.width
        self.log_scales = nn.Parameter(torch.zeros(COORDINATES))
        self.log_linear = nn.Parameter(torch.tensor(log(LINEAR)))
        self.share = nn.Parameter(torch.tensor(log(SHARED / (1 - SHARED))))
        self.wave_map = nn.Linear(width, _WAVES, bias=False)
        self.shared_map, self.own_map = nn.Linear(width, shared, bias=False), nn.Linear(width, own, bias=False)
        for layer in (self.wave_map, self.shared_map, self.own_map):
            draw_normal(layer.weight, 0.1 / width**0.5)
        self.amplitude, self.log_noise = nn.Linear(width, 1), nn.Linear(width, 1)
        for layer in (self.amplitude, self.log_noise):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        generator = torch.Generator().manual_seed(1)
        directions = torch.randn(_WAVES, features // 2, generator=generator, device="cpu", dtype=torch.float32) / LENGTH
        self.register_buffer("directions", directions, persistent=False)

    def arguments(self) -> dict[str, object]:
        encoder = dict(self.encoder.arguments())
        return {"encoder": encoder, "shared": self.shared, "own": self.own, **super().arguments()}

    def kernel(self, z: Float[Tensor, "*batch M A"], prior: Prior, evidence: Evidence, statistics: Statistics) -> Features:
        hidden = self.encoder(prior, evidence, statistics)
        scaled = z * self.log_scales.exp()
        waves = self.waves(scaled @ self.frequencies.to(z) + self.wave_map(hidden) @ self.directions.to(z))
        slope = (self.log_linear / 2).exp()
        common = torch.cat([waves, slope * scaled, slope.expand_as(z[..., :1])], dim=-1)
        share = self.share.sigmoid()
        shared = torch.cat([share.sqrt() * common, self.shared_map(hidden)], dim=-1)
        own = torch.cat([(1 - share).sqrt() * common, self.own_map(hidden)], dim=-1)
        amplitude = _within(self.amplitude(hidden), _AMPLITUDE).exp()
        return Features(amplitude * shared, amplitude * own, _within(self.log_noise(hidden), _NOISE).exp().squeeze(-1))

    def loss(self, tasks: ExplanationTask) -> Float[Tensor, ""]:
        """How much worse than zero-shot the adapted explanations are, as for the metric-based learners."""
        return loss_against_zero_shot(self, tasks)


def _within(values: Tensor, bound: float) -> Tensor:
    return bound * torch.tanh(values / bound)
