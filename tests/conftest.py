"""Types and shapes in annotations are checked while tests run, in the rooms named here."""

from collections.abc import Iterator

import pytest
from jaxtyping import config, install_import_hook

import tests.shapes  # noqa: F401  (the hook looks its checker up by name)
from captum_meta import _warnings

ROOMS = ("_random", "estimators", "functional", "losses")

_warnings._PACKAGES += ("jaxtyping",)  # whose calls lie between those of the package
install_import_hook([f"captum_meta.{room}" for room in ROOMS], "tests.shapes.checked")


@pytest.fixture
def unchecked() -> Iterator[None]:
    """For tests of mistakes, which the functions themselves are to tell."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
