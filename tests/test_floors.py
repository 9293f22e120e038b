"""Imports run downward only, without exceptions (see CONTRIBUTING.md)."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "captum_meta"
FLOORS = {
    0.0: ("_captum", "_files", "_numbers", "_random", "_units", "_warnings", "records"),
    0.1: ("_model", "types"),
    1.0: ("estimators", "losses", "optim"),
    1.1: ("games",),
    1.2: ("functional", "nn"),
    2.0: ("evidence", "learners", "metrics"),
    2.1: ("tasks",),
    3.0: ("export",),
    3.1: ("attr", "training", "visualization"),
    4.0: ("benchmark",),
    4.1: ("explain",),
    4.2: ("demo",),
    4.3: ("cli",),
}
"""Rooms by their floors, each in steps: a room may import what stands on lower steps."""
STEPS = {name: step for step, names in FLOORS.items() for name in names}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports(path: Path, later: bool = True) -> set[str]:
    """What a file imports, in its functions too or, unless ``later``, while it is imported itself."""
    found, tree = set(), ast.parse(path.read_text())
    for node in ast.walk(tree) if later else tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem not in ("__init__",))


def test_imports_run_downward() -> None:
    for path in FILES:
        here = room(path)
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "captum_meta" or len(parts) < 2 or parts[1] == here or parts[1] == "__version__":
                continue
            there = parts[1]
            assert STEPS[there] < STEPS[here], f"{path}: {here} (step {STEPS[here]}) imports {there} (step {STEPS[there]})"


def test_no_module_imports_one_that_imports_it() -> None:
    modules = {".".join(("captum_meta", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in FILES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    found = {}
    for name, path in modules.items():
        names = imports(path, later=False)
        found[name] = {full if full in modules else full.rpartition(".")[0] for full in names}
    TopologicalSorter(found).prepare()


def test_only_one_file_uses_captums_private_names() -> None:
    for path in FILES:
        private = [name for name in imports(path) if name.startswith("captum.") and "._" in name]
        assert not private or path.name == "_captum.py", f"{path} imports {private}"


def calls_the_model(path: Path) -> bool:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return any("forward_func" in (getattr(call, "id", None), getattr(call, "attr", None)) for call in calls)


def test_the_explained_model_is_called_in_games_alone() -> None:
    """And by the teacher, which is Captum's method; front ends, metrics and evidence ask a game."""
    assert {room(path) for path in FILES if calls_the_model(path)} == {"games"}


def test_front_ends_load_neither_lightning_nor_torchmetrics_nor_check_types() -> None:
    code = "import sys, captum_meta.attr; print([m for m in ('lightning', 'torchmetrics', 'beartype') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_no_test_module_imports_another() -> None:
    """What tests share is in modules of their own."""
    for path in Path(__file__).parent.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("tests", "test_")):
                named = [*str(node.module).split("."), *(alias.name for alias in node.names)]
                assert not [name for name in named if name.startswith("test_")], path


FORMULAS = ("estimators", "evidence", "functional", "games", "learners", "metrics", "nn", "optim", "tasks")


def test_tests_of_formulas_name_nothing_private() -> None:
    """What they derive again has a name of its own; a module whose name begins with a line is shared within its room."""
    for folder in FORMULAS:
        for path in (Path(__file__).parent / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("captum_meta."):
                    private = [alias.name for alias in node.names if alias.name.startswith("_")]
                    assert not private, f"{path.name} imports {private} from {node.module}"
