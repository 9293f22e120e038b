"""The network behind error estimates: from signals of a row's error to the logarithm of its 90 % quantile."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

import torch
from jaxtyping import Bool, Float
from safetensors.torch import load
from torch import Tensor, nn

from captum_meta.nn.blocks import masked_mean
from captum_meta.nn.explainer import Prior
from captum_meta.types import ADD_ONE_IN, LEAVE_ONE_OUT, Evidence

PLAYER_NUMBERS, ROW_NUMBERS = 11, 27
SHIPPED_HEAD = resources.files("captum_meta") / "weights" / "shapley-error-estimate.safetensors"
_LEAST = 1e-12
"""Added to squares before their logarithms."""
_MOST_UNSEEN, _MOST_PLAYERS, _MOST_PAIRS = 150.0, 12.0, 8.0
"""Largest inputs seen in training, at which inputs are cut; the last is pairs per player."""


class ErrorHead(nn.Module):
    """Numbers of the players and of the row to the logarithm of the row's relative squared error.

    Each player's numbers pass through a small network; their mean and maximum over the players join the row's numbers in
    another one (deep sets: Zaheer et al. 2017), beside a linear function of these. It is shared by all explainers and part
    of none: its weights are a file of their own, trained by ``captum-meta fit --config shapley-error-estimate``.

    Args:
        width: of the hidden layers.

    Attributes:
        margin: added so that the answer is a bound: a quantile of log errors minus their estimates.
    """

    player_mean: Tensor
    player_deviation: Tensor
    row_mean: Tensor
    row_deviation: Tensor
    margin: Tensor

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.players = nn.Sequential(nn.Linear(PLAYER_NUMBERS, width), nn.GELU(), nn.Linear(width, width))
        self.row = nn.Sequential(nn.Linear(2 * width + ROW_NUMBERS, 2 * width), nn.GELU(), nn.Linear(2 * width, 1))
        self.linear = nn.Linear(ROW_NUMBERS, 1)
        for name, count in (("player", PLAYER_NUMBERS), ("row", ROW_NUMBERS)):
            self.register_buffer(f"{name}_mean", torch.zeros(count))
            self.register_buffer(f"{name}_deviation", torch.ones(count))
        self.register_buffer("margin", torch.zeros(()))

    def standardise(self, players: Tensor, rows: Tensor) -> None:
        """Take means and standard deviations from samples ``(S, PLAYER_NUMBERS)`` and ``(S, ROW_NUMBERS)``."""
        for name, values in (("player", players), ("row", rows)):
            getattr(self, f"{name}_mean").copy_(values.mean(0))
            getattr(self, f"{name}_deviation").copy_(values.std(0).clamp(min=1e-3))

    def forward(
        self, players: Float[Tensor, "*batch M A"], rows: Float[Tensor, "*batch R"], mask: Bool[Tensor, "*batch M"]
    ) -> Float[Tensor, "*batch"]:
        """Log errors ``(*batch,)`` without the margin, from ``(*batch, M, PLAYER_NUMBERS)`` and ``(*batch, ROW_NUMBERS)``.

        ``mask (*batch, M)`` is False for padding.
        """
        hidden = self.players((players - self.player_mean) / self.player_deviation)
        rows = (rows - self.row_mean) / self.row_deviation
        most = hidden.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(-2)
        pooled = torch.cat([masked_mean(hidden, mask.unsqueeze(-1), -2), most, rows], dim=-1)
        answer: Tensor = (self.linear(rows) + self.row(pooled)).squeeze(-1)
        return answer

    def log_bound(
        self, players: Float[Tensor, "*batch M A"], rows: Float[Tensor, "*batch R"], mask: Bool[Tensor, "*batch M"]
    ) -> Float[Tensor, "*batch"]:
        """Bound of the log errors, ``(*batch,)``."""
        return self(players, rows, mask) + self.margin


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def shipped_error_head(device: torch.device, dtype: torch.dtype) -> ErrorHead:
    """The head that ships with the package, frozen."""
    with torch.device("meta"):  # initial weights would be drawn from the global random stream
        head = ErrorHead()
    head.load_state_dict(load(SHIPPED_HEAD.read_bytes()), assign=True)
    return head.to(device, dtype).eval().requires_grad_(False)


def numbers_of(
    prior: Prior,
    evidence: Evidence,
    attributions: Float[Tensor, "*batch M"],
    expected: Float[Tensor, "*batch M"],
    answers: Sequence[Tensor],
    late_surprises: Float[Tensor, "*batch 2"],
) -> tuple[Float[Tensor, "*batch M A"], Float[Tensor, "*batch R"]]:
    """Logarithms of squares in units of the attributions' mean square, ``(*batch, M, 11)`` and ``(*batch, 27)``.

    Of each player: its expected squared error, its distances from the four other ``answers``, its attribution, how far
    leave-one-out and add-one-in, and the gradients at input and baseline, differ, its effects' size, and the prior's
    rates and additive part. Of the row: their means; f(input) - f(baseline), and how far the effects of each channel, f
    midway and the raw attributions are from it; how far coalitions and their complements together are from it (an even
    part of the game); the late surprises; the shares of players with a gradient, and of those that are expected to act;
    how many times more pairs of coalitions there are than were seen; the number of players, and of pairs for each.

    Args:
        prior: of the explainer.
        evidence: with the coalitions that the posterior has seen.
        attributions: ``(*batch, M)``, whose error is estimated, in units of the output as the ``answers`` are.
        expected: ``(*batch, M)``, in units of the row's scale, squared.
        answers: four of ``(*batch, M)``.
        late_surprises: ``(*batch, 2)``, of the posterior.
    """
    assert prior.additive is not None and prior.rates is not None and evidence.coalitions is not None
    unit, total = prior.scale.unsqueeze(-1), evidence.total / prior.scale
    scaled, effects = attributions / unit, evidence.effects / unit.unsqueeze(-1)
    distances = [
        scaled,
        *(answer / unit - scaled for answer in answers),
        effects[..., LEAVE_ONE_OUT] - effects[..., ADD_ONE_IN],
        effects[..., 0] - effects[..., 2],
    ]
    squares = [expected, *(distance.square() for distance in distances), effects.square().mean(-1)]
    size = masked_mean(scaled.square(), evidence.players).clamp(min=torch.finfo(scaled.dtype).tiny)
    players = torch.stack(squares, dim=-1) / size[..., None, None]
    players = torch.cat([players, torch.stack([prior.rates, prior.additive], dim=-1)], dim=-1)
    count = evidence.n_players.clamp(min=1).to(size)
    complete = evidence.coalitions.measured.unflatten(-1, (-1, 2)).all(-1)
    even = evidence.coalitions.worths.unflatten(-1, (-1, 2)).sum(-1) - evidence.total.unsqueeze(-1)
    sums = [total, 2 * evidence.curve[..., 1] / prior.scale, prior.attributions.sum(-1) / prior.scale]
    sums = [total, *(some - total for some in (*sums[1:], *effects.sum(-2).unbind(-1)))]
    squares = [*((some / count).square() for some in sums), masked_mean((even / unit).square(), complete)]
    rows = torch.cat([torch.stack(squares, dim=-1) / size.unsqueeze(-1), late_surprises], dim=-1)
    pairs = complete.sum(-1).clamp(min=1).to(size)
    means = masked_mean(players, evidence.players.unsqueeze(-1), -2)
    acting = torch.stack([evidence.measured[..., :LEAVE_ONE_OUT].all(-1), prior.rates > 0], dim=-1).to(size)
    shares = masked_mean(acting, evidence.players.unsqueeze(-1), -2)
    unseen = ((count - 1).exp2() / pairs).clamp(1, _MOST_UNSEEN)
    most = count.clamp(max=_MOST_PLAYERS)
    counts = torch.stack([unseen, most, (pairs / count).clamp(max=_MOST_PAIRS)], dim=-1).log()
    return (players + _LEAST).log(), torch.cat([(means + _LEAST).log(), (rows + _LEAST).log(), shares, counts], dim=-1)
