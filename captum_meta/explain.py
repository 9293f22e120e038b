"""`captum-meta explain`: a table of rows of any model, explained from the shell."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from contextlib import suppress
from inspect import Parameter, signature
from pathlib import Path
from time import perf_counter
from typing import Any

import captum.attr
import torch
from lightning import Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.multiprocessing import ProcessRaisedException
from torch.utils.data import DataLoader, TensorDataset

import captum_meta.attr
from captum_meta._model import Counted, says_no_gradient
from captum_meta.training import AttributionPredictor, AttributionWriter, whole_batches
from captum_meta.training.attribution_files import (
    Format,
    described,
    each_attributions,
    files_in,
    read_batch,
    read_manifest,
    require_parquet,
)
from captum_meta.training.named_model import load_model
from captum_meta.training.row_progress import SUMMARY, RowProgress
from captum_meta.training.table import NumberTable, read_classes, read_table

_SHOWN = 10
_OPTIONS = {"return_error_estimate": "error_estimates"}
_MISTAKES = (ValueError, ImportError, FileNotFoundError, AttributeError, AssertionError, IndexError, TypeError)


def main(arguments: Sequence[str]) -> None:
    """Explain the rows of a table; files are as :class:`~captum_meta.training.AttributionWriter` writes them."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        explain(options)
    except Exception as error:
        parser.exit(1, f"captum-meta explain: {sentence(error, options)}\n")


