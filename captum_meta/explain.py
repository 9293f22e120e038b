"""`captum-meta explain`: a table of rows of any model, explained from the shell."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from time import perf_counter
from typing import Any

import captum.attr
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import captum_meta.attr
from captum_meta._files import write_whole
from captum_meta.benchmark.problem import Counted
from captum_meta.training import AttributionPredictor, AttributionWriter, whole_batches
from captum_meta.training.attribution_files import (
    Format,
    each_attributions,
    files_in,
    read_batch,
    read_manifest,
    require_parquet,
)
from captum_meta.training.table import NumberTable, read_table

SUMMARY = "summary.json"
_SHOWN = 10


def main(arguments: Sequence[str]) -> None:
    """Explain the rows of a table; files are as :class:`~captum_meta.training.AttributionWriter` writes them."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        explain(options)
    except (ValueError, ImportError, FileNotFoundError, AttributeError) as error:
        parser.exit(1, f"captum-meta explain: {error}\n")


def explain(options: Namespace) -> None:
    """What the command does."""
    sys.path.insert(0, str(Path.cwd()))
    table = read_table(options.data, options.columns, options.id)
    model = Counted(load_model(options.model))
    method = _method(options, model)
    loader = whole_batches(DataLoader(_dataset(options, table), batch_size=options.batch_size))
    form: Format = options.format or ("parquet" if _has_parquet() else "safetensors")
    writer = AttributionWriter(options.out, form, table.columns, table.rows)
    shared = _arguments(options, table)
    console, began = Console(), perf_counter()
    trainer = Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        strategy="ddp_spawn" if options.devices > 1 and options.accelerator == "cpu" else "auto",
        callbacks=[writer, _Rows(len(table.values), options.batch_size, options.out, model)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.predict(AttributionPredictor(method, **shared), loader, return_predictions=False)
    if trainer.is_global_zero:
        _summarise(console, options.out, form, table, perf_counter() - began)


def load_model(name: str) -> Any:
    """The callable of ``package.module:name``; classes, and functions without arguments, are called to make it.

    Raises:
        ValueError: if there is none.
    """
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ValueError(f"--model is {name!r}: pass package.module:callable, such as my_models:churn.")
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"There is no module {error.name!r}: run the command where it can be imported from.") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{module} has no {attribute!r}: pass the model itself, or a function that makes it.")
        found = getattr(found, part)
    model = found() if _makes_a_model(found) else found
    return model.eval() if isinstance(model, torch.nn.Module) else model


