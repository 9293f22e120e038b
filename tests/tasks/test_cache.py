import errno
import json
from pathlib import Path

import pytest
import torch

from captum_meta.tasks import ExplanationCache, SyntheticTaskFamily
from captum_meta.tasks.cache import describe, key_of, make
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


def test_the_manifest_lists_the_shards(cache: ExplanationCache) -> None:
    cache.write_manifest("train", [cache.told(key) for key in KEYS])
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
