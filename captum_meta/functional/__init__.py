"""Metrics of attributions as pure functions; ``captum_meta.metrics`` has them as ``torchmetrics`` classes.

The same words mean the same in all of them:

- ``attributions``, ``reference``, ``inputs`` are a tensor ``(B, *features)``, or a tuple of them, as in Captum;
- ``feature_mask`` makes a group one player: its attribution, which Captum repeats on its elements, is counted once, and
  its elements go to the baseline together;
- ``forward_func`` (left unchanged), ``baselines``, ``target``, ``additional_forward_args`` are as in Captum;
- ``reduction`` is ``"mean"``, ``"sum"`` or ``"none"`` over the rows. A row's value does not depend on the other rows.
"""

from captum_meta.functional.agreement import rank_correlation, top_k_agreement
from captum_meta.functional.concentration import complexity, sparseness
from captum_meta.functional.curves import comprehensiveness, deletion_auc, insertion_auc, sufficiency
from captum_meta.functional.error import attribution_error
from captum_meta.functional.faithfulness import completeness_error, faithfulness_correlation, infidelity
from captum_meta.functional.localisation import pointing_game, relevance_rank_accuracy
from captum_meta.functional.randomisation import parameter_randomisation
from captum_meta.functional.stability import local_lipschitz, max_sensitivity

__all__ = [
    "attribution_error",
    "completeness_error",
    "complexity",
    "comprehensiveness",
    "deletion_auc",
    "faithfulness_correlation",
    "infidelity",
    "insertion_auc",
    "local_lipschitz",
    "max_sensitivity",
    "parameter_randomisation",
    "pointing_game",
    "rank_correlation",
    "relevance_rank_accuracy",
    "sparseness",
    "sufficiency",
    "top_k_agreement",
]
