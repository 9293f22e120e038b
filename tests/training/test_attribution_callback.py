from pathlib import Path

import pytest
import torch
from captum.attr import IntegratedGradients, ShapleyValueSampling
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from captum_meta.training import AttributionCallback


class Classifier(LightningModule):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        size = torch.Size(shape).numel()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(size, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self(batch).square().mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("error", self(batch).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder: Path, shape: tuple[int, ...], *callbacks: AttributionCallback) -> Classifier:
    model = Classifier(shape)
    rows = torch.randn(12, *shape, generator=torch.Generator().manual_seed(1))
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=2,
        logger=False,
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(model, DataLoader(rows, batch_size=4), DataLoader(rows, batch_size=4))
    return model


@pytest.mark.parametrize("shape", [(5,), (1, 4, 4), (3, 4, 4)])
def test_a_figure_an_epoch_and_training_as_without(tmp_path: Path, shape: tuple[int, ...]) -> None:
    batch = torch.randn(3, *shape)
    watch = AttributionCallback(IntegratedGradients, batch, arguments={"target": torch.tensor([0, 1, 0]), "n_steps": 4})
    sampled = AttributionCallback(
        ShapleyValueSampling, batch, every_n_epochs=2, folder=str(tmp_path / "own"), arguments={"target": 1, "n_samples": 2}
    )
    watched, alone = fit(tmp_path, shape, watch, sampled), fit(tmp_path, shape)
    names = [path.name for path in sorted((tmp_path / "attributions").iterdir())]
    assert names == ["epoch-0000.png", "epoch-0001.png"]
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["epoch-0001.png"]
    for name, value in watched.state_dict().items():
        assert torch.equal(value, alone.state_dict()[name])


def test_explanations_are_those_of_the_method_and_the_mode_comes_back() -> None:
    model = Classifier((5,)).train()
    model.net[3].eval()
    batch = torch.randn(3, 5)
    watch = AttributionCallback(IntegratedGradients(model), batch, arguments={"target": 1})
    with torch.inference_mode():
        values = watch.explain(model)
    assert model.net[2].training and not model.net[3].training
    assert torch.allclose(values, IntegratedGradients(model.eval()).attribute(batch, target=1))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="every_n_epochs"):
        AttributionCallback(IntegratedGradients, torch.zeros(1, 2), every_n_epochs=0)
