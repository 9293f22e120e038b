"""Similarities, encoders, losses and hypergradients are chosen in a configuration by ``class_path``, for every learner."""

import inspect
import warnings
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import yaml

import captum_meta.learners as learners
from captum_meta.cli import main
from captum_meta.learners import MAML, MatchingNetwork, MetaLearner, Stacking, load_learner

EXPLAINER = {"class_path": "captum_meta.nn.ShapleyExplainer", "init_args": {"width": 16, "depth": 1}}
READS_EVIDENCE = {"class_path": "captum_meta.nn.EvidenceEncoder", "init_args": {"features": 16, "width": 20}}
CHOICES: dict[str, Any] = {
    "encoder": READS_EVIDENCE,
    "similarity": {"class_path": "captum_meta.nn.DistanceSimilarity", "init_args": {"temperature": 0.5}},
    "hypergradient": {
        "class_path": "captum_meta.optim.Annealed",
        "init_args": {
            "early": {"class_path": "captum_meta.optim.FirstOrder"},
            "late": {"class_path": "captum_meta.optim.Truncated", "init_args": {"length": 2}},
            "outer_steps": 3,
        },
    },
    "inner_loss": "mean_squared_error",
    "outer_loss": "captum_meta.losses.cosine_and_magnitude",
    "surrogate": {"class_path": "captum_meta.nn.LearnedDescent", "init_args": {"steps": 3}},
    "base": {"class_path": "captum_meta.learners.KernelRidge", "init_args": {"explainer": EXPLAINER, "features": 8}},
    "kernel": {
        "class_path": "captum_meta.learners.DeepKernelTransfer",
        "init_args": {"explainer": EXPLAINER, "encoder": READS_EVIDENCE},
    },
}
"""What may be chosen, by the name of the argument."""
FEW = {"steps": 2}
SHORT = {"batches": 1, "validation_batches": 1, "support_rows": 4, "steps_per_epoch": 1}
CLASSES = [
    name
    for name in learners.__all__
    if inspect.isclass(kind := getattr(learners, name)) and issubclass(kind, MetaLearner) and not inspect.isabstract(kind)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tasks are kept."""
    return tmp_path_factory.mktemp("tasks")


def configuration(name: str, folder: Path, **given: Any) -> dict[str, Any]:
    """A run of one step."""
    taken = inspect.signature(getattr(learners, name)).parameters
    chosen = {argument: value for argument, value in {**CHOICES, **FEW, **given}.items() if argument in taken}
    if "explainer" in taken:
        chosen["explainer"] = EXPLAINER
    families = {
        which: {
            "class_path": "captum_meta.tasks.SyntheticTaskFamily",
            "init_args": {"kind": "shapley", "tasks_per_batch": 2, "rows": 8, "seed": seed},
        }
        for which, seed in (("train", 5), ("validation", 6))
    }
    return {
        "model": {"learner": {"class_path": f"captum_meta.learners.{name}", "init_args": chosen}},
        "data": {**families, "folder": str(folder), **SHORT},
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "callbacks": [{"class_path": "captum_meta.training.save.SaveLearner", "init_args": {"path": "runs/mine"}}],
        },
    }


def fit(config: dict[str, Any]) -> int:
    Path("mine.yaml").write_text(yaml.safe_dump(config))
    return main(["fit", "--config", "mine.yaml"])


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", CLASSES)
def test_all_that_a_learner_takes_is_chosen_in_a_configuration(name: str, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert fit(configuration(name, folder)) == 0
    told = load_learner("runs/mine").arguments()
    assert told.get("encoder", {}).get("width", 20) == 20
    assert told.get("similarity", {"class": "DistanceSimilarity"})["class"] == "DistanceSimilarity"
    assert told.get("inner_loss", "mean_squared_error") == "mean_squared_error"
    assert told.get("outer_loss", "cosine_and_magnitude") == "cosine_and_magnitude"
    if name != "Stacking" and "hypergradient" in told:
        assert told["hypergradient"]["class"] == "Annealed" and told["hypergradient"]["late"]["length"] == 2  # type: ignore[index]


SIMILARITIES = {
    "CosineSimilarity": {},
    "EuclideanSimilarity": {},
    "DistanceSimilarity": {},
    "MLPSimilarity": {"width": 16},
    "AttentionSimilarity": {"width": 16, "heads": 2},
}


@pytest.mark.parametrize(
    ("similarity", "encoder"), [*zip(SIMILARITIES, cycle(["EvidenceEncoder", "InputEncoder"]), strict=False)]
)
def test_every_similarity_and_encoder(similarity: str, encoder: str, folder: Path) -> None:
    config = configuration(
        "MatchingNetwork",
        folder,
        similarity={"class_path": f"captum_meta.nn.{similarity}", "init_args": SIMILARITIES[similarity]},
        encoder=READS_EVIDENCE if encoder == "EvidenceEncoder" else {"class_path": f"captum_meta.nn.{encoder}"},
    )
    assert fit(config) == 0
    learner = load_learner("runs/mine")
    assert isinstance(learner, MatchingNetwork)
    assert (type(learner.similarity).__name__, type(learner.encoder).__name__) == (similarity, encoder)


def test_what_is_printed_can_be_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump(configuration("MAML", folder)))
    with pytest.raises(SystemExit) as left:
        main(["fit", "--config", "mine.yaml", "--print_config"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert "captum_meta.optim.Truncated" in printed and "inner_loss: mean_squared_error" in printed
    assert fit(yaml.safe_load(printed)) == 0
    learner = load_learner("runs/mine")
    assert isinstance(learner, MAML) and learner.steps == 2


def test_arguments_that_a_chosen_class_does_not_take(folder: Path) -> None:
    wrong = {"class_path": "captum_meta.nn.CosineSimilarity", "init_args": {"warmth": 2}}
    with pytest.raises(ValueError, match=r"'warmth': 2.* is not understood: pass an object of captum_meta.nn"):
        fit(configuration("MatchingNetwork", folder, similarity=wrong))


def test_the_networks_half_is_chosen_too(folder: Path) -> None:
    assert fit(configuration("Stacking", folder)) == 0
    learner = load_learner("runs/mine")
    assert isinstance(learner, Stacking) and learner.surrogate.steps == 3  # type: ignore[union-attr]
