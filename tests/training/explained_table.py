"""A table that is explained by a process of its own, which may be killed: the tests' subprocess."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from captum_meta.attr import MetaKernelShap
from captum_meta.training import AttributionPredictor, AttributionWriter, whole_batches

ROWS, FEATURES, BATCH = 40, 5, 8
ARGUMENTS = {"n_samples": 16, "return_error_estimate": True}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Deadly(nn.Module):
    """A model that kills its process when it is called for the so manieth time; never by default."""

    def __init__(self, calls: int = -1) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, FEATURES))
        self.calls = calls

    def forward(self, x: Tensor) -> Tensor:
        self.calls -= 1
        if self.calls == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        inner = torch.tanh(x * self.scale)
        return torch.stack([inner.sum(1), inner[:, 0] * inner[:, 1] * inner[:, 2] + inner[:, 3]], 1)


def table() -> TensorDataset:
    """Rounded rows and their targets."""
    generator = torch.Generator().manual_seed(0)
    x = (8 * torch.randn(ROWS, FEATURES, generator=generator)).round() / 8
    return TensorDataset(x, torch.arange(ROWS) % 2)


def explain(folder: Path, calls: int = -1, devices: int = 1) -> None:
    """All rows, to a folder."""
    strategy = {"strategy": "ddp_spawn", "devices": devices} if devices > 1 else {"devices": 1}
    trainer = Trainer(accelerator="cpu", callbacks=[AttributionWriter(folder)], **strategy, **QUIET)  # type: ignore[arg-type]
    predictor = AttributionPredictor(MetaKernelShap(Deadly(calls)), **ARGUMENTS)
    trainer.predict(predictor, whole_batches(DataLoader(table(), batch_size=BATCH)), return_predictions=False)


if __name__ == "__main__":
    explain(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
