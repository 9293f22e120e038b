"""Writes explanations to disk as they are made."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from captum_meta.training import attribution_files as files
from captum_meta.training.attribution_predictor import AttributionPredictor, ExplainedBatch, is_dealt


class AttributionWriter(BasePredictionWriter):
    """Writes what an :class:`AttributionPredictor` explains: one file for each batch, whole or not at all, and a manifest.

    A run that was killed goes on where it was when it is started again; explanations are the same as without the
    interruption. Every process writes its own batches. With several processes wrap the loader in :func:`whole_batches`: what
    they write is then, byte for byte, what one process writes. The manifest tells the method, its arguments, the files, the
    rows that raised, and times. Nothing is kept in memory.

    Args:
        folder: of the files ``batch-NNNNNNNN.safetensors``, which :func:`read_attributions` reads.
        form: ``"safetensors"``, or ``"parquet"``: a table with the columns ``row``, one for each element of the inputs,
            what else was asked for, and ``error``; it needs pandas and pyarrow.
        columns: names of the elements, for parquet.
        rows: names of the data's rows; by default their indices.
        source: further conditions under which a run may go on, such as the name of the data's file; it is kept in the
            manifest. The model's parameters, the method, its arguments and the number of rows are always compared.

    Raises:
        ValueError: if the folder holds other explanations, or several processes were given single rows.
        ImportError: if parquet is asked for and cannot be written.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        form: files.Format = "safetensors",
        columns: Sequence[str] | None = None,
        rows: Sequence[Any] | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__("batch")
        if form == "parquet":
            files.require_parquet()
        self.folder, self.form = Path(folder), form
        self.columns, self.rows = columns, rows
        self.source = dict(source or {})

    def has(self, number: int) -> bool:
        """Whether a batch is on disk."""
        return files.file_of(self.folder, number, self.form).is_file()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(pl_module, AttributionPredictor):
            raise ValueError(
                f"AttributionWriter writes what an AttributionPredictor explains, not a {type(pl_module).__name__}: pass "
                "AttributionPredictor(method) to Trainer.predict."
            )
        loaders = trainer.predict_dataloaders
        loader = loaders[0] if isinstance(loaders, list) else loaders
        if trainer.world_size > 1 and not is_dealt(loader):
            raise ValueError(
                f"Lightning deals single rows to the {trainer.world_size} processes, so that files would depend on their "
                "number: pass whole_batches(loader)."
            )
        trainer.predict_loop.return_predictions = False
        self._seen, self._began = 0, time.time()
        self._metadata = self._description(pl_module, loader)
        before = files.read_manifest(self.folder)
        if before is not None and {name: before.get(name) for name in self._metadata} != self._metadata:
            changed = [name for name in self._metadata if before.get(name) != self._metadata[name]]
            raise ValueError(
                f"{self.folder} holds explanations with another {', '.join(changed)}: pass another folder, or remove it."
            )
        if trainer.is_global_zero and before is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_manifest(self.folder, {**self._metadata, "complete": False})
        trainer.strategy.barrier("explanations begin")

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: ExplainedBatch,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        counted = range(self._seen, self._seen + prediction.count)
        self._seen = counted.stop
        if not prediction.values:
            return
        numbers = prediction.rows or batch_indices or counted
        called = list(numbers) if self.rows is None else [self.rows[number] for number in numbers]
        path = files.file_of(self.folder, prediction.number, self.form)
        files.write_batch(path, prediction.values, called, prediction.errors, self.columns)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.strategy.barrier("explanations end")
        if trainer.is_global_zero:
            paths = files.files_in(self.folder, self.form)
            errors = [error for path in paths for error in files.errors_in(path)]
            times = {"began": self._began, "seconds": round(time.time() - self._began, 3)}
            content = {"complete": True, "files": [path.name for path in paths], "errors": errors, "times": times}
            files.write_manifest(self.folder, {**self._metadata, **content})

    def _description(self, predictor: AttributionPredictor, loader: Any) -> dict[str, Any]:
        """The settings under which a run may go on."""
        source = loader.dataset.loader if is_dealt(loader) else loader
        try:
            count = len(source.dataset)
        except TypeError:
            count = None
        return {
            "version": files.VERSION,
            "method": predictor.method.get_name(),
            "settings": files.settings_of(predictor.method),
            "model": predictor.fingerprint(),
            "source": {name: files.described(value) for name, value in self.source.items()},
            "arguments": {name: files.described(value) for name, value in predictor.arguments.items()},
            "format": self.form,
            "columns": None if self.columns is None else list(self.columns),
            "rows": count,
            "batch_size": getattr(source, "batch_size", None),
        }
