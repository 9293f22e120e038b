import errno
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from captum_meta._files import write_whole
from captum_meta.tasks import ExplanationCache, SyntheticTaskFamily
from captum_meta.tasks.cache import describe, key_of, make
from captum_meta.training import ExplanationTaskDataModule
from captum_meta.types import Explanations

FAMILY = SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=3, seed=4)
KEYS = [key_of(describe(FAMILY, index)) for index in range(3)]


def fill(cache: ExplanationCache) -> None:
    assert list(make(FAMILY, cache, range(3), KEYS, workers=0)) == [0, 1, 2]


@pytest.fixture(scope="module")
def batches() -> list[list[Explanations]]:
    return [FAMILY.variants(index) for index in range(3)]


@pytest.fixture
def cache(tmp_path: Path, batches: list[list[Explanations]]) -> ExplanationCache:
    made = ExplanationCache(tmp_path)
    for key, views in zip(KEYS, batches, strict=True):
        made.write(key, views)
    return made


def equal(left: Explanations, right: Explanations) -> bool:
    same: list[bool] = []
    pairs = [(left.attributions, right.attributions), (left.variance, right.variance), (left.labels, right.labels)]
    pairs += [(getattr(left.evidence, n), getattr(right.evidence, n)) for n in ("effects", "measured", "total", "curve")]
    a, b = left.evidence.coalitions, right.evidence.coalitions
    pairs += [(a and a.members, b and b.members), (a and a.worths, b and b.worths)]
    for one, other in pairs:
        same.append(one is other if one is None or other is None else torch.equal(one, other))
    return all(same)


def test_what_is_written_is_read(cache: ExplanationCache, batches: list[list[Explanations]]) -> None:
    for key, views in zip(KEYS, batches, strict=True):
        assert cache.intact(key)
        assert all(equal(one, other) for one, other in zip(cache.read(key), views, strict=True))


def test_several_views_and_missing_parts(tmp_path: Path) -> None:
    views = SyntheticTaskFamily("path", tasks_per_batch=1, rows=2, seed=4).variants(0)
    cache = ExplanationCache(tmp_path)
    cache.write(KEYS[0], views)
    read = cache.read(KEYS[0])
    assert len(read) == len(views) and read[0].evidence.coalitions is None
    assert all(equal(one, other) for one, other in zip(read, views, strict=True))


@pytest.mark.parametrize("damage", ["one bit", "cut", "empty", "another's", "gone"])
def test_a_damaged_shard_is_found_and_made_again_and_nothing_else(cache: ExplanationCache, damage: str) -> None:
    path, whole = cache.path(KEYS[1]), cache.path(KEYS[1]).read_bytes()
    others = {key: cache.path(key).stat().st_mtime_ns for key in (KEYS[0], KEYS[2])}
    if damage == "one bit":
        path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {"cut": whole[: len(whole) // 2], "empty": b"", "another's": cache.path(KEYS[0]).read_bytes()}[damage]
        )
    assert not cache.intact(KEYS[1])
    fill(cache)
    assert path.read_bytes() == whole
    assert others == {key: cache.path(key).stat().st_mtime_ns for key in others}


def test_a_full_disk_says_so_and_keeps_what_is_there(
    tmp_path: Path, batches: list[list[Explanations]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ExplanationCache(tmp_path)
    cache.write(KEYS[0], batches[0])
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr("captum_meta.tasks.cache.os.fsync", full)
        with pytest.raises(OSError, match=r"No space left on device.*make room") as caught:
            cache.write(KEYS[1], batches[1])
    assert caught.value.errno == errno.ENOSPC
    assert cache.intact(KEYS[0]) and not cache.intact(KEYS[1])
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".safetensors"]
    fill(cache)
    assert all(map(cache.intact, KEYS))


def test_what_a_killed_writer_left_behind_goes_away(cache: ExplanationCache) -> None:
    left = cache.path(KEYS[0]).with_name(f"{KEYS[0]}.1.part")
    left.write_bytes(b"half")
    cache.path(KEYS[0]).unlink()
    fill(cache)
    assert not left.exists()


def _write_often(folder: Path, times: int, failures: Any) -> None:
    cache, views = ExplanationCache(folder), FAMILY.variants(0)
    for _ in range(times):
        try:
            cache.write(KEYS[0], views)
            cache.write_manifest("train", [cache.metadata(KEYS[0])])
        except Exception as error:
            failures.put(repr(error))


@pytest.mark.slow
def test_two_runs_write_one_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    failures = context.Queue()
    writers = [context.Process(target=_write_often, args=(tmp_path, 10, failures)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    assert failures.empty(), failures.get()
    assert ExplanationCache(tmp_path).intact(KEYS[0])
    assert not list(tmp_path.rglob("*.part"))


def test_the_part_of_a_writer_that_still_runs_stays(cache: ExplanationCache) -> None:
    path = cache.path(KEYS[0])
    part = path.with_name(f"{path.name}.{'0' * 32}.part")
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'wb'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code, part], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        path.unlink()
        fill(cache)
        assert part.exists()
        other.kill()
    path.unlink()
    fill(cache)
    assert not part.exists()


def test_files_of_other_names_stay(tmp_path: Path) -> None:
    others = [tmp_path / name for name in ("mine.draft.part", "mine.json.part", "other.json.1.part", "mine.2.part.bak")]
    for other in others:
        other.write_text("")
    write_whole(tmp_path / "mine.json", b"{}")
    assert all(other.exists() for other in others)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_complete_cache_is_read_where_nothing_can_be_written(
    cache: ExplanationCache, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "cannot be written")

    monkeypatch.setattr("captum_meta.tasks.cache.write_whole", refuse)
    data = ExplanationTaskDataModule(
        FAMILY, FAMILY, batches=3, validation_batches=3, support_rows=1, folder=str(cache.folder), steps_per_epoch=2
    )
    data.setup("fit")
    assert len(list(data.train_dataloader())) == 2
    assert len(list(data.val_dataloader()[0])) == 3


def test_an_incomplete_cache_where_nothing_can_be_written_says_so(
    cache: ExplanationCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    cache.path(KEYS[1]).unlink()
    monkeypatch.setattr("captum_meta.tasks.cache.write_whole", refuse)
    with pytest.raises(OSError, match=r"Read-only file system.*choose another folder"):
        fill(cache)


def test_the_manifest_lists_the_shards(cache: ExplanationCache) -> None:
    cache.write_manifest("train", [cache.metadata(key) for key in KEYS])
    shards = json.loads((cache.folder / "manifest-train.json").read_text())["shards"]
    assert [shard["key"] for shard in shards] == KEYS
    assert all((cache.folder / shard["file"]).is_file() and shard["finite"] for shard in shards)


def test_keys_tell_batches_apart_and_stay() -> None:
    other = SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=3, seed=5)
    keys = {key_of(describe(family, index)) for family in (FAMILY, other) for index in range(3)}
    assert len(keys) == 6
    assert key_of(describe(SyntheticTaskFamily("shapley", 2, 3, 4), 0)) == KEYS[0]


def test_a_family_that_does_not_say_what_it_depends_on_is_refused() -> None:
    class Mute:
        def variants(self, index: int) -> list[Explanations]:
            return []

    with pytest.raises(TypeError, match="does not say"):
        describe(Mute(), 0)
