"""The posterior is made for the rows that read it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_meta.evidence import Game
from captum_meta.evidence.measure import measure_shapley
from captum_meta.learners import load_learner
from captum_meta.nn import Prior, shapley
from captum_meta.types import Evidence

M = 6


def with_inside(rows: list[int]) -> Evidence:
    """Five rows, of whom these alone have coalitions beyond the border."""
    torch.manual_seed(0)
    weights = torch.randn(M, 8).double()
    game = Game(lambda x: torch.tanh(x @ weights).sum(1), torch.randn(5, M).double(), torch.zeros(5, M).double())
    evidence = measure_shapley(game, 4 * M)
    assert evidence.coalitions is not None
    measured = evidence.coalitions.measured.clone()
    others = [row for row in range(5) if row not in rows]
    measured[others, 2 * M :] = False
    return replace(evidence, coalitions=replace(evidence.coalitions, measured=measured))


@pytest.mark.parametrize("rows", [[1, 3], [0, 1, 2, 3, 4], []])
def test_rows_with_coalitions_inside_alone_have_one(rows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = shapley.refined

    def counted(prior: Prior, *others: Any) -> Tensor:
        asked.append(len(prior.scale))
        return original(prior, *others)

    monkeypatch.setattr(shapley, "refined", counted)
    explainer = load_learner("zero-shot", "shapley").double().explainer
    evidence = with_inside(rows)
    found = explainer(evidence).attributions
    assert asked == ([len(rows)] if rows else [])
    alone = torch.cat([explainer(evidence[row : row + 1]).attributions for row in range(5)])
    border = explainer(replace(evidence, coalitions=None)).attributions
    assert torch.allclose(found, alone, rtol=1e-9)
    changed = (found - border).abs().amax(1) > 1e-9
    assert changed.nonzero().flatten().tolist() == rows
