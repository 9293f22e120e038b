"""Pictures show the numbers that they are given, and draw where they are told."""

import matplotlib
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from captum_meta import visualization
from captum_meta.export import to_shap

matplotlib.use("Agg")
VALUES = torch.tensor([0.2, -0.7, 0.0, 0.4])
NAMES = ["age", "income", "city", "debt"]


def lengths(figure: Figure) -> list[float]:
    return [patch.get_width() for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def test_bars_stand_in_the_order_of_size_with_their_errors() -> None:
    figure = visualization.bars(VALUES, NAMES, errors=torch.tensor([0.1, 0.2, 0.3, 0.05]), top=3)
    assert lengths(figure) == pytest.approx([0.2, 0.4, -0.7])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["age", "debt", "income"]
    (spans,) = figure.axes[0].collections
    assert [path.vertices[:, 0].tolist() for path in spans.get_paths()] == [
        pytest.approx([value - error, value + error]) for value, error in ((0.2, 0.1), (0.4, 0.05), (-0.7, 0.2))
    ]


def test_long_names_of_methods_stay_in_the_picture() -> None:
    names = ["long reference", "MetaKernelShap, 130 evaluations", "Captum KernelShap, 121 evaluations"]
    figure = visualization.bars(dict.fromkeys(names, VALUES), ["mean fractal dimension"] * len(VALUES))
    figure.draw_without_rendering()
    legend = figure.axes[0].get_legend().get_window_extent()
    assert figure.bbox.contains(*legend.min) and figure.bbox.contains(*legend.max)


def test_methods_stand_side_by_side_in_their_colours() -> None:
    figure = visualization.bars({"long reference": VALUES, "MetaKernelShap": 2 * VALUES}, NAMES)
    assert lengths(figure) == pytest.approx([0.0, 0.2, 0.4, -0.7, 0.0, 0.4, 0.8, -1.4])
    colours = [patch.get_facecolor() for patch in figure.axes[0].patches]
    assert colours[0] != colours[4]
    texts = figure.axes[0].get_legend().get_texts()
    assert [text.get_text() for text in texts] == ["long reference", "MetaKernelShap"]


def test_an_image_shows_its_attributions_and_the_borders_of_superpixels() -> None:
    mask = torch.tensor([[0, 0, 1], [0, 0, 1]])
    values = torch.tensor([0.5, -2.0])[mask]
    figure = visualization.image(values.expand(3, 2, 3), torch.rand(3, 2, 3), mask)
    assert torch.allclose(torch.as_tensor(figure.axes[0].images[1].get_array()), values.double())
    assert figure.axes[0].images[1].get_clim() == (-2.0, 2.0)
    segments = [path.tolist() for lines in figure.axes[0].collections for path in lines.get_segments()]
    assert sorted(segments) == [[[1.5, -0.5], [1.5, 0.5]], [[1.5, 0.5], [1.5, 1.5]]]
    summed = visualization.image(torch.ones(3, 2, 3), torch.rand(2, 3))
    assert torch.as_tensor(summed.axes[0].images[1].get_array()).eq(3).all()


def hatched(figure: Figure) -> Path:
    (patch,) = (patch for patch in figure.axes[0].patches if isinstance(patch, PathPatch))
    assert patch.get_hatch() and [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "hatched: the interval contains 0"
    ]
    return patch.get_path()


def test_pixels_of_an_image_are_hatched_where_their_interval_contains_zero() -> None:
    mask = torch.tensor([[0, 0, 1], [2, 0, 2]])
    values, errors = torch.tensor([0.5, -2.0, 0.1]), torch.tensor([0.4, 2.5, 0.2])
    figure = visualization.image(values[mask], torch.rand(3, 2, 3), mask, errors[mask])
    pixels = [(row, column) for row in range(2) for column in range(3)]
    inside = [pixel for pixel in pixels if hatched(figure).contains_point((pixel[1], pixel[0]))]
    assert inside == [(0, 2), (1, 0), (1, 2)]
    sure = visualization.image(values[mask], torch.rand(3, 2, 3), mask, torch.zeros(2, 3))
    assert sure.axes[0].get_legend() is None


def test_intervals_of_a_pixels_channels_add_up_as_the_attributions_do() -> None:
    values = torch.tensor([[[1.0, 1.0]], [[1.0, -0.5]], [[1.0, 0.5]]])
    figure = visualization.image(values, torch.rand(3, 1, 2), errors=torch.full((3, 1, 2), 0.5))
    assert hatched(figure).contains_point((1, 0)) and not hatched(figure).contains_point((0, 0))  # 1 and 1.5, 3 and 1.5


def test_tokens_are_escaped_and_tell_their_numbers() -> None:
    html = visualization.tokens(torch.tensor([1.0, -0.25]), ["<b>", "bad"])._repr_html_()
    assert "&lt;b&gt;" in html and 'title="+1"' in html and 'title="-0.25"' in html


def test_tokens_tell_how_far_their_numbers_may_be_off() -> None:
    shown = visualization.tokens(torch.tensor([1.0, -0.5]), ["not", "bad"], errors=torch.tensor([0.25, 0.75]))
    certain, open_sign = shown.split("<span")[1:]
    assert 'title="+1 ± 0.25"' in certain and "outline" not in certain
    assert 'title="-0.5 ± 0.75"' in open_sign and "outline" in open_sign
    assert "dashed: the interval contains 0" in shown
    assert "dashed" not in visualization.tokens(torch.tensor([1.0, -0.5]), ["not", "bad"], errors=torch.zeros(2))
    with pytest.raises(ValueError, match="2 tokens"):
        visualization.tokens(torch.tensor([1.0, -0.5]), ["not", "bad"], errors=torch.ones(3))


def test_curves_carry_their_names_and_stop_at_rounding() -> None:
    curves = {
        "MetaKernelShap, zero-shot": [(9.0, 0.2), (40.0, 1e-12)],
        "MetaKernelShap, 16 rows": [(9.0, 0.1)],
        "Captum KernelShap": [(40.0, 0.3)],
    }
    axes = visualization.error_against_cost(curves, "title", intervals=curves).axes[0]
    assert {text.get_text() for text in axes.texts} == set(curves)
    assert axes.get_ylim()[0] == 1e-7
    colours = [line.get_color() for line in axes.lines]
    assert colours == [visualization.ZERO_SHOT, visualization.ADAPTED, visualization.PEER]


def test_shaps_plots_are_returned_as_figures() -> None:
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    explanation = to_shap(x * VALUES, x, 0.5, NAMES)
    swarm = visualization.beeswarm(explanation)
    assert {label.get_text() for label in swarm.axes[0].get_yticklabels()} == set(NAMES)
    fall = visualization.waterfall(explanation[0])
    assert any("income" in label.get_text() for axes in fall.axes for label in axes.get_yticklabels())


def test_shaps_plots_draw_intervals() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 1.0], [2.0, 1.0, 0.0, 3.0], [0.0, 1.0, 1.0, 2.0]])
    errors = torch.tensor([0.1, 0.2, 0.3, 0.05]) * torch.tensor([1.0, 2.0, 4.0])[:, None]
    explanation = to_shap(x * VALUES, x, 0.5, NAMES, errors=errors)
    fall = visualization.waterfall(explanation[0])
    ends = {
        row: [line[:, 0].tolist() for line in lines.get_segments()] for row, lines in enumerate(fall.axes[0].collections)
    }
    spans = sorted(high - low for row in ends.values() for low, high in row)
    assert spans == pytest.approx([0.1, 0.2, 0.4, 0.6])
    swarm = visualization.beeswarm(explanation)
    names = [label.get_text() for label in swarm.axes[0].get_yticklabels()]
    bands = {names[round(bar.get_y() + 0.4)]: (bar.get_x(), bar.get_width()) for bar in swarm.axes[0].patches}
    assert bands == {name: pytest.approx((-2 * e, 4 * e)) for name, e in zip(NAMES, (0.1, 0.2, 0.3, 0.05), strict=True)}


