"""Draws explanations of a fixed batch while a model is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from captum.attr import Attribution
from lightning import LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from captum_meta._captum import format_tensor_into_tuples
from captum_meta._model import unmoved_random_state
from captum_meta.tasks.labelling import evaluating

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tensors = Tensor | tuple[Tensor, ...]


class AttributionCallback(Callback):
    """Draws the explanations of a fixed batch while any Lightning model is trained.

    Images (``(B, 1 or 3, H, W)``) are shown with their attributions summed over channels; other inputs as a map of examples
    by features. A figure goes to a PNG file and to those loggers that take figures (TensorBoard's ``add_figure``). Training
    is as it would be without: the model is explained in eval mode and on one rank, and modes, gradients and random numbers
    are afterwards what they were.

    Args:
        method: any Captum method over the model in training, or a function that makes one from it, such as
            ``lambda model: MetaKernelShap(model)``.
        inputs: the batch.
        every_n_epochs: how often.
        folder: of the figures; by default ``attributions`` in the logger's folder.
        arguments: of ``method.attribute``, such as ``{"target": labels, "n_steps": 20}``.

    Raises:
        ImportError: if matplotlib is missing.
    """

    def __init__(
        self,
        method: Attribution | Callable[[LightningModule], Attribution],
        inputs: Tensors,
        every_n_epochs: int = 1,
        folder: str | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        try:
            import matplotlib  # noqa: F401
        except ImportError as error:
            raise ImportError("AttributionCallback draws with matplotlib: pip install 'captum-meta[plots]'.") from error
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs must be at least 1, got {every_n_epochs}.")
        self.method, self.inputs = method, inputs
        self.every_n_epochs, self.folder, self.arguments = every_n_epochs, folder, dict(arguments or {})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            figure = draw(self.inputs, self.explain(pl_module))
            folder = Path(self.folder or Path(trainer.log_dir or trainer.default_root_dir) / "attributions")
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / f"epoch-{trainer.current_epoch:04d}.png")
            for logger in trainer.loggers:
                add = getattr(logger.experiment, "add_figure", None)
                if add is not None:
                    add("attributions", figure, trainer.global_step)

    def explain(self, model: LightningModule) -> Tensors:
        """Attributions of the batch, in the shapes of the inputs."""
        here = move_data_to_device({"inputs": self.inputs, **self.arguments}, model.device)
        with evaluating(model), unmoved_random_state(model.device), torch.inference_mode(False), torch.enable_grad():
            method = self.method if isinstance(self.method, Attribution) else self.method(model)
            values: Tensors = method.attribute(**here)
            return values


def draw(inputs: Tensors, attributions: Tensors) -> Figure:
    """Inputs and attributions side by side; green raises the output, purple lowers it."""
    from matplotlib.figure import Figure

    if isinstance(inputs, Tensor) and isinstance(attributions, Tensor) and _are_images(inputs):
        count = len(inputs)
        figure = Figure(figsize=(4, 2 * count), layout="constrained")
        axes = figure.subplots(count, 2, squeeze=False)
        for row, image, values in zip(axes, inputs.detach().cpu(), attributions.detach().cpu(), strict=True):
            shown = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-12)
            row[0].imshow(shown.movedim(0, -1).expand(-1, -1, 3) if len(image) == 1 else shown.movedim(0, -1))
            _map(figure, row[1], values.sum(0))
            row[0].set_axis_off()
            row[1].set_axis_off()
        return figure
    flat = torch.cat([part.detach().cpu().flatten(1) for part in format_tensor_into_tuples(attributions)], dim=1)
    figure = Figure(figsize=(6, 1 + 0.3 * len(flat)), layout="constrained")
    axis = figure.subplots()
    _map(figure, axis, flat)
    axis.set_xlabel("feature")
    axis.set_ylabel("example")
    return figure


def _map(figure: Figure, axis: Any, values: Tensor) -> None:
    limit = float(values.abs().max()) or 1.0
    figure.colorbar(axis.imshow(values, cmap="PRGn", vmin=-limit, vmax=limit, aspect="auto"), ax=axis)


def _are_images(inputs: Tensor) -> bool:
    return inputs.dim() == 4 and inputs.shape[1] in (1, 3)
