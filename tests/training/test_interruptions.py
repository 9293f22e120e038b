"""Killed runs go on as if nothing had happened, and two ranks do what one does."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
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
@pytest.mark.parametrize("where", ["step", "workers"])
def test_killed_in_a_shard_and_in_an_epoch_the_run_ends_the_same(whole: Path, tmp_path: Path, where: str) -> None:
    """Weights are averaged (EMA) in all of these runs; workers make the batches in some."""
    kill(tmp_path, "shard")
    first = made(tmp_path)
    assert len(first) == 3 and len(shards(tmp_path)) == 2
    kill(tmp_path, where)
    assert len(made(tmp_path)) == len(first) + len(shards(whole)) - 2
    trainer = small_run.trainer(tmp_path)
    data = small_run.data(tmp_path, workers=2 if where == "workers" else 0)
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 12
    trainer.fit(small_run.module(), data, ckpt_path=last)
    trainer.save_checkpoint(tmp_path / "end.ckpt", weights_only=True)
    assert shards(tmp_path) == shards(whole)
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path).items())


def two_ranks(folder: Path, how: str) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*torchrun, small_run.__file__, str(folder), how], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def two_nodes(folder: Path) -> None:
    """Each started by a torchrun of its own, as on two machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d"]
    torchrun += [f"--rdzv_endpoint=127.0.0.1:{port}", "--rdzv_id=small", small_run.__file__, str(folder), "nodes"]
    nodes = [subprocess.Popen(torchrun, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    for node in nodes:
        said, _ = node.communicate(timeout=300)
        assert node.returncode == 0, said


def largest_difference(one: Path, other: Path) -> float:
    """Between losses of the twenty steps, and between weights."""
    losses = [torch.load(folder / "losses.pt", weights_only=True) for folder in (one, other)]
    assert len(losses[0]) == len(losses[1]) == 20
    differences = [left - right for left, right in zip(losses[0], losses[1], strict=True)]
    left, right = weights(one), weights(other)
    differences += [left[name] - right[name] for name in left]
    return max(float(difference.abs().max()) for difference in differences)


@pytest.mark.slow
@pytest.mark.parametrize("start", [lambda folder: two_ranks(folder, "ranks"), two_nodes], ids=["ranks", "nodes"])
def test_two_ranks_are_one(whole: Path, tmp_path: Path, start: Callable[[Path], None]) -> None:
    start(tmp_path)
    assert made(tmp_path) == made(whole)
    assert {line[0] for line in (tmp_path / "made.txt").read_text().splitlines()} == {"0", "1"}
    assert shards(tmp_path) == shards(whole)
    assert largest_difference(tmp_path, whole) < 1e-6
    errors, expected = (torch.load(folder / "errors.pt", weights_only=True) for folder in (tmp_path, whole))
    assert errors.keys() == expected.keys() and len(errors) == 6
    assert all(torch.allclose(value, expected[name], rtol=1e-5) for name, value in errors.items())


@pytest.mark.slow
def test_in_single_precision_two_ranks_are_one_with_two_shares(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as torchrun does
    try:
        small_run.uninterrupted(tmp_path / "one", double=False)
    finally:
        torch.set_num_threads(threads)
    two_ranks(tmp_path / "two", "single")
    assert next(iter(weights(tmp_path / "one").values())).dtype == torch.float32
    assert largest_difference(tmp_path / "two", tmp_path / "one") == 0


def test_workers_change_nothing(whole: Path, tmp_path: Path) -> None:
    data = small_run.data(tmp_path, workers=2)
    data.setup("fit")
    assert made(tmp_path) == made(whole)
    assert shards(tmp_path) == shards(whole)
    alone = small_run.data(tmp_path)
    alone.setup("fit")
    for left, right in zip(data.train_dataloader(), alone.train_dataloader(), strict=True):
        assert torch.equal(left.query.attributions, right.query.attributions)
