"""Approximators of shapiq 1.8, which asks for Python 3.12, behind a pipe: a script that needs nothing else of ours.

It reads a line of JSON for each row to explain, ``{"name": ..., "arguments": {...}, "n": ..., "budget": ..., "seed": ...}``,
asks back for worths with ``{"coalitions": ["0110", ...]}`` and reads ``{"worths": [...]}``, as often as it likes, and ends
with ``{"values": [...]}`` or ``{"error": ...}``.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np
import shapiq.approximator as approximators


def tell(message: dict[str, Any]) -> None:
    """Write a line to whoever asked; what libraries print goes to the errors."""
    print(json.dumps(message), file=sys.__stdout__, flush=True)


def worths(coalitions: np.ndarray) -> np.ndarray:
    """Of coalitions ``(S, M)``, by asking back."""
    rows = np.atleast_2d(coalitions).astype(int)
    tell({"coalitions": ["".join(map(str, row)) for row in rows]})
    return np.array(json.loads(sys.stdin.readline())["worths"], dtype=float)


def explain(question: dict[str, Any]) -> list[float]:
    """Values of the ``groups`` of players that are asked for, by default of each player."""
    np.random.seed(question["seed"])
    approximator = getattr(approximators, question["name"])(
        n=question["n"], random_state=question["seed"], **question["arguments"]
    )
    values = approximator.approximate(question["budget"], worths)
    groups = question.get("groups") or [[player] for player in range(question["n"])]
    return [float(values[tuple(group)]) for group in groups]


def main() -> None:
    """Answer questions until there are no more."""
    sys.stdout = sys.stderr
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        try:
            tell({"values": explain(json.loads(line))})
        except Exception as error:
            tell({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
