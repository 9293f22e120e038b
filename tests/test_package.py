"""What is built installs away from the source tree, with its weights and configurations."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from captum_meta import __version__

ROOT = Path(__file__).parent.parent
_USED = """
import torch, captum_meta
from captum_meta.attr import MetaIntegratedGradients, MetaKernelShap
from captum_meta.learners import list_learners, load_learner
from captum_meta.training.cli import shipped_configurations

for kind in ("shapley", "path"):
    for name in list_learners(kind):
        load_learner(name, kind)
assert "shapley-zero-shot" in shipped_configurations()
x = torch.randn(3, 4)
model = lambda batch: batch[:, 0] * batch[:, 1] + batch[:, 2]
for method in (MetaKernelShap(model), MetaIntegratedGradients(model)):
    assert torch.allclose(method.attribute(x).sum(1), model(x), atol=1e-4)
print(captum_meta.__file__)
"""


@pytest.mark.slow
def test_the_wheel_and_the_source_archive_are_whole(tmp_path: Path) -> None:
    pytest.importorskip("build")
    source, site = tmp_path / "source", tmp_path / "site"
    ignored = shutil.ignore_patterns(".git", "build", "*.egg-info", "__pycache__", "runs", "_build")
    shutil.copytree(ROOT, source, ignore=ignored)
    run([sys.executable, "-m", "build", "--outdir", str(tmp_path), str(source)], tmp_path)
    (wheel,), (archive,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    assert __version__ in wheel.name and __version__ in archive.name
    run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], tmp_path)
    said = run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{_USED}"], tmp_path)
    assert Path(said.strip()).is_relative_to(site)


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
