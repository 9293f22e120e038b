"""What README and the pages of docs/ show is so: Python blocks run, commands and files exist, the added learner works."""

import inspect
import json
import re
import shlex
import sys
from contextlib import redirect_stdout, suppress
from functools import cache
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest

import captum_meta.attr
import captum_meta.learners as learners
from captum_meta.benchmark.cli import _FURTHER
from captum_meta.cli import main
from captum_meta.nn import ShapleyExplainer
from captum_meta.types import Explanations
from tests.learners import contract

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "captum_meta/weights/README.md",
    *sorted(ROOT.glob("docs/*.md")),
]
TUTORIALS = sorted(ROOT.glob("tutorials/*.ipynb"))
COMMENTED = [*sorted(ROOT.glob("captum_meta/configs/*.yaml")), *TUTORIALS]
TO_BE_WRITTEN = {
    "captum_meta/learners/rescaling.py",
    "tests/learners/test_rescaling.py",
    "captum_meta/attr/shapley_values.py",
}
USERS_OWN = {"my.yaml", "runs/my.ckpt"}
batches = contract.batches


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def run(page: Path) -> dict[str, object]:
    """The namespace that all Python blocks of a page leave, run in order."""
    module = sys.modules["page"] = ModuleType("page")  # where dataclasses look for the module of a class
    namespace: dict[str, object] = vars(module)
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), namespace)
    return namespace


def text_of(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text()
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])


def commands() -> list[str]:
    text = "\n".join(text_of(page) for page in [*PAGES, *COMMENTED])
    text = re.sub(r"\s*\\+\n\s*", " ", text)
    found = re.findall(r"captum-meta ((?:demo|benchmark|fit|validate|test|predict)\b[^`\n#|&;)]*)", text)
    return sorted({command.split("  ")[0].strip().rstrip(".,:") for command in found})


@cache
def options_of(*command: str) -> set[str]:
    with redirect_stdout(StringIO()) as told, suppress(SystemExit):
        main([*command, "--help"])
    return set(re.findall(r"--[\w.-]+\w", told.getvalue()))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_python_blocks_run(page: Path) -> None:
    run(page)


def test_the_card_says_which_explainer_each_learner_holds() -> None:
    card = ROOT / "captum_meta/weights/README.md"
    told = dict(re.findall(r"^\| `([\w-]+)` \| (today's|the first|its own) \|", card.read_text(), re.MULTILINE))
    assert told == run(card)["explainers"]


@pytest.mark.parametrize("command", commands())
def test_commands_exist(command: str) -> None:
    words = shlex.split(command)
    name = words[:2] if len(words) > 1 and words[0] == "benchmark" and not words[1].startswith("-") else words[:1]
    if len(name) == 2:
        assert name[1] in _FURTHER
    options = {word for word in words if word.startswith("--")}
    assert not options or options <= options_of(*name)


def test_files_exist() -> None:
    missing = []
    for page in PAGES:
        text = re.sub(r"```text\n.*?```", "", page.read_text(), flags=re.DOTALL)
        named = re.findall(r"(?<![\w/.*-])((?:[\w.-]+/)*[\w-]+\.(?:py|yaml|ipynb|jsonl|png|cff))\b", text)
        linked = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
        for path in {*named, *linked} - TO_BE_WRITTEN - USERS_OWN:
            places = (page.parent, ROOT, ROOT / "captum_meta", ROOT / "captum_meta/configs", ROOT / "tests")
            missing += [f"{page.name}: {path}"] if not any((place / path).exists() for place in places) else []
    assert not missing


@pytest.mark.parametrize("tutorial", [path.stem for path in TUTORIALS])
def test_every_tutorial_is_shown_with_a_small_picture(tutorial: str) -> None:
    picture = ROOT / "docs/_static/thumbnails" / f"{tutorial}.png"  # `python docs/thumbnails.py` makes it
    assert 1_000 < picture.stat().st_size < 30_000
    readme, gallery = (ROOT / "README.md").read_text(), (ROOT / "docs/gallery.md").read_text()
    assert f"docs/_static/thumbnails/{tutorial}.png" in readme and f"(tutorials/{tutorial}.ipynb)" in readme
    assert f":img-top: _static/thumbnails/{tutorial}.png" in gallery and f":link: tutorials/{tutorial}\n" in gallery


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_says_how_to_install_and_shows_no_path_of_a_machine(tutorial: Path) -> None:
    text = tutorial.read_text()
    assert "site-packages" not in text and "/home/" not in text
    assert "pip install" not in text or "From the root of the source: `pip install -c constraints.txt" in text


def test_front_ends_are_in_the_tables_of_their_page() -> None:
    page = (ROOT / "docs/api/attr.md").read_text()
    assert not [name for name in captum_meta.attr.__all__ if f"   ~captum_meta.attr.{name}\n" not in page]


def algorithms() -> list[list[str]]:
    """The cells of the table of all algorithms, one list a line."""
    page = (ROOT / "docs/algorithms.md").read_text()
    lines = page.split("<!-- algorithms -->")[1].split("<!-- end of algorithms -->")[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def test_the_table_of_algorithms_names_what_exists() -> None:
    rooms = [import_module(f"captum_meta.{room}") for room in ("learners", "nn", "optim", "training")]
    named, shipped = set(), set()
    for _, formula, kind, test, weights, *_ in algorithms():
        assert formula and any(hasattr(room, kind.strip("`")) for room in rooms), kind
        assert (ROOT / "tests" / test.strip("`")).is_file(), test
        assert kind.strip("`") in (ROOT / "tests" / test.strip("`")).read_text() or "test_contract" in test, test
        named.add(kind.strip("`"))
        shipped.add(weights.strip("`"))
    kinds = {name: getattr(learners, name) for name in learners.__all__}
    classes = {name for name, kind in kinds.items() if inspect.isclass(kind) and not inspect.isabstract(kind)}
    assert classes <= named, f"the table of algorithms lacks {classes - named}"
    assert shipped - {"none", ""} == set(learners.list_learners())


def test_the_learner_that_a_page_adds_keeps_the_contract(
    batches: dict[str, Explanations], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = run(ROOT / "docs/adding-a-learner.md")
    made = page["Rescaling"]
    page["test_the_factor_is_shrunk_least_squares"]()  # type: ignore[operator]
    monkeypatch.setattr(learners, "Rescaling", made, raising=False)
    monkeypatch.setitem(contract.LEARNERS, "rescaling", lambda: made(ShapleyExplainer(16, 1)))  # type: ignore[operator]
    given = {"name": "rescaling", "batches": batches, "tmp_path": tmp_path}
    checks = [check for check in vars(contract.LearnerContract) if check.startswith("test_")]
    assert checks
    for check in checks:
        method = getattr(contract.LearnerContract(), check)
        method(**{argument: given[argument] for argument in inspect.signature(method).parameters})