def _makes_a_model(found: Any) -> bool:
    if isinstance(found, torch.nn.Module):
        return False
    with suppress(TypeError, ValueError):
        required = [p for p in signature(found).parameters.values() if p.default is Parameter.empty]
        return not [p for p in required if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    return False


def _method(options: Namespace, model: Any) -> Any:
    kind = getattr(captum_meta.attr, options.method, None) or getattr(captum.attr, options.method, None)
    if kind is None:
        raise ValueError(f"There is no method {options.method!r}: pass a name of captum_meta.attr or of captum.attr.")
    ours = {"learner": options.learner, "memory": options.memory}
    return kind(model, **{name: value for name, value in ours.items() if value is not None})


def _dataset(options: Namespace, table: NumberTable) -> TensorDataset:
    if options.target is None or options.target.lstrip("-").isdigit():
        return TensorDataset(table.values)
    return TensorDataset(table.values, read_table(options.data, [options.target], None).values[:, 0].long())


def _arguments(options: Namespace, table: NumberTable) -> dict[str, Any]:
    """Of ``attribute``, for all rows."""
    given: dict[str, Any] = {"n_samples": options.n_samples, "n_steps": options.n_steps, "tolerance": options.tolerance}
    if options.target is not None and options.target.lstrip("-").isdigit():
        given["target"] = int(options.target)
    if options.error_estimates:
        given["return_error_estimate"] = True
    if options.background is not None:
        given["background"] = read_table(options.background, table.columns, None).values
    if options.baselines == "mean":
        given["baselines"] = table.values.mean(0, keepdim=True)
    elif options.baselines is not None:
        given["baselines"] = _baselines(options.baselines, table)
    return {name: value for name, value in given.items() if value is not None}


def _baselines(told: str, table: NumberTable) -> Tensor | float:
    try:
        return float(told)
    except ValueError:
        rows = read_table(Path(told), table.columns, None).values
    if len(rows) != 1:
        raise ValueError(f"{told} has {len(rows)} rows: give one row as --baselines, or all of them as --background.")
    return rows


class _Rows(Callback):
    """A progress bar of rows, with rows per second and the time left, and the count of evaluations."""

    def __init__(self, rows: int, batch_size: int, folder: Path, model: Counted) -> None:
        self.rows, self.batch_size, self.folder, self.model = rows, batch_size, folder, model

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
        self.bar = Progress(TextColumn("rows"), *columns, disable=not trainer.is_global_zero, console=Console(stderr=True))
        self.task = self.bar.add_task("rows", total=self.rows, speed="")
        self.explained = 0
        self.began = perf_counter()
        self.bar.start()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.explained += outputs.count if outputs.values else 0
        done = min(self.rows, (batch_idx + 1) * self.batch_size * trainer.world_size)
        self.bar.update(self.task, completed=done, speed=f"{done / (perf_counter() - self.began):,.0f} rows/s")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.stop()
        own = torch.tensor([self.explained, self.model.evaluations], dtype=torch.float64)
        explained, evaluations = trainer.strategy.reduce(own, reduce_op="sum").tolist()
        if trainer.is_global_zero:
            content = {"rows": int(explained), "evaluations": int(evaluations)}
            write_whole(self.folder / SUMMARY, (json.dumps(content) + "\n").encode())


def _summarise(console: Console, folder: Path, form: Format, table: NumberTable, seconds: float) -> None:
    counts = json.loads((folder / SUMMARY).read_text())
    manifest = read_manifest(folder) or {}
    sizes, known = torch.zeros(len(table.columns), dtype=torch.float64), 0
    for part in each_attributions(folder, form, table.columns):
        whole = part[part.isfinite().all(1)].double()
        sizes, known = sizes + whole.abs().sum(0), known + len(whole)
    sizes = sizes / max(1, known)
    largest = Table(title=f"mean size of attributions, the {min(_SHOWN, len(sizes))} largest", show_header=False)
    for index in sizes.argsort(descending=True)[:_SHOWN].tolist():
        largest.add_row(table.columns[index], f"{sizes[index]:.4g}")
    console.print(largest)
    errors, estimate = manifest.get("errors", []), _mean_estimate(folder, form)
    rows, evaluations = counts["rows"], counts["evaluations"]
    told = f"{known:,} rows explained, {len(errors):,} raised" + (
        "" if estimate is None else f"; mean error estimate {estimate:.2g}"
    )
    told += f"\nIn this run {rows:,} rows in {seconds:.1f} s, {evaluations:,} evaluations of the model"
    told += f", {evaluations / rows:.1f} per row" if rows else ""
    console.print(told, highlight=False)
    for error in errors[:3]:
        console.print(f"row {error['row']}: {error['error']}", markup=False, highlight=False)
    with suppress(ImportError):
        from captum_meta.visualization import bars

        figure = bars(sizes, table.columns, top=_SHOWN)
        figure.axes[0].set_xlabel("mean size of attributions")
        figure.savefig(folder / "importance.png", bbox_inches="tight", dpi=150)
        console.print(f"Picture: {folder / 'importance.png'}", highlight=False)
    console.print(f"Files and manifest: {folder}", highlight=False)


def _mean_estimate(folder: Path, form: Format) -> float | None:
    """The mean of finite error estimates, if there are any."""
    parts = []
    for path in files_in(folder, form):
        if form == "parquet":
            frame = require_parquet().read_parquet(path)
            if "error_estimate" not in frame:
                return None
            parts.append(torch.from_numpy(frame["error_estimate"].to_numpy(dtype="float64", copy=True)))
        else:
            values = read_batch(path)[0]
            if "error_estimate" not in values:
                return None
            parts.append(values["error_estimate"].double())
    estimates = torch.cat(parts)
    return float(estimates[estimates.isfinite()].mean())


def _has_parquet() -> bool:
    try:
        require_parquet()
    except ImportError:
        return False
    return True


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "captum-meta explain", description="Explain all rows of a table. The same command continues a run that was stopped."
    )
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="package.module:callable: the model, or a function that makes it"
    )
    parser.add_argument(
        "--data", required=True, type=Path, metavar="FILE", help="the rows: a .csv or .parquet file of numbers"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder for the explanations")
    parser.add_argument(
        "--columns", type=lambda text: text.split(","), metavar="A,B", help="the features, separated by commas; default: all"
    )
    parser.add_argument(
        "--id", metavar="COLUMN", help="column that names the rows and is no feature; default: their numbers"
    )
    parser.add_argument("--target", help="output to explain: its index, or the name of a column with one index for each row")
    parser.add_argument(
        "--method", default="MetaKernelShap", help="a class of captum_meta.attr or captum.attr (default: MetaKernelShap)"
    )
    parser.add_argument("--n-samples", type=int, metavar="N", help="budget per row of sampling methods")
    parser.add_argument("--n-steps", type=int, metavar="N", help="budget per row of path methods")
    parser.add_argument("--tolerance", type=float, metavar="E", help="relative squared error that is accepted for each row")
    parser.add_argument("--baselines", help="a number, 'mean' for the mean of the rows, or a file with one row; default: 0")
    parser.add_argument("--background", type=Path, metavar="FILE", help="file of background rows, in place of --baselines")
    parser.add_argument("--learner", help="name of a shipped learner, or path of a saved one")
    parser.add_argument("--memory", type=int, metavar="N", help="how many rows MetaKernelShap keeps to learn from")
    parser.add_argument("--error-estimates", action="store_true", help="also write an error estimate of each row")
    parser.add_argument("--batch-size", type=int, default=1024, metavar="N", help="rows per file (default: 1024)")
    parser.add_argument(
        "--format",
        choices=("safetensors", "parquet"),
        help="of the files; default: parquet where pandas and pyarrow are installed",
    )
    parser.add_argument("--accelerator", default="cpu", help="as for Lightning's Trainer (default: cpu)")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="number of processes, or of GPUs (default: 1)")
    return parser