def test_a_network_names_all_players() -> None:
    pytest.importorskip("shapiq")
    figure = visualization.interaction_network(torch.tensor([[1.0, 2.0, 0.0], [2.0, -1.0, 0.5], [0.0, 0.5, 0.3]]), NAMES[:3])
    assert set(NAMES[:3]) <= {text.get_text() for text in figure.axes[0].texts}


def test_all_draw_into_axes_that_are_given() -> None:
    axes = Figure().subplots(2, 2).flatten()
    x = torch.randn(5, 4)
    drawn = [
        visualization.bars(VALUES, axes=axes[0]),
        visualization.image(torch.ones(2, 2), torch.rand(2, 2), axes=axes[1]),
        visualization.error_against_cost({"a": [(1.0, 1.0)]}, axes=axes[2]),
        visualization.beeswarm(to_shap(x, x, 0.0), axes=axes[3]),
    ]
    assert all(figure is axes[0].figure for figure in drawn)
    assert all(one.has_data() for one in axes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: visualization.bars(VALUES, ["a"]), "1 names for 4 players"),
        (lambda: visualization.bars(VALUES, errors=torch.ones(3)), "3 values"),
        (lambda: visualization.tokens(VALUES, ["a"]), "1 tokens"),
        (lambda: visualization.image(torch.ones(2, 2), torch.ones(3, 3)), "of one size"),
        (lambda: visualization.image(torch.ones(2, 2), torch.ones(2, 2), errors=torch.ones(2)), "of one shape"),
    ],
)
def test_what_does_not_fit_together_is_told(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
