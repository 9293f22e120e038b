"""Callbacks that save the learner for `load_learner`, and predicted attributions."""

from __future__ import annotations

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save
from torch import Tensor

from captum_meta._files import write_whole
from captum_meta.learners.storage import configuration


class SaveLearner(Callback):
    """Save the trained learner as ``path.json`` and ``path.safetensors`` when the fit ends.

    Place it behind callbacks that change the weights at the end, such as ``EMAWeightAveraging``.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse learners that could not be saved in the end.

        Raises:
            ValueError: if the learner has parts of your own, which a file cannot name.
        """
        configuration(pl_module.learner)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:
            pl_module.learner.save(self.path)


class SavePredictions(Callback):
    """Write what ``trainer.predict`` gave to ``path.safetensors``: attributions ``(T, N, M)`` by ``LOADER/BATCH``.

    With several ranks each writes its share, to ``path-RANK.safetensors``.
    """

    def __init__(self, path: str = "runs/predictions") -> None:
        self.path = path

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = trainer.predict_loop.predictions
        loaders = [found] if found and isinstance(found[0], Tensor) else found
        named = {
            f"{loader}/{batch}": value.cpu().contiguous()
            for loader, batches in enumerate(loaders)
            for batch, value in enumerate(batches)
        }
        rank = f"-{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = Path(f"{self.path}{rank}.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(named))
