"""Sums over players' tables, and their gradients, against one entry after another."""

import torch

from captum_meta.estimators.seats import sum_at_seats


def test_sums_and_gradients_are_those_of_single_entries() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    first, second = (torch.randint(0, 4, (2, count, 3), generator=generator) for count in (5, 6))
    weights = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    plain = torch.stack(
        [
            torch.stack([sum(table[row, i, p[i], q[i]] for i in range(3)) for p in first[row] for q in second[row]])
            for row in range(2)
        ]
    ).reshape(2, 5, 6)
    found = sum_at_seats(table, first, second)
    torch.testing.assert_close(found, plain)
    wanted = torch.autograd.grad((plain * weights).sum(), table)[0]
    torch.testing.assert_close(torch.autograd.grad((found * weights).sum(), table)[0], wanted)
