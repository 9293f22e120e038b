"""`captum-meta fit | validate | test | predict`, with all that LightningCLI offers."""

from __future__ import annotations

import sys
import textwrap
import warnings
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Meta-train an explainer, or measure one. A learner (--model) learns explanation tasks (--data)
by Lightning (--trainer).

  captum-meta fit --config shapley-zero-shot                     train the shipped explainer anew
  captum-meta fit --config my.yaml --trainer.devices 2 --trainer.strategy ddp
  captum-meta fit --config my.yaml --ckpt_path last              continue a run that was stopped
  captum-meta validate --config my.yaml --ckpt_path runs/my.ckpt         errors of a checkpoint
  captum-meta predict --config my.yaml --ckpt_path runs/my.ckpt          its attributions, written
                                                                 to runs/predictions.safetensors

--config is a YAML file, or the name of one that ships with the package:
{names}.

--data.train and --data.validation are task families: captum_meta.tasks.SyntheticTaskFamily, or the
dotted name of a function of yours. The function is annotated `-> ModelTaskFamily` and returns a
captum_meta.tasks.ModelTaskFamily over your own models.

--model.learner is a class of captum_meta.learners. To start from shipped weights, pass
captum_meta.learners.load_learner and a shipped name.

Every argument can stand in the YAML file of --config. --print_config writes such a file.
--model.learner.help CLASS and --data.train.help CLASS describe the arguments of a class. Shipped
configurations show every learner.

Metrics go to a CSV file in runs/. --trainer.logger takes any other logger of Lightning, such as
TensorBoardLogger (pip install 'captum-meta[tensorboard]').
"""


_CONFIG = ("--config", "-c")


def shipped_configurations() -> dict[str, Path]:
    """The configurations that ship with the package, by name.

    >>> "shapley-zero-shot" in shipped_configurations()
    True
    """
    folder = Path(str(resources.files("captum_meta"))) / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def with_shipped_configurations(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments, with ``--config NAME`` as the path of the shipped configuration where there is no file of that name.

    Raises:
        SystemExit: if there is neither.

    >>> [Path(each).name for each in with_shipped_configurations(["fit", "--config", "shapley-maml"])]
    ['fit', '--config', 'shapley-maml.yaml']
    """
    before = ""
    for argument in arguments:
        option, equals, name = argument.partition("=")
        if before in _CONFIG:
            yield _configuration(argument)
        elif equals and option in _CONFIG:
            yield f"{option}={_configuration(name)}"
        else:
            yield argument
        before = argument


def _configuration(name: str) -> str:
    shipped = shipped_configurations()
    if Path(name).is_file() or Path(name).name != name:
        return name
    if name.removesuffix(".yaml") not in shipped:
        print(f"error: there is no file {name!r}, and no shipped configuration among {list(shipped)}", file=sys.stderr)
        raise SystemExit(2)
    return str(shipped[name.removesuffix(".yaml")])


def main(arguments: Sequence[str]) -> None:
    """Run LightningCLI on the one module and data module of meta-training."""
    from jsonargparse import DefaultHelpFormatter
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

    from captum_meta.training.data import ExplanationTaskDataModule
    from captum_meta.training.module import MetaLearningModule
    from captum_meta.training.save import SavePredictions

    class MetaTrainingCLI(LightningCLI):
        """Writes what is predicted; the parsers of other commands are not built."""

        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {arguments[0]: LightningCLI.subcommands()[arguments[0]]}

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.add_lightning_class_args(SavePredictions, "predictions")

    class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
        """Keeps the lines of the description."""

    def described(command: str) -> dict[str, Any]:
        names = textwrap.fill(", ".join(shipped_configurations()), 98, break_on_hyphens=False)
        return {
            "description": _DESCRIPTION.replace("{names}", names),
            "usage": f"captum-meta {command} --config FILE [options]",
        }

    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")  # of torch, about Lightning's own code
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "runs"}}
    MetaTrainingCLI(
        MetaLearningModule,
        ExplanationTaskDataModule,
        seed_everything_default=0,
        save_config_callback=None,
        trainer_defaults={"logger": logger},
        args=list(with_shipped_configurations(arguments)),
        parser_kwargs={"prog": "captum-meta", "formatter_class": Formatter} | {arguments[0]: described(arguments[0])},
    )