def explain(options: Namespace) -> None:
    """Run the command."""
    sys.path.insert(0, str(Path.cwd()))
    target_column = None if options.target is None or options.target.lstrip("-").isdigit() else options.target
    table = read_table(options.data, options.columns, options.id, [] if target_column is None else [target_column])
    model = _Watched(load_model(options.model))
    method = _method(options, model)
    loader = whole_batches(DataLoader(_dataset(options, table, target_column), batch_size=options.batch_size))
    form: Format = options.format or ("parquet" if _has_parquet() else "safetensors")
    source = {name: str(getattr(options, name)) for name in ("model", "target", "id", "learner", "memory")}
    source["values"] = described(table.values)
    writer = AttributionWriter(options.out, form, table.columns, table.rows, source)
    shared = _arguments(options, table)
    _check_taken(options.method, method.attribute, shared)
    if "baselines" in _required(method.attribute) and "baselines" not in shared:
        raise ValueError(f"{options.method} has no baseline of its own: pass --baselines 0, 'mean', or the file of one row.")
    console, began = Console(), perf_counter()
    trainer = Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        strategy="ddp_spawn" if options.devices > 1 and options.accelerator == "cpu" else "auto",
        callbacks=[writer, RowProgress(len(table.values), options.batch_size, options.out, model)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.predict(AttributionPredictor(method, **shared), loader, return_predictions=False)
    if trainer.is_global_zero:
        _summarise(console, options.out, form, table, perf_counter() - began)


class _Watched(Counted):
    """A model that marks its own errors."""

    def __call__(self, *inputs: Any) -> Any:
        try:
            return super().__call__(*inputs)
        except Exception as error:
            if not says_no_gradient(error) and not isinstance(error, torch.OutOfMemoryError):
                error.__dict__["raised_by_the_model"] = True
            raise


def sentence(error: Exception, options: Namespace) -> str:
    """A sentence that says what happened and what to do."""
    lines = str(error).strip().splitlines()
    if isinstance(error, ProcessRaisedException):  # the traceback of a process, whose last line is the error
        return f"{lines[-1]} (in one of {options.devices} processes; with --devices 1 there is one)"
    first = " ".join(lines) or type(error).__name__
    if getattr(error, "raised_by_the_model", False):
        return (
            f"{options.model} raised {type(error).__name__}: {first}. It is called with float32 tensors (rows, columns) of "
            f"{options.data}: see whether it takes them, or choose columns with --columns."
        )
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return f"{first}. Files that were written are kept: make room, or pass another --out, and repeat the command."
    if isinstance(error, torch.OutOfMemoryError):
        return f"{first}. Pass a smaller --batch-size, or --n-samples."
    first = first.replace("pass target=", "pass --target").replace(", or outputs='all' to explain all at once", "")
    return first if isinstance(error, _MISTAKES) else f"{type(error).__name__}: {first}"


def _method(options: Namespace, model: Any) -> Any:
    kind = getattr(captum_meta.attr, options.method, None) or getattr(captum.attr, options.method, None)
    if kind is None:
        raise ValueError(f"There is no method {options.method!r}: pass a name of captum_meta.attr or of captum.attr.")
    if not (isinstance(kind, type) and issubclass(kind, captum.attr.Attribution)) or len(_required(kind)) > 1:
        raise ValueError(
            f"--method {options.method} does not explain a model's inputs: pass one that is made of a model alone, such as "
            "MetaKernelShap or IntegratedGradients."
        )
    ours = {name: getattr(options, name) for name in ("learner", "memory") if getattr(options, name) is not None}
    _check_taken(options.method, kind, ours)
    return kind(model, **ours)


def _required(function: Any) -> list[str]:
    """Names of the arguments that a method cannot do without."""
    parameters = signature(function).parameters.values()
    return [p.name for p in parameters if p.default is Parameter.empty and p.kind is Parameter.POSITIONAL_OR_KEYWORD]


def _check_taken(name: str, function: Any, given: dict[str, Any]) -> None:
    """Refuse options that a method does not have."""
    known = signature(function).parameters
    unknown = [f"--{_OPTIONS.get(option, option).replace('_', '-')}" for option in given if option not in known]
    if unknown:
        raise ValueError(f"{name} has no {', '.join(unknown)}: leave that out, or pass another --method.")


def _dataset(options: Namespace, table: NumberTable, target_column: str | None) -> TensorDataset:
    if target_column is None:
        return TensorDataset(table.values)
    return TensorDataset(table.values, read_classes(options.data, target_column))


def _arguments(options: Namespace, table: NumberTable) -> dict[str, Any]:
    """Arguments of ``attribute`` for all rows."""
    given: dict[str, Any] = {"n_samples": options.n_samples, "n_steps": options.n_steps, "tolerance": options.tolerance}
    if options.target is not None and options.target.lstrip("-").isdigit():
        given["target"] = int(options.target)
    if options.error_estimates:
        given["return_error_estimate"] = True
    if options.background is not None and options.baselines is not None:
        raise ValueError("--baselines is one row, --background many: pass one of the two.")
    if options.background is not None:
        given["background"] = read_table(options.background, table.columns).values
    if options.baselines == "mean":
        given["baselines"] = table.values.nanmean(0, keepdim=True)
    elif options.baselines is not None:
        given["baselines"] = _baselines(options.baselines, table)
    return {name: value for name, value in given.items() if value is not None}


def _baselines(given: str, table: NumberTable) -> Tensor | float:
    try:
        return float(given)
    except ValueError:
        if not Path(given).is_file():
            raise ValueError(f"--baselines is {given!r}: pass a number, 'mean', or the file of one row.") from None
        rows = read_table(Path(given), table.columns).values
    if len(rows) != 1:
        raise ValueError(f"{given} has {len(rows)} rows: give one row as --baselines, or all of them as --background.")
    return rows


def _summarise(console: Console, folder: Path, form: Format, table: NumberTable, seconds: float) -> None:
    counts = json.loads((folder / SUMMARY).read_text())
    manifest = read_manifest(folder) or {}
    sizes, known = torch.zeros(len(table.columns), dtype=torch.float64), 0
    for part in each_attributions(folder, form, table.columns):
        whole = part[part.isfinite().all(1)].double()
        sizes, known = sizes + whole.abs().sum(0), known + len(whole)
    sizes = sizes / max(1, known)
    largest = Table(show_header=False)
    for index in sizes.argsort(descending=True)[:_SHOWN].tolist():
        largest.add_row(table.columns[index], f"{sizes[index]:.4g}")
    console.print(f"Mean size of attributions, the {min(_SHOWN, len(sizes))} largest:", highlight=False)
    console.print(largest)
    errors, estimate = manifest.get("errors", []), _mean_estimate(folder, form)
    rows, evaluations = counts["rows"], counts["evaluations"]
    summary = f"{known:,} rows explained, {len(errors):,} raised" + (
        "" if estimate is None else f"; mean error estimate {estimate:.2g}"
    )
    summary += f"\nIn this run {rows:,} rows in {seconds:.1f} s, {evaluations:,} evaluations of the model"
    summary += f", {evaluations / rows:.1f} per row" if rows else ""
    console.print(summary, highlight=False)
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
    known = estimates[estimates.isfinite()]
    return float(known.mean()) if len(known) else None


def _has_parquet() -> bool:
    try:
        require_parquet()
    except ImportError:
        return False
    return True


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise ArgumentTypeError(f"{text} is no number of them: pass 1 or more")
    return int(text)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "captum-meta explain", description="Explain all rows of a table. The same command continues a run that was stopped."
    )
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="package.module:callable: the model, or a function that makes it"
    )
    parser.add_argument(
        "--data", required=True, type=Path, metavar="FILE", help="the rows: a .csv, .parquet or .feather file of numbers"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder for the explanations")
    parser.add_argument("--columns", type=_names, metavar="A,B", help="the features, separated by commas; default: all")
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
    parser.add_argument("--batch-size", type=_count, default=1024, metavar="N", help="rows per file (default: 1024)")
    parser.add_argument(
        "--format",
        choices=("safetensors", "parquet"),
        help="of the files; default: parquet where pandas and pyarrow are installed",
    )
    parser.add_argument("--accelerator", default="cpu", help="as for Lightning's Trainer (default: cpu)")
    parser.add_argument(
        "--devices", type=_count, default=1, metavar="N", help="number of processes, or of GPUs (default: 1)"
    )
    return parser
