"""Evaluations of every row of a game, and the plan of the next ones."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from captum_meta._warnings import warn
from captum_meta.estimators import plan_coalitions
from captum_meta.evidence.border import drop_spots, read_border, rounding
from captum_meta.evidence.dummies import acting
from captum_meta.evidence.rows import outputs_first, per_output, player_inputs, row_keys
from captum_meta.games import Game
from captum_meta.types import LEAVE_ONE_OUT, SHAPLEY_POINTS, Evidence

CHOSEN_PLAYERS = (16, 128)
"""Numbers of players of rows whose border need not come first; of fewer, the best pairs are nearly the border."""
_FEW_DIRECTIONS = 0.4
"""Largest ratio of the second singular value to the first one of the gradients at the three points."""
FIRST_ROUND = 8
"""Coalitions for each player before others are chosen by what was seen."""
BORDER_PLAYERS = 256
"""Up to this many players the border is measured when no budget is given, and that of players whose gradient is flat."""


class ShapleyMeasurement:
    """Gradients, measured at once, and coalitions, evaluated when they are asked for.

    What is not finite counts as not measured, player by player. So does a gradient that vanishes at all three points, as
    those of steps, whole numbers and trees do. Both coalitions of the border are then evaluated for such a player, also
    where gradients alone were asked for. A player whose input is its baseline has no effect.

    Args:
        game: the explained model and the rows.
        budgets: coalitions of each row, a number or ``(N,)``; None: the border, which are the 2M coalitions
            of one player and of all but one, where there are at most 256 players, else none, with a warning.
        seed: of the coalitions sampled inside the border.
        border: whether it comes first in any case. Otherwise rows of 16 to 128 players whose gradients are all known and lie
            along few directions have the most informative of all coalitions up to 4M, and of more 2M of these and then the
            border: in such rows, those of saturated nets, the border is the least informative.
        spare: so many coalitions more are planned of rows with budgets above 8M, for :meth:`prefer` to choose from.

    Attributes:
        length: coalitions of the longest plan.
        limits: ``(N,)``, coalitions of each row that may be evaluated.
    """

    def __init__(
        self, game: Game, budgets: int | Tensor | None = None, seed: int = 0, border: bool = True, spare: int = 0
    ) -> None:
        self.game = game
        self._measure_gradients(torch.tensor(SHAPLEY_POINTS))
        self.flat = self.changed.unsqueeze(-1) & ~self.known[:, :, :LEAVE_ONE_OUT].any(2)
        counts = self._budgets(budgets)
        above = (counts > FIRST_ROUND * self.mask.sum(1)) & (not game.together)
        self.members, self.planned = self._chosen(torch.where(above, counts - counts % 2 + spare, counts), seed, border)
        self.limits = torch.minimum(counts - counts % 2 * above, self.planned.sum(1))
        self.asked = torch.zeros_like(self.planned)
        self.worths = self.total.new_zeros(*self.planned.shape, self.total.shape[-1])
        self.inputs = player_inputs(game)

    @property
    def length(self) -> int:
        return self.planned.shape[1]

    def _chosen(self, counts: Tensor, seed: int, border: bool) -> tuple[Bool[Tensor, "N S M"], Bool[Tensor, "N S"]]:
        """``counts`` coalitions of each row, and which of them are not padding."""
        if not bool(counts.any()):
            return self.mask.unsqueeze(1)[:, :0], self.mask[:, :0]
        freely = None if border else self._along_few(counts)
        return plan_coalitions(self.mask, counts, seed, row_keys(self.game), self._priority(), freely)

    def _measure_gradients(self, points: Float[Tensor, " G"]) -> None:
        gradients = self.game.effects(points)
        values = self.game.at(points[[0, 2]]) if gradients is None else gradients[1]
        self.mask, self.changed = self.game.mask, self.game.changed & self.game.mask
        self.ends = values[:, [-1, 0]]
        self.start, total = values[:, -1], values[:, 0] - values[:, -1]
        same = total.isfinite() & ~self.changed.any(1, keepdim=True)  # two evaluations of one input differ by rounding
        self.total = torch.where(same, 0.0, total)
        n_rows, n_outputs = self.total.shape
        broken = (~self.total.isfinite()).any(1).nonzero().flatten().tolist()
        if broken:
            warn(f"forward_func is not finite at the inputs or baselines of the rows {broken}: these are not explained.")
        self.points = points.to(self.total)
        self.channels = self.total.new_zeros(n_rows, self.game.players.count, 5, n_outputs)
        self.known = torch.zeros(self.channels.shape, dtype=torch.bool, device=self.total.device)
        self.curve = self.total.new_zeros(n_rows, 3, n_outputs)
        self.curve[:, 0] = self.total
        if gradients is None:
            return
        effects, middle = gradients[0], values[:, 1] - self.start
        finite = effects.isfinite()
        finite[:, :, 1] &= middle.isfinite().unsqueeze(1)
        self.channels[:, :, :LEAVE_ONE_OUT] = torch.where(finite, effects, 0.0)
        telling = (self.channels != 0).any(2, keepdim=True)
        still = ~self.changed[..., None, None] & telling.any(1, keepdim=True)
        self.known[:, :, :LEAVE_ONE_OUT] = (finite & telling) | still
        self.curve[:, 1] = torch.where(self.known[:, :, 1].any(1), middle, 0.0)

    def _budgets(self, budgets: int | Tensor | None) -> Tensor:
        """Coalitions of each row, ``(N,)``; where none are asked for, those of players without a gradient."""
        without = self.flat.any(-1)
        if self.game.together:  # all rows have the same coalitions: those of players who are flat in any of them
            without = without.any(0, keepdim=True).expand_as(without)
        flat, changed = without.sum(1), self.changed.sum(1)
        few = self.mask.shape[1] <= BORDER_PLAYERS
        asked = torch.as_tensor(_default(self.mask) if budgets is None else budgets, device=flat.device).expand(len(flat))
        if bool((asked < 0).any()):
            raise ValueError(f"n_samples must not be negative, got {int(asked.min())}: pass 0 to use gradients only.")
        needed = torch.where((asked == 0) & (few | (flat == changed)), 2 * flat, asked)
        if bool((needed > asked).any()):
            warn(
                f"The model has no gradient with respect to up to {int(flat.max())} players of a row, so up to "
                f"{int(needed.max())} coalitions per row are evaluated instead. Pass n_samples to choose their number."
            )
        elif bool((torch.minimum(needed, 2 * self.mask.sum(1)) < 2 * flat).any()):
            warn(
                f"The model has no gradient with respect to up to {int(flat.max())} players of a row, and so few coalitions "
                f"do not tell what these do: pass n_samples={2 * self.mask.shape[1]} or more."
            )
        unknown = (needed == 0) & (flat > 0)
        self.known[:, :, :LEAVE_ONE_OUT] |= (self.flat & unknown[:, None, None]).unsqueeze(2)
        return needed.amax().expand_as(needed) if self.game.together else needed

    def _priority(self) -> Float[Tensor, "N M"]:
        """Priority of the players' border, ``(N, M)``: those without a gradient, then by the size of their gradients."""
        size = self.channels[:, :, :LEAVE_ONE_OUT].abs().sum((2, 3))
        priority = torch.where(self.flat.any(-1), torch.inf, torch.where(self.changed, size, -1.0))
        return priority.sum(0, keepdim=True).expand_as(priority) if self.game.together else priority

    def _along_few(self, counts: Tensor) -> Tensor:
        """Rows ``(N,)`` whose coalitions are chosen freely: those of the class's ``border``."""
        sizes = self.mask.sum(1)
        least, most = CHOSEN_PLAYERS
        few = (sizes >= least) & (sizes <= most) & (2 * sizes <= counts)
        few &= ~self.flat.any(-1).any(1)
        if not bool(few.any()):
            return few
        gradients = self.channels[:, :, :LEAVE_ONE_OUT].double().permute(0, 3, 2, 1)
        gradients = gradients / gradients.abs().amax((-2, -1), keepdim=True).clamp(min=torch.finfo(gradients.dtype).tiny)
        squares = torch.linalg.eigvalsh(gradients @ gradients.mT)
        few &= (squares[..., 1] < _FEW_DIRECTIONS**2 * squares[..., 2]).all(1)
        return few.all().expand_as(few) if self.game.together else few

    def evaluate(self, counts: int | Tensor | None = None, rows: Tensor | None = None) -> None:
        """Evaluate the first ``counts`` coalitions, a number or ``(N,)``, by default the limits, of ``rows (N,)`` bool."""
        wanted = self.planned & ~self.asked
        counts = self.limits if counts is None else torch.as_tensor(counts, device=wanted.device).expand(len(wanted))
        wanted &= torch.arange(self.length, device=wanted.device) < counts.unsqueeze(1)
        if rows is not None:
            wanted &= rows.unsqueeze(1)
        if not bool(wanted.any()):
            return
        values = self.game.values(self.members, wanted) - self.start.unsqueeze(1)
        self.worths = torch.where(wanted.unsqueeze(-1), values, self.worths)
        self.asked |= wanted

    def prefer(self, rows: Tensor, chosen: Int64[Tensor, "R C"], first: int) -> None:
        """After the ``first`` pairs, which were evaluated, those of indices ``chosen (R, C)`` come next in ``rows (R,)``."""
        place = torch.full((len(rows), self.length // 2), 2, device=rows.device)
        place[:, :first] = 0
        order = place.scatter(1, chosen, 1).argsort(dim=1, stable=True)
        places = torch.stack([2 * order, 2 * order + 1], dim=2).flatten(1)
        members = self.members[rows]
        self.members[rows] = members.gather(1, places.unsqueeze(2).expand_as(members))
        self.planned[rows] = self.planned[rows].gather(1, places)

    def evidence(self, rows: Tensor | None = None) -> Evidence:
        """All that was measured so far of the ``rows`` ``(R,)``, by default of all."""
        if rows is None:
            rows = torch.arange(len(self.total), device=self.total.device)
        length = int(self.asked[rows].any(0).sum())
        length += length % 2
        channels, known, total, mask = self.channels[rows], self.known[rows], self.total[rows], self.mask[rows]
        if length:
            members, asked, worths = (_even(part[rows])[:, :length] for part in (self.members, self.asked, self.worths))
            measured = asked.unsqueeze(-1) & worths.isfinite()
            worths = torch.where(measured, worths, 0.0)
            read_border(channels, known, members, worths, measured, mask, total)
        idle = (mask & ~self.changed[rows])[..., None, None] & ~known.any(2, keepdim=True)
        known[:, :, LEAVE_ONE_OUT:] |= idle
        everyone, coalitions = outputs_first(mask.unsqueeze(-1).expand(*mask.shape, total.shape[-1])), None
        if length:
            evaluated = per_output(members, worths, measured)
            further = bool(evaluated.beyond_border(everyone).any())
            self._settle_dummies(rows, channels, known, members, worths, measured, further)
            drop_spots(channels, known, mask, total, self.curve[rows])
            coalitions = evaluated if further else None
        n_rows, _, _, n_outputs = channels.shape
        return Evidence(
            effects=outputs_first(channels),
            measured=outputs_first(known & mask[..., None, None]),
            players=everyone,
            total=total.flatten(),
            curve=outputs_first(self.curve[rows]),
            points=self.points.expand(n_rows * n_outputs, -1),
            coalitions=coalitions,
            inputs=None if self.inputs is None else self.inputs[rows].repeat_interleave(n_outputs, 0),
            targets=self._targets(rows),
        )

    def _settle_dummies(
        self,
        rows: Tensor,
        channels: Tensor,
        known: Tensor,
        members: Tensor,
        worths: Tensor,
        measured: Tensor,
        further: bool,
    ) -> None:
        """Set rounding of players without a gradient to 0, and mark who acts in larger coalitions only as unmeasured."""
        changes = torch.cat([self.total[rows].unsqueeze(1), worths, channels.flatten(1, 2)], dim=1)
        noise = rounding(self.ends[rows], changes.nan_to_num(0.0, 0.0, 0.0))
        flat = (channels[:, :, :LEAVE_ONE_OUT] == 0).all(2)
        border = channels[:, :, LEAVE_ONE_OUT:]
        nothing = flat.unsqueeze(2) & ((border.abs() <= noise[:, None, None]) | ~self.changed[rows][..., None, None])
        border.masked_fill_(nothing, 0.0)
        still = (channels == 0).all(2) & known.any(2) & self.changed[rows].unsqueeze(-1)
        if not further or not bool(still.any()):
            return
        mask = self.mask[rows].unsqueeze(1)
        ends = functional.pad(self.total[rows].unsqueeze(1), (0, 0, 0, 1))
        acts = acting(
            still,
            torch.cat([members, mask, torch.zeros_like(mask)], dim=1),
            torch.cat([worths, ends], dim=1),
            functional.pad(measured, (0, 0, 0, 2), value=True),
            noise,
        )
        known.masked_fill_(acts.unsqueeze(2), False)

    def _targets(self, rows: Tensor) -> Tensor | None:
        numbers = self.game.output_numbers
        if numbers is not None:
            return numbers.to(rows.device).repeat(len(rows))
        labels = self.game.labels
        return None if labels is None else labels.to(rows.device)[rows]


def _default(mask: Tensor) -> Tensor:
    """Default number of coalitions of each row, ``(N,)``."""
    n_players = mask.shape[1]
    if n_players > BORDER_PLAYERS:
        warn(
            f"The rows have {n_players} players, so only gradients are measured: pass n_samples, the number of coalitions "
            f"per row ({2 * n_players} are two for each player), for better explanations, or a feature_mask that groups the "
            "players. With n_samples=0 there is no warning."
        )
        return torch.zeros_like(mask[:, 0], dtype=torch.long)
    return 2 * mask.sum(1)


def _even(plans: Tensor) -> Tensor:
    """Plans ``(N, S, ...)`` of an odd length with one coalition more, which is not evaluated."""
    return functional.pad(plans, (0, 0) * (plans.dim() - 2) + (0, plans.shape[1] % 2))
