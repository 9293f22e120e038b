"""Types and shapes in annotations are checked while tests run, in the rooms named here."""

from jaxtyping import install_import_hook

import tests.shapes  # noqa: F401  (the hook looks its checker up by name)

ROOMS = ("estimators",)

install_import_hook([f"captum_meta.{room}" for room in ROOMS], "tests.shapes.checked")
