"""The learned descent against autograd and torch's AdamW, one tensor at a time."""

from dataclasses import replace
from math import cos, exp, log, pi

import pytest
import torch
from torch import Tensor

from captum_meta.nn.descent import LearnedDescent
from captum_meta.nn.distillation import BATCH, GRADIENT_WEIGHT, gradient_weight, learn
from captum_meta.nn.inner_loop import gradients
from captum_meta.nn.lesson import Lesson, initial
from tests.nn.plain_misfit import misfit

TASKS, NETWORKS, ROWS, COALITIONS, PLAYERS, ELEMENTS, HEADS = 2, 3, 5, 9, 4, 3, 2
NAMES = ["enter", "enter_bias", "inner", "inner_bias", "leave"]


def lesson(with_gradients: bool = True) -> Lesson:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return Lesson(
        members=torch.rand(TASKS, ROWS, COALITIONS, PLAYERS, generator=generator) < 0.5,
        inputs=normal(TASKS, ROWS, PLAYERS, ELEMENTS),
        baselines=normal(TASKS, ROWS, PLAYERS, ELEMENTS),
        worths=normal(TASKS, ROWS, COALITIONS),
        known=torch.rand(TASKS, NETWORKS, ROWS, COALITIONS, generator=generator) < 0.7,
        heads=torch.randint(HEADS, (TASKS, ROWS), generator=generator),
        ranks=torch.stack([torch.randperm(PLAYERS, generator=generator) for _ in range(TASKS)]),
        gradients=normal(TASKS, ROWS, COALITIONS, PLAYERS, ELEMENTS) if with_gradients else None,
    )


@pytest.mark.parametrize("with_gradients", [True, False])
def test_the_written_out_gradient_is_autograd_s(with_gradients: bool) -> None:
    taught, some = lesson(with_gradients), torch.tensor([0, 3, 7, 3])
    generator = torch.Generator().manual_seed(1)
    weights = initial(taught, HEADS, generator)
    weights = weights.map(lambda w: w + 0.2 * torch.randn(w.shape, generator=generator, dtype=w.dtype))
    written = gradients(weights, taught, some, GRADIENT_WEIGHT)
    parameters = weights.map(lambda value: value.clone().requires_grad_(True))
    misfit(parameters, taught, torch.full((TASKS, NETWORKS), GRADIENT_WEIGHT), some).backward()
    for name, parameter in vars(parameters).items():
        assert torch.allclose(getattr(written, name), parameter.grad, rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("with_gradients", [True, False])
def test_networks_learn_by_adamw_and_one_cycle(with_gradients: bool) -> None:
    taught = lesson(with_gradients)
    parts = {"members": taught.members, "worths": taught.worths, "gradients": taught.gradients}
    pairs = {name: None if value is None else value[:, :, :8] for name, value in parts.items()}
    taught = replace(taught, known=taught.known[..., :8], **pairs)
    found = learn(taught, HEADS)
    generator = torch.Generator().manual_seed(0)
    parameters = initial(taught, HEADS, generator).map(lambda value: value.requires_grad_())
    optimizer = torch.optim.AdamW(list(vars(parameters).values()), 0.04, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.04, 150, pct_start=0.2)
    weight = gradient_weight(taught) if with_gradients else torch.zeros(TASKS, NETWORKS).double()
    for _ in range(150):
        some = torch.randint(8, (-(-BATCH // ROWS),), generator=generator)
        optimizer.zero_grad()
        misfit(parameters, taught, weight, some).backward()
        optimizer.step()
        schedule.step()
    for name in NAMES:
        assert torch.allclose(getattr(found, name), getattr(parameters, name), rtol=1e-4, atol=1e-4), name


def test_it_is_adamw_with_a_rate_for_each_tensor_at_each_step() -> None:
    taught, descent = lesson(), LearnedDescent(7).double().requires_grad_(False)
    torch.manual_seed(2)
    for parameter in descent.parameters():
        parameter += 0.3 * torch.randn_like(parameter)
    descent.log_slopes.data.fill_(log(GRADIENT_WEIGHT))
    found = descent(taught, HEADS)

    generator = torch.Generator().manual_seed(0)
    weights = initial(taught, HEADS, generator)
    for name, size in zip(["enter", "inner", "leave"], descent.log_sizes.tolist(), strict=True):
        weights = replace(weights, **{name: getattr(weights, name) * exp(size)})
    parameters = weights.map(lambda value: value.clone().requires_grad_(True))
    optimizer = torch.optim.AdamW(
        [{"params": [getattr(parameters, name)]} for name in NAMES],
        betas=tuple(descent.momenta.sigmoid().tolist()),
        weight_decay=float(descent.log_decay.exp()),
    )
    peak = 7 * float(descent.warm.sigmoid())
    for step in range(1, 8):
        along = step / peak if step < peak else (7 - step) / (7 - peak)
        height = max((1 - cos(pi * along)) / 2, 1e-4) ** float(descent.log_power.exp())
        for group, rate in zip(optimizer.param_groups, descent.log_rates.exp().tolist(), strict=True):
            group["lr"] = height * rate
        some = torch.randint(COALITIONS, (-(-BATCH // ROWS),), generator=generator)
        optimizer.zero_grad()
        misfit(parameters, taught, torch.full((TASKS, NETWORKS), GRADIENT_WEIGHT), some).backward()
        optimizer.step()
    for name in NAMES:
        assert torch.allclose(getattr(found, name), getattr(parameters, name), rtol=1e-8, atol=1e-10), name


def test_it_runs_in_inference_mode() -> None:
    with torch.inference_mode():
        weights = LearnedDescent(2)(lesson(), HEADS)
    assert all(value.isfinite().all() for value in vars(weights).values())
