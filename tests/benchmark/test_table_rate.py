"""The rate at which large tables are explained."""

from pathlib import Path

import pytest
import torch

from captum_meta.benchmark import table_rate
from captum_meta.training import read_attributions


def test_all_rows_are_explained_where_there_is_time(tmp_path: Path) -> None:
    rate = table_rate.measure(1500, 1e6, tmp_path)
    assert rate.rows == 1500 and len(read_attributions(tmp_path)["attributions"]) == 1500
    assert rate.size > 4 * table_rate.FEATURES and rate.megabytes[1] >= rate.megabytes[0] > 0


def test_it_stops_when_the_time_is_over(tmp_path: Path) -> None:
    assert table_rate.measure(10**9, 0.0, tmp_path).rows == table_rate._BATCH


def test_rows_are_the_same_whenever_they_are_asked_for() -> None:
    rows = table_rate.Rows(5)
    assert torch.equal(rows[3], rows[3]) and not torch.equal(rows[3], rows[4])


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    table_rate.main(["--rows", "1024", "--minutes", "1"])
    told = capsys.readouterr().out
    assert "1,024 of 1,024 rows of 20 features" in told and "Peak memory" in told
