"""The long inner loop derived again as a plain one, and trained through Lightning."""

from dataclasses import replace

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import DataLoader

from captum_meta.learners import MAML, MomentumMAML
from captum_meta.losses import relative_squared_error, scaled_squared_error
from captum_meta.nn import ShapleyExplainer
from captum_meta.optim import Backprop, Reversible, Segmented
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.training import MetaLearningModule
from captum_meta.types import ExplanationTask


def tasks(seed: int, index: int = 6) -> ExplanationTask:
    rows = SyntheticTaskFamily("shapley", tasks_per_batch=3, rows=10, seed=seed)[index]
    rows = replace(rows, evidence=replace(rows.evidence, coalitions=None))
    return ExplanationTask(rows[:, :6], rows[:, 6:])


def explainer() -> ShapleyExplainer:
    made, generator = ShapleyExplainer(8, 1), torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return made


def plain_loss(learner: MomentumMAML, tasks: ExplanationTask) -> Tensor:
    """A task, a step and a tensor at a time."""
    losses = []
    for index in range(len(tasks.support.attributions)):
        task = tasks[index]
        values = {name: learner.explainer.get_parameter(name) for name in learner.names}
        velocity = {name: torch.zeros_like(value) for name, value in values.items()}
        for step in range(learner.steps):
            predicted = functional_call(learner.explainer, values, (task.support.evidence,)).attributions
            loss = scaled_squared_error(predicted, task.support.attributions, task.support.variance)
            gradients = torch.autograd.grad(loss, list(values.values()), create_graph=True)
            length = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
            rule = learner.rule.rule
            for number, name in enumerate(values):
                rate, momentum = (10 * rule.log_rates[step, number]).exp(), rule.logits[step, number].sigmoid()
                velocity[name] = momentum * velocity[name] - rate * gradients[number] / length.clamp(min=1)
                values[name] = values[name] + velocity[name]
        predicted = functional_call(learner.explainer, values, (task.query.evidence,)).attributions
        losses.append(relative_squared_error(predicted, task.query.attributions, task.query.variance))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("fast", [("head.*",), ("*",)])
@pytest.mark.parametrize(("hypergradient", "tolerance"), [(Backprop(), 1e-9), (Segmented(), 1e-9), (Reversible(), 1e-5)])
def test_the_loss_and_its_gradients_are_those_of_the_plain_loop(
    fast: tuple[str, ...], hypergradient: Backprop | Segmented | Reversible, tolerance: float
) -> None:
    learner = MomentumMAML(explainer(), fast, 6, 0.05, momentum=0.75, hypergradient=hypergradient).double()
    batch = tasks(5).to(dtype=torch.float64)
    parameters = list(learner.parameters())
    loss, plain = learner.loss(batch), plain_loss(learner, batch)
    assert torch.allclose(loss, plain, rtol=tolerance, atol=tolerance)
    found, expected = (
        torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True) for value in (loss, plain)
    )
    for gradient, right in zip(found, expected, strict=True):
        assert torch.allclose(gradient, right, rtol=tolerance, atol=tolerance)


def test_another_rule_says_which_learner_to_take() -> None:
    with pytest.raises(TypeError, match="MomentumMAML"):
        MAML(explainer(), steps=2, hypergradient=Reversible()).loss(tasks(5))


@pytest.mark.slow
def test_two_hundred_steps_are_trained_through_lightning() -> None:
    torch.manual_seed(0)
    learner = MomentumMAML(ShapleyExplainer(8, 1), steps=200, rate=0.003, momentum=0.9)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    batches = [tasks(5, index) for index in (6, 10, 14, 18)]

    def objective() -> float:
        return float(sum(learner.loss(batch).detach() for batch in batches))

    untrained = objective()
    data = DataLoader(batches, batch_size=None)
    trainer = Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(MetaLearningModule(learner, learning_rate=1e-2, warmup_steps=0), data)
    assert objective() < untrained - 0.5
    after = learner.state_dict()
    for name in ("rule.rule.log_rates", "rule.rule.logits", "explainer.head.weight", "explainer.encode.0.weight"):
        assert not torch.equal(after[name], before[name])
