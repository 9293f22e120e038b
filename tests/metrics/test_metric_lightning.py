"""Metrics inside a LightningModule, whose validation runs in inference mode."""

from __future__ import annotations

import pytest
import torch
from metric_cases import CASES, Classifier, make_data
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection

lightning = pytest.importorskip("lightning")

DATA = make_data()


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.explained = [Classifier().eval()]
        self.scores = MetricCollection({case.id: case.make(self.explained[0]) for case in CASES})

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        assert torch.is_inference_mode_enabled()
        self.scores.update(**batch)
        self.log_dict(self.scores)


def test_validation_in_inference_mode() -> None:
    module = Module()
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    rows = [{name: value[i] for name, value in DATA.items()} for i in range(8)]
    (logged,) = trainer.validate(module, DataLoader(rows, batch_size=4), verbose=False)
    model = module.explained[0]
    for case in CASES:
        assert logged[case.id] == pytest.approx(case.score(model, DATA).item(), abs=1e-5), case.id
    assert not module.state_dict()
