"""Peers that shapiq has since 1.8, for which Python 3.12 is needed: run by an interpreter of their own, through a pipe.

Name it in the environment variable ``CAPTUM_META_SHAPIQ``: a Python for which ``pip install shapiq==1.8.0 lightgbm xgboost``
was done (or ``pip install 'captum-meta[peers]'``). Empty and full coalitions count within the budget.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from captum_meta.benchmark.peers import RowGame, by_row
from captum_meta.benchmark.problem import Problem

PYTHON = "CAPTUM_META_SHAPIQ"
_SERVER = Path(__file__).with_name("shapiq_server.py")


def available() -> bool:
    """Whether an interpreter is named."""
    return bool(os.environ.get(PYTHON))


class ShapiqProcess:
    """Another Python that runs approximators, and asks back for the worths of coalitions.

    Args:
        python: path of its interpreter.
    """

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, str(_SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        atexit.register(self.close)

    def explain(self, worth: Callable[[np.ndarray], np.ndarray], question: Mapping[str, Any]) -> np.ndarray:
        """Values of the players, ``(M,)``, in answer to a question of :mod:`captum_meta.benchmark.shapiq_server`.

        Raises:
            RuntimeError: the process ended, or the approximator raised.
        """
        answer = self._ask(question)
        while "coalitions" in answer:
            members = np.array([[int(bit) for bit in row] for row in answer["coalitions"]])
            answer = self._ask({"worths": worth(members).tolist()})
        if "values" not in answer:
            raise RuntimeError(f"{question['name']} of shapiq failed: {answer['error']}")
        return np.array(answer["values"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps(message), file=self._process.stdin, flush=True)
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            raise RuntimeError(f"The Python for shapiq ended: name one that imports shapiq 1.8 in {PYTHON}.") from error
        return answer


@cache
def process() -> ShapiqProcess:
    if not available():
        raise RuntimeError(f"This method needs shapiq 1.8: name a Python 3.12 that has it in the variable {PYTHON}.")
    return ShapiqProcess(os.environ[PYTHON])


def approximated(problem: Problem, budget: int, name: str, groups: object = None, **arguments: object) -> Tensor:
    """As :func:`captum_meta.benchmark.peers.shapiq` does, in the other Python."""
    n_players = problem.n_players
    question = {"name": name, "arguments": arguments, "n": n_players, "budget": min(budget, 2**n_players), "groups": groups}

    def explain(worth: RowGame, seed: int) -> np.ndarray:
        return process().explain(worth, {**question, "seed": seed})

    return by_row(problem, explain)


MODERN: dict[str, Callable[[Problem, int], Tensor]] = {
    "shapiq LeverageSHAP": partial(approximated, name="LeverageSHAP"),
    "shapiq RegressionMSR": partial(approximated, name="RegressionMSR", index="SV"),
    "shapiq OddSHAP": partial(approximated, name="OddSHAP"),
    "shapiq PolySHAP": partial(approximated, name="PolySHAP", max_order=2, pairing_trick=True),
    "shapiq ProxySHAP": partial(approximated, name="ProxySHAP", index="SV", max_order=1, adjustment=True),
}
"""Each at the settings of its paper, with trees of XGBoost and LightGBM."""
