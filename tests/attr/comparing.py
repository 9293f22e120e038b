"""What is to be the same after a call as before it, and in which shapes answers come."""

from typing import Any

import torch
from torch import Tensor, nn


def structure(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(structure(part) for part in value)
    return tuple(value.shape)


def module(model: nn.Module, name: str | list[str]) -> nn.Module | list[nn.Module]:
    """The model's module of that name, or those of several names."""
    modules = dict(model.named_modules())
    return [modules[one] for one in name] if isinstance(name, list) else modules[name]


def snapshot(model: nn.Module, x: Tensor) -> dict[str, Any]:
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "grads": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "training": [part.training for part in model.modules()],
        "hooks": [(len(p._forward_hooks), len(p._forward_pre_hooks), len(p._backward_hooks)) for p in model.modules()],
        "input": (x.detach().clone(), x.requires_grad, x.grad),
        "random": torch.get_rng_state(),
    }


def assert_same(now: Any, before: Any) -> None:
    if isinstance(before, Tensor):
        assert torch.equal(now, before)
    elif isinstance(before, dict):
        for key, value in before.items():
            assert_same(now[key], value)
    elif isinstance(before, (tuple, list)):
        for one, other in zip(now, before, strict=True):
            assert_same(one, other)
    else:
        assert now == before


class Fails(nn.Module):
    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        if self.fails:
            torch.rand(3)
            raise RuntimeError("on purpose")
        return x
