"""A small learned optimizer: an MLP applied to every coordinate."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor, nn

from captum_meta._numbers import positive
from captum_meta.optim.flat import Layout
from captum_meta.optim.rules import UpdateRule

DECAYS = (0.5, 0.9, 0.99)
"""Decays of the momenta; the last is also that of the mean square."""
TIMES = (1.0, 3.0, 10.0, 30.0)
"""Time scales, in steps."""
_ADAM = 1
"""Index of the feature that is Adam's direction."""
_TINY = 1e-8
_FLOOR = 1e-2
_UNIT = 10.0


class CoordinatewiseMLP(UpdateRule):
    r"""An MLP from features of a coordinate to its step (Metz et al. 2019, 2022).

    .. math:: \theta \leftarrow \theta + \alpha_j \sigma_j e^b \Big(a - \frac{m}{\sqrt v}\Big)

    where direction a and log magnitude b are its outputs, j the coordinate's tensor, alpha a learned rate, sigma the root
    mean square of the tensor where the loop starts, m and v momentum and mean square of the gradient. With a = b = 0, as
    before training, this is Adam with rates relative to the tensors. :meth:`features` lists the inputs.

    Args:
        names: of the tensors.
        width: of the two hidden layers.
        rate: from which the rates are learned.
    """

    def __init__(self, names: list[str], width: int = 16, rate: float = 0.01) -> None:
        super().__init__()
        self.names = names
        self.log_rates = nn.Parameter(torch.full((len(names),), log(positive("rate", rate)) / 10))
        n_features = 5 + 2 * len(DECAYS)
        generator = torch.Generator().manual_seed(0)
        self.inner = nn.Parameter(torch.randn(width, n_features, generator=generator, device="cpu") / n_features**0.5)
        self.times = nn.Parameter(torch.randn(width, len(TIMES), generator=generator, device="cpu") / len(TIMES) ** 0.5)
        self.hidden = nn.Parameter(torch.randn(width, width, generator=generator, device="cpu") * (2 / width) ** 0.5)
        self.outer = nn.Parameter(torch.zeros(2, width))
        self.inner_bias, self.hidden_bias, self.outer_bias = (
            nn.Parameter(torch.zeros(size, 1)) for size in (width, width, 2)
        )

    def initial_memory(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        layout = Layout.of(parameters)
        start = layout.flatten(parameters)
        zero = torch.zeros_like(start)
        scale = layout.repeat(layout.rms(start, _FLOOR))
        return {"start": start, "scale": scale, "momenta": torch.stack([zero] * len(DECAYS), 1), "square": zero}

    def update(
        self, step: int, parameters: dict[str, Tensor], gradients: dict[str, Tensor], memory: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        layout = Layout.of(parameters)
        values, gradient = layout.flatten(parameters), layout.flatten(gradients)
        decays = gradient.new_tensor(DECAYS)
        momenta = memory["momenta"] + (1 - decays[:, None]) * (gradient.unsqueeze(1) - memory["momenta"])
        square = memory["square"] + (1 - decays[-1]) * (gradient.square() - memory["square"])
        memory = {**memory, "momenta": momenta, "square": square}
        features = self.features(step, layout, values, gradient, memory)
        direction, magnitude = self.outputs(step, features).unbind(1)
        rates = layout.repeat((10 * self.log_rates).exp()) * memory["scale"]
        return layout.unflatten(values + rates * magnitude.exp() * (direction - features[:, _ADAM])), memory

    def features(self, step: int, layout: Layout, values: Tensor, gradient: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Features of each coordinate, ``(T, F, P)``.

        Momenta over the coordinate's own root mean square gradient; gradient and momenta over their root mean square in
        the tensor; logarithms of the gradient's two root mean squares; the parameter and its way from the start,
        relative to the tensor's start.
        """
        corrections = 1 - gradient.new_tensor(DECAYS) ** (step + 1)
        own = (memory["square"] / corrections[-1] + _TINY**2).sqrt()
        momenta = memory["momenta"] / corrections[:, None]
        signals = torch.cat([gradient.unsqueeze(1), momenta], 1)
        sizes = layout.repeat(layout.rms(signals, _TINY))
        logarithms = torch.stack([sizes[:, 0], own / sizes[:, 0]], 1).log() / _UNIT
        positions = torch.stack([values, values - memory["start"]], 1) / memory["scale"].unsqueeze(1)
        return torch.cat([momenta / own.unsqueeze(1), signals / sizes, logarithms, positions], 1)

    def outputs(self, step: int, features: Tensor) -> Tensor:
        """Direction and log magnitude, ``(T, 2, P)``."""
        times = torch.tanh((step + 1) / features.new_tensor(TIMES) - 1).unsqueeze(-1)
        hidden = torch.relu(self.inner @ features + (self.inner_bias + self.times @ times))
        hidden = torch.relu(self.hidden @ hidden + self.hidden_bias)
        return self.outer @ hidden + self.outer_bias
