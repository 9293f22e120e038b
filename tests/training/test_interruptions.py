"""Killed runs go on as if nothing had happened, and two ranks do what one does."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_run
import torch


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "labels").rglob("*.safetensors")}


def kill(folder: Path, where: str) -> None:
    done = subprocess.run([sys.executable, small_run.__file__, str(folder), where], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def made(folder: Path) -> list[str]:
    return sorted(line.split(" ", 1)[1] for line in (folder / "made.txt").read_text().splitlines())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    small_run.uninterrupted(folder)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "end.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
def test_killed_in_a_shard_and_in_an_epoch_the_run_ends_the_same(whole: Path, tmp_path: Path) -> None:
    kill(tmp_path, "shard")
    first = made(tmp_path)
    assert len(first) == 3 and len(shards(tmp_path)) == 2
    kill(tmp_path, "step")
    assert len(made(tmp_path)) == len(first) + len(shards(whole)) - 2
    trainer = small_run.trainer(tmp_path)
    trainer.fit(small_run.module(), small_run.data(tmp_path), ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    trainer.save_checkpoint(tmp_path / "end.ckpt", weights_only=True)
    assert shards(tmp_path) == shards(whole)
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path).items())


@pytest.mark.slow
def test_two_ranks_are_one(whole: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*torchrun, small_run.__file__, str(tmp_path), "ranks"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert made(tmp_path) == made(whole)
    assert {line[0] for line in (tmp_path / "made.txt").read_text().splitlines()} == {"0", "1"}
    assert shards(tmp_path) == shards(whole)
    losses, expected = (torch.load(folder / "losses.pt", weights_only=True) for folder in (tmp_path, whole))
    assert len(losses) == 20
    assert torch.allclose(losses, expected, rtol=0, atol=1e-6)
    errors, expected = (torch.load(folder / "errors.pt", weights_only=True) for folder in (tmp_path, whole))
    assert errors.keys() == expected.keys() and len(errors) == 4
    assert all(torch.allclose(value, expected[name], rtol=1e-5) for name, value in errors.items())
    right = weights(whole)
    assert all(torch.allclose(value, right[name], rtol=0, atol=1e-6) for name, value in weights(tmp_path).items())


def test_workers_change_nothing(whole: Path, tmp_path: Path) -> None:
    data = small_run.data(tmp_path, workers=2)
    data.setup("fit")
    assert made(tmp_path) == made(whole)
    assert shards(tmp_path) == shards(whole)
    alone = small_run.data(tmp_path)
    alone.setup("fit")
    for left, right in zip(data.train_dataloader(), alone.train_dataloader(), strict=True):
        assert torch.equal(left.query.attributions, right.query.attributions)
