"""Our deletion curves and Quantus's PixelFlipping are the same thing, so that comparing their speeds is fair."""

import pytest

from captum_meta.benchmark.metric_speed import main, measure


@pytest.mark.slow
def test_both_give_the_same_areas(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("quantus")
    speeds, difference = measure(repeats=1)
    assert difference < 1e-5
    assert speeds[0].ratio == 1
    main([])
    assert "PixelFlipping" in capsys.readouterr().out


def test_without_quantus_it_says_what_to_install() -> None:
    try:
        import quantus  # noqa: F401
    except ImportError:
        with pytest.raises(SystemExit, match="pip install"):
            main([])
