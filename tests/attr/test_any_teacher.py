"""Captum's contract of the front end for any teacher, which needs the teacher and explained rows first."""

import copy
import pickle

import pytest
import torch
from captum.attr import FeatureAblation
from torch import nn

from captum_meta.attr import MetaAttribution
from tests.attr.comparing import assert_same, snapshot, structure
from tests.attr.conftest import CountingModel


def adapted(model: nn.Module) -> MetaAttribution:
    return MetaAttribution(model, FeatureAblation(model)).adapt(torch.randn(6, 6), target=0)


def test_asks_for_rows_first() -> None:
    with pytest.raises(RuntimeError, match="call adapt"):
        MetaAttribution(CountingModel(), FeatureAblation(CountingModel())).attribute(torch.randn(2, 6), target=0)


def test_tuples_stay_tuples_and_shapes_stay() -> None:
    x = torch.randn(2, 6)
    attr = adapted(CountingModel())
    assert attr.attribute(x, target=0).shape == x.shape
    assert structure(attr.attribute((x,), target=0)) == ((2, 6),)


def test_the_explained_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).eval()
    attr, x = adapted(model), torch.randn(3, 6, requires_grad=True)
    before = snapshot(model, x)
    attr.attribute(x, target=0)
    assert_same(snapshot(model, x), before)


def test_a_row_does_not_depend_on_its_batch() -> None:
    x, attr = torch.randn(5, 6), adapted(CountingModel())
    assert torch.allclose(attr.attribute(x[3:4], target=0)[0], attr.attribute(x, target=0)[3], atol=1e-5)


def test_copies_and_pickles() -> None:
    x, attr = torch.randn(2, 6), adapted(CountingModel())
    expected = attr.attribute(x, target=0)
    for other in (copy.deepcopy(attr), pickle.loads(pickle.dumps(attr))):
        assert torch.equal(other.attribute(x, target=0), expected)
