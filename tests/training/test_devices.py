"""Nothing is tied to the CPU: on a pretended device, and where there is CUDA on a GPU, answers are the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_run
import torch
from captum.attr import IntegratedGradients, ShapleyValueSampling
from lightning import Trainer
from pretended import Pretended, elsewhere
from torch import Tensor

from captum_meta.attr import MetaIntegratedGradients, MetaKernelShap
from captum_meta.learners import (
    MAML,
    DeepKernelTransfer,
    MatchingNetwork,
    MetaLearner,
    PrototypicalNetwork,
    Reptile,
    Ridge,
    ZeroShot,
)
from captum_meta.nn import PathExplainer, ShapleyExplainer
from captum_meta.tasks import ExplainedData, ModelTaskFamily, SyntheticTaskFamily
from captum_meta.training import MetaLearningModule
from captum_meta.training.steps import split

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

MIXED: dict[str, Callable[[Tensor], Any]] = {
    "arithmetic": lambda x: x + torch.ones(3),
    "an index of the CPU's": lambda x: torch.ones(3)[x.long()],
    "a generator": lambda x: torch.rand(3, generator=torch.Generator(), device=x.device),
    "numpy": lambda x: x.numpy(),
}


@pytest.mark.parametrize("how", MIXED)
def test_the_pretended_device_refuses_what_cuda_refuses(how: str) -> None:
    with elsewhere() as device:
        there = torch.zeros(3).to(device)
        assert (there + 1).device == device and there.cpu().device.type == "cpu"
        with pytest.raises((RuntimeError, TypeError)):
            MIXED[how](there)


EXPLAINED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "border": lambda model, x: MetaKernelShap(model).attribute(x, target=1),
    "gradients": lambda model, x: MetaKernelShap(model).attribute(x, target=1, n_samples=0),
    "inside": lambda model, x: MetaKernelShap(model).attribute(x, target=1, n_samples=24),
    "chosen": lambda model, x: MetaKernelShap(lambda z: model(z[:, :5] * z[:, 5:].sum(1, keepdim=True).exp())).attribute(
        torch.cat([x, x[:, :3]], dim=1), target=1, n_samples=100
    ),
    "adapted": lambda model, x: MetaKernelShap(model).adapt(x, target=1).attribute(x, target=1),
    "path": lambda model, x: MetaIntegratedGradients(model).attribute(x, target=1, n_steps=3),
}


@pytest.mark.parametrize("how", EXPLAINED)
def test_front_ends_explain_where_the_inputs_lie(how: str) -> None:
    model, x = small_run.AnyWidth(0).eval(), small_run.rows(5, 6)
    expected = EXPLAINED[how](model, x)
    with elsewhere() as device:
        values = EXPLAINED[how](model.to(device), x.to(device))
        assert values.device == device
        assert torch.allclose(values.cpu(), expected, atol=1e-6)


FAMILIES: dict[str, dict[str, Any]] = {
    "reference": {},
    "path": {"kind": "path", "points": (3,)},
    "groups": {"datasets": ExplainedData(small_run.rows(5), feature_mask=torch.tensor([[0, 0, 1, 1, 2]]))},
    "targets": {"datasets": ExplainedData(small_run.rows(5), target=torch.arange(12) % 2)},
    "ShapleyValueSampling": {"teacher": ShapleyValueSampling, "teacher_arguments": {"n_samples": 1}},
    "IntegratedGradients": {"teacher": IntegratedGradients, "teacher_arguments": {"n_steps": 5}},
}


@pytest.mark.parametrize("how", FAMILIES)
def test_rows_are_brought_to_the_model_and_labels_back(how: str) -> None:
    def family(model: Any) -> ModelTaskFamily:
        return ModelTaskFamily(**{"models": [model], "datasets": small_run.rows(5), "rows": 6, **FAMILIES[how]})

    model = small_run.AnyWidth(0)
    expected = family(model).variants(0)[0]
    with elsewhere() as device:
        found = family(model.to(device)).variants(0)[0]
        assert isinstance(next(model.parameters()), Pretended)
    assert not isinstance(found.attributions, Pretended)
    assert torch.allclose(found.attributions, expected.attributions, atol=1e-6)
    assert torch.allclose(found.evidence.effects, expected.evidence.effects, atol=1e-6)


TASKS = {
    "shapley": SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=6, seed=3).variants(4)[0],
    "path": SyntheticTaskFamily("path", tasks_per_batch=2, rows=6, seed=3).variants(4)[2],
}


LEARNERS: dict[str, tuple[str, MetaLearner]] = {
    "zero-shot": ("shapley", ZeroShot(ShapleyExplainer(8, 1))),
    "zero-shot, paths": ("path", ZeroShot(PathExplainer(8, 1))),
    "ridge": ("shapley", Ridge(ShapleyExplainer(8, 1))),
    "deep-kernel": ("shapley", DeepKernelTransfer(ShapleyExplainer(8, 1))),
    "matching": ("shapley", MatchingNetwork(ShapleyExplainer(8, 1))),
    "prototypical": ("shapley", PrototypicalNetwork(ShapleyExplainer(8, 1))),
    "maml": ("shapley", MAML(ShapleyExplainer(8, 1), steps=1)),
    "reptile": ("shapley", Reptile(ShapleyExplainer(8, 1), steps=1)),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_learners_train_and_measure_where_the_tasks_lie(name: str) -> None:
    kind, learner = LEARNERS[name]
    tasks, module = split(TASKS[kind], 3), MetaLearningModule(learner)
    expected = float(learner.loss(tasks).detach())
    with elsewhere() as device:
        module, there = module.to(device), tasks.to(device)
        loss = module.learner.loss(there)
        loss.backward()
        assert all(isinstance(p.grad, Pretended) for p in module.parameters() if p.grad is not None)
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
        module.on_validation_epoch_start()
        module.validation_step(there, 0)
        assert module._errors[0].compute().device == device


@pytest.mark.gpu
@NEEDS_CUDA
def test_a_step_on_the_gpu_is_a_step_on_the_cpu(tmp_path: Path) -> None:
    weights = []
    for accelerator in ("cpu", "cuda"):
        module = small_run.module()
        trainer = Trainer(
            default_root_dir=tmp_path,
            max_epochs=1,
            accelerator=accelerator,
            devices=1,
            logger=False,
            enable_checkpointing=False,
        )
        trainer.fit(module, small_run.data(tmp_path))
        weights.append(torch.cat([value.detach().cpu().flatten() for value in module.parameters()]))
    assert torch.allclose(*weights, atol=1e-5)


@pytest.mark.gpu
@NEEDS_CUDA
@pytest.mark.parametrize("how", EXPLAINED)
def test_the_gpu_explains_as_the_cpu_does(how: str) -> None:
    model, x = small_run.AnyWidth(0).eval(), small_run.rows(5, 6)
    expected = EXPLAINED[how](model, x)
    values = EXPLAINED[how](model.cuda(), x.cuda())
    assert values.device.type == "cuda"
    assert torch.allclose(values.cpu(), expected, atol=1e-4)


@pytest.mark.gpu
@NEEDS_CUDA
@pytest.mark.parametrize("how", FAMILIES)
def test_models_on_the_gpu_are_explained_there(how: str) -> None:
    def task(model: Any) -> Any:
        family = {"models": [model], "datasets": small_run.rows(5), "rows": 6, **FAMILIES[how]}
        return ModelTaskFamily(**family).variants(0)[0]

    here, there = task(small_run.AnyWidth(0)), task(small_run.AnyWidth(0).cuda())
    assert there.attributions.device.type == "cpu"
    assert torch.allclose(here.attributions, there.attributions, atol=1e-4)
    assert torch.allclose(here.evidence.effects, there.evidence.effects, atol=1e-4)
