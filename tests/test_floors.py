"""Imports run downward only: a floor may import the floors below it (see CONTRIBUTING.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "captum_meta"
FLOORS = {
    "types": 0,
    "records": 0,
    "_captum": 0,
    "_random": 0,
    "_model": 0,
    "_files": 0,
    "_units": 0,
    "_warnings": 0,
    "nn": 1,
    "optim": 1,
    "estimators": 1,
    "losses": 1,
    "functional": 1,
    "games": 1,
    "learners": 2,
    "evidence": 2,
    "tasks": 2,
    "metrics": 2,
    "attr": 3,
    "training": 3,
    "export": 3,
    "visualization": 3,
    "cli": 4,
    "demo": 4,
    "explain": 4,
    "benchmark": 4,
}
SAME_FLOOR = {("tasks", "evidence"), ("nn", "estimators"), ("nn", "losses"), ("cli", "demo"), ("cli", "benchmark")}
SAME_FLOOR |= {
    ("types", "records"),
    ("cli", "explain"),
    ("explain", "benchmark"),
    ("demo", "benchmark"),
    ("demo", "explain"),
    ("attr", "export"),
    ("visualization", "export"),
    ("benchmark", "demo"),
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "captum_meta" else [f"captum_meta.{n.name}" for n in node.names]
            found.update(names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem not in ("__init__",))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downward(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "captum_meta" or len(parts) < 2 or parts[1] == here or parts[1] == "__version__":
            continue
        there = parts[1]
        allowed = FLOORS[there] < FLOORS[here] or (here, there) in SAME_FLOOR
        if FLOORS[here] == 4 and here == "cli":
            allowed = True
        assert allowed, f"{here} (floor {FLOORS[here]}) imports {there} (floor {FLOORS[there]})"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_one_file_uses_captums_private_names(path: Path) -> None:
    if path.name == "_captum.py":
        return
    private = [name for name in imports(path) if name.startswith("captum.") and "._" in name]
    assert not private


def test_front_ends_load_neither_lightning_nor_torchmetrics() -> None:
    code = "import sys, captum_meta.attr; print([m for m in ('lightning', 'torchmetrics') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
