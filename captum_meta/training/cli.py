"""`captum-meta fit | validate | test`, with all that LightningCLI offers."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Run LightningCLI on the one module and data module of meta-training."""
    from lightning.pytorch.cli import LightningCLI

    from captum_meta.training.data import ExplanationTaskDataModule
    from captum_meta.training.module import MetaLearningModule

    LightningCLI(
        MetaLearningModule,
        ExplanationTaskDataModule,
        seed_everything_default=0,
        save_config_callback=None,
        args=list(arguments),
        parser_kwargs={"prog": "captum-meta"},
    )
