"""Pictures of attributions, and of comparisons: colour-blind safe, each a matplotlib ``Figure``.

A notebook shows the figure that a function returns; a script saves it (``figure.savefig``). With ``axes=`` a function draws
into axes of yours and returns their figure. Green speaks for the explained output and purple against it. In comparisons our
methods are blue and orange, and all others grey.
"""

from captum_meta.visualization._canvas import ADAPTED, PEER, ZERO_SHOT, method_colour
from captum_meta.visualization.attributions import (
    TokenHeatMap,
    bars,
    beeswarm,
    image,
    interaction_network,
    tokens,
    waterfall,
)
from captum_meta.visualization.comparisons import Curves, error_against_cost

__all__ = [
    "ADAPTED",
    "PEER",
    "ZERO_SHOT",
    "Curves",
    "TokenHeatMap",
    "bars",
    "beeswarm",
    "error_against_cost",
    "image",
    "interaction_network",
    "method_colour",
    "tokens",
    "waterfall",
]
