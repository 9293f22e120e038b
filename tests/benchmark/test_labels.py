"""Tasks per second are tasks over seconds."""

from captum_meta.benchmark.labels import Made, made, table
from captum_meta.tasks import SyntheticTaskFamily


def test_times_of_batches_are_added_up() -> None:
    shown = table([Made(0, 5, 1.0, 3.0), Made(1, 9, 0.5, 0.5)], 10, "title")
    cells = [list(column.cells) for column in shown.columns]
    assert [column[0] for column in cells] == ["all 2", "4.0", "1.50", "3.50", "100%"]
    assert [column[1] for column in cells] == ["number 0, 5 players", "2.5", "1.00", "3.00", "80%"]


def test_batches_are_those_of_the_family() -> None:
    family = SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=4, seed=5)
    found = made(family, 2)
    assert [each.players for each in found] == [family[index].attributions.shape[-1] for index in range(2)]
    assert all(each.models > 0 and each.labels >= 0 for each in found)
