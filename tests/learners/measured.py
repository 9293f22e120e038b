"""Evidence made by hand."""

import torch

from captum_meta.types import SHAPLEY_POINTS, Evidence


def evidence_of(effects: torch.Tensor, values: torch.Tensor) -> Evidence:
    """All channels measured, of rows whose attributions are ``values``."""
    n_rows = len(values)
    return Evidence(
        effects=effects,
        measured=torch.ones_like(effects, dtype=torch.bool),
        players=torch.ones_like(values, dtype=torch.bool),
        total=values.sum(-1),
        curve=torch.zeros(n_rows, 3, dtype=torch.float64),
        points=torch.tensor(SHAPLEY_POINTS).expand(n_rows, 3),
    )
