"""The measured evidence as features, without a network, for teachers that no explainer was trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_meta.nn.explainer import Explainer, Prediction, Prior, row_scale
from captum_meta.types import Evidence


class EvidenceExplainer(Explainer):
    """Explains nothing by itself; learners regress any teacher's attributions on its features.

    Features of a player are its effects' absolute values, its gradients (effects over the input's difference from the
    baseline, where the inputs are known) and their absolute values.
    """

    kind = "general"

    def prior(self, evidence: Evidence, hidden: Tensor | None = None) -> Prior:
        scale = row_scale(evidence)
        measured = evidence.measured & evidence.players.unsqueeze(-1)
        effects = torch.where(measured, evidence.effects, 0.0)
        parts = [effects.abs()]
        if evidence.inputs is not None:
            delta = (evidence.inputs[..., 0] - evidence.inputs[..., 1]).to(effects).unsqueeze(-1)
            gradients = torch.where(delta == 0, 0.0, effects / torch.where(delta == 0, 1.0, delta))
            parts += [gradients, gradients.abs()]
        nothing = torch.zeros_like(effects[..., 0])
        return Prior(nothing, nothing, scale, torch.cat(parts, dim=-1))

    def complete(self, prior: Prior, evidence: Evidence) -> Prediction:
        return Prediction(prior.attributions, prior.attributions.sum(-1) - evidence.total)
