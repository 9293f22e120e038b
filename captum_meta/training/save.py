"""Write the learner of a finished run where `load_learner` finds it."""

from __future__ import annotations

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from captum_meta.learners.storage import configuration


class SaveLearner(Callback):
    """Save the trained learner as ``path.json`` and ``path.safetensors`` when the fit ends.

    Place it behind callbacks that change the weights at the end, such as ``EMAWeightAveraging``.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what could not be saved in the end.

        Raises:
            ValueError: if the learner has parts of your own, which a file cannot name.
        """
        configuration(pl_module.learner)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:
            pl_module.learner.save(self.path)
