"""What checks the types and shapes of annotations in tests; installed by ``tests/conftest.py``."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

checked: Callable[..., Any] = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""A whole number passes for a float, as for other type checkers."""
