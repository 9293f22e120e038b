"""A learned optimizer with memory: a small LSTM applied to every coordinate."""

from __future__ import annotations

from math import exp, log

import torch
from torch import Tensor, nn

from captum_meta._numbers import positive
from captum_meta.optim.flat import Layout
from captum_meta.optim.rules import UpdateRule

_P = 10.0
_FLOOR = 1e-2


class CoordinatewiseLSTM(UpdateRule):
    r"""An LSTM from the gradients of a coordinate, one after another, to its steps (Andrychowicz et al. 2016).

    .. math:: \theta \leftarrow \theta + \alpha_j \sigma_j g, \qquad (g, h) \leftarrow LSTM(\nabla, h)

    where j is the coordinate's tensor, alpha a learned rate and sigma the root mean square of the tensor where the loop
    starts. The gradient enters as its logarithm and sign (:func:`log_sign`). The cells are written from products of
    matrices: ``torch.nn.LSTM`` can neither be vectorised by ``torch.func`` nor, on a GPU, be differentiated twice.

    Args:
        names: of the tensors.
        width: hidden units of each layer.
        layers: of the LSTM.
        rate: from which the rates are learned.
    """

    def __init__(self, names: list[str], width: int = 20, layers: int = 2, rate: float = 0.01) -> None:
        super().__init__()
        self.names, self.width = names, width
        self.log_rates = nn.Parameter(torch.full((len(names),), log(positive("rate", rate)) / 10))
        inputs = [2, *[width] * (layers - 1)]
        generator = torch.Generator().manual_seed(0)

        def random(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(rows, columns, generator=generator, device="cpu") - 1) / width**0.5)

        self.input_weights = nn.ParameterList([random(4 * width, size) for size in inputs])
        self.hidden_weights = nn.ParameterList([random(4 * width, width) for _ in inputs])
        self.biases = nn.ParameterList([random(4 * width, 1) for _ in inputs])
        self.outer = random(1, width)

    def initial_memory(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        layout = Layout.of(parameters)
        start = layout.flatten(parameters)
        zero = start.new_zeros(len(start), len(self.biases), self.width, start.shape[1])
        return {"scale": layout.rms(start, _FLOOR), "hidden": zero, "cell": zero}

    def update(
        self, step: int, parameters: dict[str, Tensor], gradients: dict[str, Tensor], memory: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        layout = Layout.of(parameters)
        values, signal = layout.flatten(parameters), log_sign(layout.flatten(gradients), _P)
        hidden, cells = [], []
        for layer, weights in enumerate(zip(self.input_weights, self.hidden_weights, self.biases, strict=True)):
            signal, cell = lstm_cell(signal, memory["hidden"][:, layer], memory["cell"][:, layer], *weights)
            hidden.append(signal)
            cells.append(cell)
        rates = layout.repeat((10 * self.log_rates).exp() * memory["scale"])
        moved = values + rates * (self.outer @ signal).squeeze(1)
        return layout.unflatten(moved), {
            "scale": memory["scale"],
            "hidden": torch.stack(hidden, 1),
            "cell": torch.stack(cells, 1),
        }


def log_sign(gradient: Tensor, p: float) -> Tensor:
    r"""Size and sign of numbers of very different size, each in [-1, 1] as long as these are below 1, ``(T, 2, P)``.

    .. math:: \nabla \to \begin{cases} (\log|\nabla| / p, \operatorname{sgn} \nabla) & |\nabla| \ge e^{-p} \\
        (-1, e^p \nabla) & \text{else} \end{cases}
    """
    large = gradient.abs() >= exp(-p)
    size = torch.where(large, torch.where(large, gradient.abs(), 1.0).log() / p, -1.0)
    return torch.stack([size, torch.where(large, gradient.sign(), exp(p) * gradient)], 1)


def lstm_cell(
    inputs: Tensor, hidden: Tensor, cell: Tensor, input_weight: Tensor, hidden_weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """``torch.nn.LSTMCell`` over ``(T, features, P)``: new hidden units and cells."""
    gates = input_weight @ inputs + hidden_weight @ hidden + bias
    enter, forget, new, leave = gates.chunk(4, 1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(cell), cell
