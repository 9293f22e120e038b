"""While tests run, shapes in annotations are checked, synthetic models are hardly trained, and workers share the cores."""

import os
from collections.abc import Iterator
from pathlib import Path

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))  # read when torch is imported

import pytest  # noqa: E402
from jaxtyping import config, install_import_hook  # noqa: E402

import captum_meta  # noqa: E402
from captum_meta import _warnings  # noqa: E402
from tests import shapes  # noqa: E402  (the hook looks its checker up by name)

ROOMS = {path.stem for path in Path(captum_meta.__file__).parent.iterdir()} - {"__init__", "optim", "training"}
"""All but those whose functions are compiled, and whose bound methods Lightning stores."""
HARDLY_TRAINED = ("learners", "nn", "optim", "tasks", "tests", "training")

_is_ours = _warnings._is_ours
_warnings._is_ours = lambda module: (
    module.startswith(("jaxtyping", shapes.__name__)) or _is_ours(module)
)  # whose calls lie between
install_import_hook([f"captum_meta.{room}" for room in ROOMS], "tests.shapes.checked")

from captum_meta.tasks import synthetic  # noqa: E402


def pytest_runtest_setup(item: pytest.Item) -> None:
    shapes.begin(item.nodeid.partition("[")[0])


@pytest.fixture(autouse=True, scope="module")
def hardly_trained(request: pytest.FixtureRequest) -> Iterator[None]:
    """To train synthetic models takes long, and few tests are about what they know: modules with ``TRAINED = True``."""
    patch, room = pytest.MonkeyPatch(), request.path.parent.name
    if room in HARDLY_TRAINED and not getattr(request.module, "TRAINED", False):
        patch.setattr(synthetic, "_STEPS", dict.fromkeys(synthetic._STEPS, (0, 4)))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def few_trees() -> Iterator[None]:
    """Forests of calibrated methods are a quarter as large; the documentation's blocks grow whole ones."""
    from captum_meta.attr import _difficulty

    patch = pytest.MonkeyPatch()
    patch.setattr(_difficulty, "_TREES", 25)
    yield
    patch.undo()


@pytest.fixture
def unchecked() -> Iterator[None]:
    """For tests of mistakes, which the functions themselves are to tell."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
