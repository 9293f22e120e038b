"""Learner files: what cannot be loaded says why and what to do, before memory is taken for it."""

import json
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import captum_meta
from captum_meta.learners import MAML, MatchingNetwork, Ridge, TransferGaussianProcess, ZeroShot, list_learners, load_learner
from captum_meta.nn import PathExplainer, ShapleyExplainer
from captum_meta.tasks import SyntheticTaskFamily
from tests.learners.contract import LEARNERS


def small() -> ZeroShot:
    torch.manual_seed(0)
    return ZeroShot(ShapleyExplainer(16, 1))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    small().save(tmp_path / "mine")
    return tmp_path / "mine"


def edit(path: Path, **changes: Any) -> None:
    file = path.with_name(path.name + ".json")
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))


def same_weights(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    others = right.state_dict()
    return all(torch.equal(value, others[name]) for name, value in left.state_dict().items())


@pytest.mark.parametrize("written", ["a", "a.json", "a.safetensors", "deep/folder/a", "v1.5", "v1.5.json"])
@pytest.mark.parametrize("suffix", ["", ".json", ".safetensors"])
def test_a_path_may_name_either_file_or_neither(tmp_path: Path, written: str, suffix: str) -> None:
    small().save(tmp_path / written)
    stem = written.removesuffix(".json").removesuffix(".safetensors")
    folder = (tmp_path / stem).parent
    assert sorted(os.listdir(folder)) == [f"{Path(stem).name}.json", f"{Path(stem).name}.safetensors"]
    assert same_weights(load_learner(tmp_path / (stem + suffix)), small())
    assert same_weights(load_learner(str(tmp_path / (stem + suffix))), small())


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped bit of a weight": (lambda p: weights(p, lambda data: flip(data, len(data) - 5)), "SHA-256"),
    "a flipped bit of the header": (lambda p: weights(p, lambda data: flip(data, 20)), "mine"),
    "weights cut short": (lambda p: weights(p, lambda data: data[: len(data) // 2]), "cannot be read"),
    "no weights": (lambda p: weights(p, lambda data: b""), "cannot be read"),
    "a huge header": (lambda p: weights(p, lambda data: b"\xff" * 7 + b"\x00" + data), "cannot be read"),
    "JSON cut short": (lambda p: text(p, lambda s: s[: len(s) // 2]), "no JSON file that can be read"),
    "no JSON": (lambda p: text(p, lambda s: "\x00"), "no JSON file that can be read"),
    "a list": (lambda p: text(p, lambda s: "[1]"), "no field 'evidence_version'"),
    "nested JSON": (lambda p: text(p, lambda s: "[" * 100_000), "no JSON file that can be read"),
    "a number of 5,000 digits": (lambda p: text(p, lambda s: s.replace("16", "1" * 5000)), "no JSON file that can be read"),
    "a number that is none": (lambda p: edit(p, arguments={"confidence": float("nan")}), "NaN is not valid JSON"),
    "another's weights": (lambda p: save_file(ZeroShot(PathExplainer(16, 1)).state_dict(), f"{p}.safetensors"), "differ in"),
    "an unknown learner": (lambda p: edit(p, learner="Oracle"), "no MetaLearner named 'Oracle'"),
    "an abstract learner": (lambda p: edit(p, learner="MetaLearner"), "no MetaLearner named 'MetaLearner'"),
    "a function": (lambda p: edit(p, learner="load_learner"), "no MetaLearner named 'load_learner'"),
    "an unknown explainer": (lambda p: edit(p, explainer="Oracle"), "no Explainer named 'Oracle'"),
    "an unknown argument": (lambda p: edit(p, arguments={"speed": 3}), "this release cannot build.*speed"),
    "an argument of another type": (lambda p: edit(p, explainer_arguments={"width": "16", "depth": 1}), "cannot build"),
    "a negative width": (lambda p: edit(p, explainer_arguments={"width": -16, "depth": 1}), "cannot build"),
    "another width": (lambda p: edit(p, explainer_arguments={"width": 24, "depth": 1}), "differ in"),
    "another depth": (lambda p: edit(p, explainer_arguments={"width": 16, "depth": 2}), "differ in"),
    "weights outside": (lambda p: edit(p, weights="../mine.safetensors"), "must lie in the same folder"),
    "weights anywhere": (lambda p: edit(p, weights="/etc/passwd"), "must lie in the same folder"),
    "weights nowhere": (lambda p: edit(p, weights=".."), "must lie in the same folder"),
    "weights gone": (lambda p: edit(p, weights="gone.safetensors"), "cannot be read"),
    "another version": (lambda p: edit(p, evidence_version=0), "version 0"),
    "a kind that is asked for by no one": (lambda p: edit(p, kind="path"), "predicts path attributions, but shapley"),
    **{
        f"no {field}": (lambda p, field=field: edit(p, **{field: ...}), f"no field '{field}'")
        for field in ("evidence_version", "kind", "learner", "arguments", "explainer", "explainer_arguments", "weights")
    },
    "a field of another type": (lambda p: edit(p, arguments=[]), "no field 'arguments' of type dict"),
}


def weights(path: Path, change: Callable[[bytes], bytes]) -> None:
    file = path.with_name("mine.safetensors")
    file.write_bytes(change(file.read_bytes()))


def text(path: Path, change: Callable[[str], str]) -> None:
    file = path.with_name("mine.json")
    file.write_text(change(file.read_text()))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_say_what_is_wrong_and_what_to_do(saved: Path, damage: str) -> None:
    change, words = DAMAGES[damage]
    change(saved)
    with pytest.raises(ValueError, match=words) as caught:
        load_learner(saved)
    told = str(caught.value)
    assert "mine.json" in told or ".safetensors" in told
    assert any(remedy in told for remedy in ("again", "same folder", "pass a learner"))


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(saved: Path, value: float, checksum: bool) -> None:
    file = saved.with_name("mine.safetensors")
    tensors = load_file(file)
    tensors["explainer.norm.bias"][3] = value
    save_file(tensors, file)
    edit(saved, sha256=...)
    with pytest.raises(ValueError, match=r"explainer.norm.bias of .*mine.safetensors are not finite"):
        load_learner(saved)
    learner = small()
    learner.load_state_dict(tensors)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"explainer.norm.bias of the learner are not finite"):
        learner.save(saved)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "explainer_arguments"),
    [
        ({}, {"width": 10**9, "depth": 1}),
        ({}, {"width": 50_000, "depth": 1}),
        ({}, {"width": 16, "depth": 10**8}),
        ({"encoder": {"features": 16, "width": 30_000, "depth": 1}}, {"width": 16, "depth": 1}),
        ({"key_width": 10**12}, {"width": 16, "depth": 1}),
    ],
    ids=str,
)
def test_absurd_sizes_are_refused_before_memory_is_taken(
    tmp_path: Path, arguments: dict[str, Any], explainer_arguments: dict[str, Any]
) -> None:
    MatchingNetwork(ShapleyExplainer(16, 1)).save(tmp_path / "mine")
    told = json.loads((tmp_path / "mine.json").read_text())["arguments"]
    edit(tmp_path / "mine", arguments={**told, **arguments}, explainer_arguments=explainer_arguments)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"does not fit|differ in|cannot build"):
        load_learner(tmp_path / "mine")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_files_without_a_checksum_load_as_before(saved: Path) -> None:
    edit(saved, sha256=...)
    assert same_weights(load_learner(saved), small())


def test_shipped_files_carry_the_checksum_of_their_weights() -> None:
    for kind in ("shapley", "path"):
        for name in list_learners(kind):
            told = json.loads((Path(captum_meta.__file__).parent / f"weights/{kind}-{name}.json").read_text())
            assert len(told["sha256"]) == 64
            load_learner(name, kind)


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="no learner 'nonsense'"):
        load_learner("nonsense")


class Own(Ridge):
    pass


class MyExplainer(ShapleyExplainer):
    pass


def test_paths_at_which_there_is_no_learner_say_what_may_be_meant(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"by captum_meta.training.learner_from_checkpoint\(path\)"):
        load_learner(saved.with_name("last.ckpt"))
    saved.with_name(saved.name + ".json").unlink()
    for name in (saved, saved.with_name(saved.name + ".safetensors")):
        with pytest.raises(ValueError, match=rf"The weights are there, but {saved.name}.json beside them"):
            load_learner(name)
    for call in (load_learner, ZeroShot(ShapleyExplainer(8, 1)).save):
        with pytest.raises(ValueError, match=r"path ends in a name.* got '\.'"):
            call("")


def test_parts_of_ones_own_are_refused_when_they_are_saved(tmp_path: Path) -> None:
    for learner, words in (
        (Own(ShapleyExplainer(16, 1)), "learner is a Own of your own"),
        (Ridge(MyExplainer(16, 1)), "explainer is a MyExplainer of your own"),
        (
            MAML(ShapleyExplainer(16, 1), inner_loss=lambda p, r, v: (p - r).abs().mean()),
            "inner_loss is a function of your own",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            learner.save(tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def test_what_a_stream_of_models_left_is_saved_too(tmp_path: Path) -> None:
    learner = TransferGaussianProcess(ShapleyExplainer(16, 1))
    explained = SyntheticTaskFamily("shapley", tasks_per_batch=1, rows=8, seed=5)[6]
    learner.condition_on([explained[:, :4]])
    learner.save(tmp_path / "mine")
    loaded = load_learner(tmp_path / "mine")
    state = learner.adapt(explained[:, :6])
    assert torch.equal(
        loaded.predict(loaded.adapt(explained[:, :6]), explained[:, 6:].evidence),
        learner.predict(state, explained[:, 6:].evidence),
    )
    assert len(loaded.past_task) == len(learner.past_task) > 0  # type: ignore[arg-type]


def test_a_killed_save_leaves_the_files_as_they_were(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in saved.parent.iterdir()}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("captum_meta._files.os.fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            ZeroShot(ShapleyExplainer(24, 1)).save(saved)
    assert {file.name: file.read_bytes() for file in saved.parent.iterdir()} == before


def test_loading_leaves_the_random_state_alone(saved: Path) -> None:
    state = torch.get_rng_state()
    load_learner(saved)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["surrogate", "feature-maml", "maml", "learned-optimizer", "matching"])
def test_loading_does_not_depend_on_the_default_device(name: str) -> None:
    with torch.device("meta"):
        loaded = load_learner(name)
    assert same_weights(loaded, load_learner(name))


def test_loading_saved_learners_imports_no_compiler(tmp_path: Path) -> None:
    files = {}
    for name, make in LEARNERS.items():
        learner, file = make(), str(tmp_path / name.replace(" ", "-"))
        learner.save(file)
        files[file] = learner.kind
    code = """
        import json, sys
        from captum_meta.learners import load_learner
        for file, kind in json.loads(sys.argv[1]).items():
            load_learner(file, kind)
            assert "torch._dynamo" not in sys.modules, file
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), json.dumps(files)], check=True)
