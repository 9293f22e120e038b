"""What is annealed goes by the trainer's step: a resumed run goes on where it was."""

from pathlib import Path

import small_run
import torch
from lightning import Trainer

from captum_meta.learners import ANIL
from captum_meta.nn import ShapleyExplainer
from captum_meta.optim import Annealed, MultiStepLoss
from captum_meta.training import MetaLearningModule


def made() -> ANIL:
    torch.manual_seed(0)
    annealed = Annealed(MultiStepLoss(6, second_order=False), MultiStepLoss(6), 3)
    return ANIL(ShapleyExplainer(8, 1), steps=2, hypergradient=annealed)


def run(learner: ANIL, folder: Path, steps: int, checkpoint: Path | None = None) -> Path:
    """Train until step ``steps``; the checkpoint of its end."""
    module = MetaLearningModule(learner, warmup_steps=1, schedule="constant").double()
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(module, small_run.data(folder), ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return folder / f"{steps}.ckpt"


def test_a_resumed_run_is_annealed_from_where_it_was(tmp_path: Path) -> None:
    whole, first, second = made(), made(), made()
    run(whole, tmp_path, 5)
    run(second, tmp_path, 5, checkpoint=run(first, tmp_path, 2))
    for learner, steps, late in ((first, 2, False), (second, 5, True), (whole, 5, True)):
        annealed = learner.hypergradient
        assert isinstance(annealed, Annealed) and isinstance(annealed.current, MultiStepLoss)
        assert annealed.current.number == steps - 1 and annealed.current.second_order is late
    for value, right in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(value, right)
