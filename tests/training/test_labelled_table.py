"""Tables of words, numbers and gaps become numbers without gaps."""

from pathlib import Path

import pytest
import torch

from captum_meta.training.labelled_table import read_labelled

CSV = """name,job,age,empty,bought
ann,cook,30,,yes
bob,clerk,,,no
cid,cook,50,,yes
dan,,40,,yes
eve,clerk,20,,
fay,clerk,60,,yes
"""


def test_words_are_shares_of_the_most_frequent_class_and_gaps_the_mean(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text(CSV)
    table, y = read_labelled(path, "bought", most_words=4)
    assert table.rows == [0, 1, 2, 3, 5]  # eve has no label
    assert y.tolist() == [1, 0, 1, 1, 1]
    assert table.columns == ["job", "age", "empty"]  # five different names are too many words
    job, age, empty = table.values.T
    assert job.tolist() == [1.0, 0.5, 1.0, 1.0, 0.5]  # cooks, clerks, and one without a job
    assert age.tolist() == [30, 45, 50, 40, 60]
    assert empty.tolist() == [0] * 5


def test_a_table_without_features_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("bought\nyes\nno\n")
    with pytest.raises(ValueError, match="no columns of features"):
        read_labelled(path, "bought")


def test_parquet_has_its_gaps_too(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"job": ["cook", None, "clerk"], "age": [1.0, float("nan"), 3.0], "bought": [1, 0, 1]})
    frame.to_parquet(tmp_path / "people.parquet")
    table, y = read_labelled(tmp_path / "people.parquet", "bought")
    assert torch.equal(table.values, torch.tensor([[1.0, 1.0], [0.0, 2.0], [1.0, 3.0]])) and y.tolist() == [1, 0, 1]
