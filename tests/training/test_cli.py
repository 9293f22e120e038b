from pathlib import Path

import pytest
from safetensors.torch import load_file

import captum_meta
from captum_meta.attr import MetaKernelShap
from captum_meta.cli import main
from captum_meta.learners import FeatureMAML, ZeroShot, load_learner
from captum_meta.nn import ShapleyExplainer
from captum_meta.training.cli import with_shipped_configurations

CONFIG = Path(__file__).parents[2] / "captum_meta" / "configs" / "own-models.yaml"

MY_MODELS = """
import torch
from torch import nn
from captum_meta.tasks import ModelTaskFamily

def load(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))

def family():
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
    return ModelTaskFamily(range(10), x, load=load, rows=24)

def train() -> ModelTaskFamily:
    return family().hold_out(models=[0])[0]

def held_out() -> ModelTaskFamily:
    return family().hold_out(models=[0])[1]
"""


def test_own_models_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(MY_MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    short = ["--config", str(CONFIG), "--data.steps_per_epoch", "2", "--data.workers", "0", "--trainer.max_epochs", "1"]
    assert main(["fit", *short]) == 0
    assert list((tmp_path / "runs" / "own-models").rglob("metrics.csv"))
    learner = load_learner(tmp_path / "runs" / "own-models")
    import my_models

    method = MetaKernelShap(my_models.load(0), learner=learner)
    assert method.attribute(my_models.torch.ones(1, 4), target=0).shape == (1, 4)
    checkpoint = next((tmp_path / "runs").rglob("last.ckpt"))
    assert main(["validate", *short, "--ckpt_path", str(checkpoint)]) == 0
    assert main(["predict", *short, "--ckpt_path", str(checkpoint), "--predictions.path", "told/mine"]) == 0
    predicted = load_file(tmp_path / "told" / "mine.safetensors")
    assert predicted and all(value.dim() == 3 and value.isfinite().all() for value in predicted.values())


EARLIER = {
    "runs/shapley-zero-shot": lambda: ZeroShot(ShapleyExplainer(8, 3)),
    "runs/shapley-feature-maml": lambda: FeatureMAML(ShapleyExplainer(8, 1)),
}


@pytest.mark.parametrize("config", sorted(path.name for path in CONFIG.parent.glob("*.yaml")))
def test_every_configuration_runs_a_step(config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(MY_MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path = CONFIG.parent / config
    for earlier, learner in EARLIER.items():
        if any(f"{earlier}{end}" in path.read_text() for end in ",}"):  # it goes on from another run
            learner().save(earlier)
    small = [
        "--data.workers",
        "0",
        "--data.batches",
        "8",
        "--data.validation_batches",
        "1",
        "--trainer.fast_dev_run",
        "true",
    ]
    text = path.read_text()
    if "my_models" not in text:
        small += ["--data.batches", "1", "--data.train.tasks_per_batch", "2"]
    if "SyntheticTaskFamily" in text or "RepeatedTaskFamily" in text:
        small += ["--data.train.rows", "8", "--data.validation.tasks_per_batch", "2", "--data.validation.rows", "8"]
    if "DistillationTaskFamily" in text:
        small += ["--data.validation.tasks_per_batch", "2"]
    if "SyntheticTaskFamily" in text and "support_rows" in text:
        small += ["--data.support_rows", "[4]", "--data.validation_support_rows", "[4]"]
    assert main(["fit", "--config", str(path), *small]) == 0


@pytest.mark.parametrize("given", [["--config", "shapley-ridge"], ["--config=shapley-ridge.yaml"], ["-c", "shapley-ridge"]])
def test_shipped_configurations_are_found_by_name(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["fit", *given, "--print_config"])
    assert left.value.code == 0
    assert "runs/shapley-ridge" in capsys.readouterr().out
    (tmp_path / "shapley-ridge").write_text(CONFIG.read_text())
    assert list(with_shipped_configurations(["fit", "--config", "shapley-ridge"]))[-1] == "shapley-ridge"


def test_a_configuration_that_there_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["fit", "--config", "nonsense"])
    assert left.value.code == 2
    assert "no file 'nonsense', and no shipped configuration among ['own-models'" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"captum-meta {captum_meta.__version__}\n"


MISTAKES = {
    "an argument that there is not": (("warmup_steps", "warm_up"), "does not accept option 'model.warm_up'"),
    "a learner that there is not": (("load_learner", "load_leaner"), "has no attribute 'load_leaner'"),
    "a file that there is not": (("my_models.train", "their_models.train"), "No module named 'their_models'"),
    "words for a number": (("steps_per_epoch: 200", "steps_per_epoch: many"), "Expected a <class 'int'>. Got value: many"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_a_configuration_are_told(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_models.py").write_text(MY_MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    (right, wrong), message = MISTAKES[mistake]
    (tmp_path / "wrong.yaml").write_text(CONFIG.read_text().replace(right, wrong))
    with pytest.raises(SystemExit) as left:
        main(["fit", "--config", str(tmp_path / "wrong.yaml")])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_help_explains(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: captum-meta {command} --config FILE" in shown
    assert "  captum-meta fit --config my.yaml --ckpt_path last" in shown
    assert "ModelTaskFamily over your own models" in shown


TOLD = {
    "--model.learner.help=MAML": "of the inner loop",
    "--data.train.help=captum_meta.tasks.SyntheticTaskFamily": "models of one architecture",
    "--print_config": "steps_per_epoch: 1000",
}


@pytest.mark.parametrize("option", TOLD)
def test_options_tell_more(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["fit", "--config", str(CONFIG.with_name("shapley-zero-shot.yaml")), option])
    assert left.value.code == 0
    assert TOLD[option] in capsys.readouterr().out
