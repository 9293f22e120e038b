import pytest
import torch

from captum_meta.benchmark.training import Version, errors, main, versions
from captum_meta.learners import ZeroShot
from captum_meta.nn import ShapleyExplainer


def test_versions_differ_and_come_again() -> None:
    x, y = torch.randn(60, 3), torch.arange(60) % 2
    first, again = versions(x, y, 2, 8), versions(x, y, 2, 8)
    assert not torch.allclose(first[0](x), first[1](x))
    assert torch.equal(first[1](x), again[1](x))
    assert torch.allclose(first[0](x).sum(1), torch.ones(60))


def test_errors_are_zero_where_every_coalition_is_measured() -> None:
    x, y = torch.randn(60, 3), torch.arange(60) % 2
    learners = {"fresh": ZeroShot(ShapleyExplainer(8, 1)).eval()}
    found = errors(learners, versions(x, y, 2, 8), x[:4], pairs=400)["fresh"]
    assert found.shape == (2, 4)
    assert (found[:, 1:] < 1e-3).all()


@pytest.mark.slow
def test_the_whole_run(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--models", "10", "--held-out", "2", "--width", "16", "--rows", "24", "--steps", "5", "--pairs", "20"])
    shown = capsys.readouterr().out
    assert "trained further" in shown and "2 held-out classifiers" in shown and "outside the models" in shown
    assert Version.seconds > 0
