"""`captum-meta fit | validate | test`, with all that LightningCLI offers."""

from __future__ import annotations

import warnings
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence

_DESCRIPTION = """\
Meta-train an explainer, or measure one: a learner (--model) on explanation tasks (--data) by Lightning (--trainer).

  captum-meta fit --config captum_meta/configs/shapley-zero-shot.yaml     the shipped explainer, from nothing
  captum-meta fit --config my.yaml --trainer.devices 2 --trainer.strategy ddp
  captum-meta fit --config my.yaml --ckpt_path last                       go on with a run that was stopped
  captum-meta validate --config my.yaml --ckpt_path runs/my.ckpt          errors of a checkpoint

--data.train and --data.validation are task families: captum_meta.tasks.SyntheticTaskFamily, or the dotted name of a
function of yours, annotated `-> ModelTaskFamily`, that returns a captum_meta.tasks.ModelTaskFamily over your own models.
--model.learner is a class of captum_meta.learners, or captum_meta.learners.load_learner with a shipped name to start from
its weights. Every argument can stand in the YAML file of --config; --print_config writes one, --model.learner.help CLASS
and --data.train.help CLASS tell more, and the files of captum_meta/configs show every learner.
Metrics go to a CSV file in runs/; --trainer.logger takes any other logger of Lightning's.
"""


def main(arguments: Sequence[str]) -> None:
    """Run LightningCLI on the one module and data module of meta-training."""
    from jsonargparse import DefaultHelpFormatter
    from lightning.pytorch.cli import LightningCLI

    from captum_meta.training.data import ExplanationTaskDataModule
    from captum_meta.training.module import MetaLearningModule

    class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
        """Keeps the lines of the description."""

    def described(command: str) -> dict[str, object]:
        return {"description": _DESCRIPTION, "usage": f"captum-meta {command} --config FILE [options]"}

    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    warnings.filterwarnings(
        "ignore", message="Your `IterableDataset` has `__len__` defined"
    )  # the steps are shared by workers
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "runs"}}
    LightningCLI(
        MetaLearningModule,
        ExplanationTaskDataModule,
        seed_everything_default=0,
        save_config_callback=None,
        trainer_defaults={"logger": logger},
        args=list(arguments),
        parser_kwargs={"prog": "captum-meta", "formatter_class": Formatter}
        | {command: described(command) for command in ("fit", "validate", "test")},
    )
