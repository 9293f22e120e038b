"""A trainer that prints nothing, and tasks for three short steps."""

from pathlib import Path

import small_run
from lightning import Trainer

from captum_meta.training import ExplanationTaskDataModule


def quiet(folder: Path, **arguments: object) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, "logger": False, **arguments},  # type: ignore[arg-type]
    )


def data(folder: Path, **arguments: object) -> ExplanationTaskDataModule:
    train, held_out = small_run.families(folder)
    settings = {"batches": None, "steps_per_epoch": 3, "batches_per_step": 2, "support_rows": 2, **arguments}
    return ExplanationTaskDataModule(train, {"held out": held_out}, **settings)  # type: ignore[arg-type]
