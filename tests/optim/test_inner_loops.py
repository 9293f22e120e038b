"""The parts of an inner loop, each against the plainest computation."""

import torch
from torch import Tensor, nn

from captum_meta.optim import SGD, Clipped, call_per_task
from captum_meta.optim.implicit import conjugate_gradients


def test_conjugate_gradients_solve_every_tasks_own_system() -> None:
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(3, 5, 5, generator=generator, dtype=torch.float64)
    system = factor @ factor.mT + torch.eye(5, dtype=torch.float64)
    right = torch.randn(3, 5, generator=generator, dtype=torch.float64)

    def times(parts: list[Tensor]) -> list[Tensor]:
        image = (system @ torch.cat(parts, dim=1).unsqueeze(-1)).squeeze(-1)
        return [image[:, :2], image[:, 2:]]

    found = torch.cat(conjugate_gradients(times, [right[:, :2], right[:, 2:]], 6), dim=1)
    assert torch.allclose(found, torch.linalg.solve(system, right), rtol=1e-9, atol=1e-9)


def test_weights_of_each_task_and_biases_of_each_player() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).double()
    values = torch.randn(2, 5, 6, 3, dtype=torch.float64)
    changed = {
        "0.weight": torch.randn(2, 4, 3, dtype=torch.float64),
        "1.weight": torch.randn(2, 4, dtype=torch.float64),
        "2.bias": torch.randn(2, 6, 2, dtype=torch.float64),
    }
    together = call_per_task(network, "forward", changed, values)
    for task in range(2):
        hidden = values[task] @ changed["0.weight"][task].T + network[0].bias
        normed = (hidden - hidden.mean(-1, keepdim=True)) / (hidden.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        scaled = normed * changed["1.weight"][task] + network[1].bias
        expected = scaled @ network[2].weight.T + changed["2.bias"][task]
        assert torch.allclose(together[task], expected, rtol=1e-9, atol=1e-9)


def test_only_the_tasks_with_long_gradients_are_clipped() -> None:
    rule = Clipped(SGD(["a", "b"], 1, 1.0), 2.0)
    start = {"a": torch.zeros(2, 1), "b": torch.zeros(2, 1)}
    moved, _ = rule.update(0, start, {"a": torch.tensor([[3.0], [0.3]]), "b": torch.tensor([[4.0], [0.4]])}, {})
    assert torch.allclose(moved["a"], torch.tensor([[-1.2], [-0.3]]))
    assert torch.allclose(moved["b"], torch.tensor([[-1.6], [-0.4]]))
