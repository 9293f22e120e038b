"""The regression behind error estimates."""

import torch

from captum_meta.nn import ShapleyExplainer
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.training.error_estimate import logarithms, regress, within


def test_the_powers_of_a_product_are_found() -> None:
    signals = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).double()
    powers = torch.tensor([0.6, 0.1, 0.3, 0.0]).double()
    assert torch.allclose(regress(signals, signals @ powers), powers)


def test_errors_are_those_of_the_answer_at_each_budget() -> None:
    torch.manual_seed(0)
    explainer = ShapleyExplainer(16, 1).double()
    family = SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=4, seed=5)
    batches = (family[index] for index in range(20))
    explained = next(batch for batch in batches if 7 <= batch.attributions.shape[-1] <= 12).to(dtype=torch.float64)
    found = {multiple: errors for multiple, _, errors in logarithms(explainer, explained)}
    assert 2 in found
    evidence = within(explained.evidence, 2)
    assert evidence is not None and evidence.coalitions is None
    values, right = explainer(evidence).attributions, explained.attributions
    errors = (values - right).square().sum(-1) / right.square().sum(-1)
    assert torch.allclose(found[2], (errors[errors.mean(-1) > 1e-9] + 1e-12).log())
