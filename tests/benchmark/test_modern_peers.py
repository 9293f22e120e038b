"""Approximators behind a pipe say what they say in this process, spend their budget, and tell what went wrong."""

import sys
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch

from captum_meta._model import Counted
from captum_meta.benchmark import modern_peers
from captum_meta.benchmark.methods import SHAPLEY, installed
from captum_meta.benchmark.modern_peers import MODERN, ShapiqProcess
from tests.benchmark.conftest import brute_force, small_net, small_problem

M = 6
KERNEL = {"name": "KernelSHAP", "arguments": {"pairing_trick": True}, "n": M, "seed": 0}


@pytest.fixture(scope="module")
def here() -> Iterator[ShapiqProcess]:
    """The server in a Python of its own, with the shapiq of the tests."""
    process = ShapiqProcess(sys.executable)
    yield process
    process.close()


def test_the_pipe_changes_nothing(here: ShapiqProcess) -> None:
    pytest.importorskip("shapiq")
    problem = small_problem(M, n_rows=1)

    def explain(worth: object, seed: int) -> np.ndarray:
        return here.explain(worth, {**KERNEL, "budget": 30})

    through = modern_peers.by_row(problem, explain)
    assert torch.equal(through, SHAPLEY["shapiq KernelSHAP"](problem, 30))


def test_an_approximator_that_raises_says_why_and_the_process_goes_on(here: ShapiqProcess) -> None:
    pytest.importorskip("shapiq")
    worth = partial(np.sum, axis=1)
    with pytest.raises(RuntimeError, match=r"Nobody of shapiq failed: AttributeError"):
        here.explain(worth, {**KERNEL, "name": "Nobody", "budget": 30})
    assert np.allclose(here.explain(worth, {**KERNEL, "budget": 2**M}), 1)


def test_a_python_without_shapiq_is_named_as_the_cause() -> None:
    with pytest.raises(RuntimeError, match=r"imports shapiq 1.8 in CAPTUM_META_SHAPIQ"):
        ShapiqProcess("true").explain(np.sum, KERNEL)


def test_without_an_interpreter_they_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(modern_peers.PYTHON, raising=False)
    modern_peers.process.cache_clear()
    assert not any(map(installed, MODERN))
    with pytest.raises(RuntimeError, match=r"name a Python 3.12"):
        MODERN["shapiq OddSHAP"](small_problem(M, n_rows=1), 30)


@pytest.mark.skipif(not modern_peers.available(), reason="no Python is named that has shapiq 1.8")
@pytest.mark.parametrize("name", MODERN)
def test_modern_peers_spend_their_budget_and_know_what_all_coalitions_tell(name: str) -> None:
    model = Counted(small_net(M))
    problem = small_problem(M, n_rows=2, model=model)
    model.evaluations = 0
    MODERN[name](problem, 40)
    assert 38 <= model.evaluations / 2 <= 40
    assert torch.allclose(MODERN[name](problem, 2**M).double(), brute_force(problem), atol=1e-3)
