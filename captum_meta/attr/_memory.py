"""Memory: networks fitted to all evaluations of earlier rows help to explain later ones."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from math import nan

import torch
from torch import Tensor

from captum_meta import _captum
from captum_meta._numbers import TINY
from captum_meta._warnings import warn
from captum_meta.attr._arithmetic import chunks_for_matrices, explain_alone, plain_arithmetic, working_dtype
from captum_meta.attr._known_rows import Rows, keys_of, known_rows, layout
from captum_meta.attr._network_shares import SHARES, Options, errors_at, options_of
from captum_meta.attr._units import InUnits, UnitState
from captum_meta.attr._unread_pairs import UnreadPairs, UnreadTest, judges_itself, unread_pairs
from captum_meta.evidence import Game, with_elements
from captum_meta.games import SurrogateGame
from captum_meta.nn.cross_fitted import CrossFitted
from captum_meta.nn.encoders import effect_sizes
from captum_meta.nn.refinement import border_coalitions
from captum_meta.types import LEAVE_ONE_OUT, Evidence

FEWEST = 32
"""Fewest rows to which networks are fitted."""
_MORE = 4
"""Networks are fitted again when one in this many evaluations is new."""
_WITHOUT_GRADIENT = 0.25
"""The largest share where f has no gradient, for smooth networks stand for steps: of nine forests at 4M more raises the
error. At the border even this did, in two of nine."""
_MARGIN = 0.3
"""How much larger, a logarithm, the gain of the whole of a network must be: rows' own coalitions praise it too much."""
_SMALL = 1e-3
"""Errors of rows count as equal from this share of their mean downward, where logarithms are compared."""
_AGAINST = 2.0
"""A row does without the networks where they raise the log error of predicting its own coalitions by this much."""
_LAYOUTS = 4
_MOST_NUMBERS = 4096
_UNREAD = (
    "memory= serves rows of one model that are evaluated apart, have the same players and at most "
    f"{_MOST_NUMBERS:,} numbers: these rows are explained without it. Pass memory=0 to say so."
)


class Memory:
    r"""What rows explained so far tell about a model; a row is explained as

    .. math:: \phi = w \phi(h) + \phi^0(e - w\, e_h)

    with h a network fitted to the coalitions and gradients of other rows
    (:class:`~captum_meta.nn.cross_fitted.CrossFitted`), :math:`\phi(h)` its Shapley values, which cost no evaluation, and
    :math:`\phi^0` the explainer, given the row's evidence e less that of h. The share w, from 0 to 1, is that with which
    the rows' own coalitions are predicted best, which h has not seen: each pair beyond the border from all others, by the
    sum of all rows' errors and by the mean of their logarithms, with a margin. The border alone praises every network, for
    the explanation has read it; the share is then that with which a few further pairs of some rows are predicted best
    (:class:`~captum_meta.attr._unread_pairs.UnreadTest`), which are evaluated once for each fit of the networks. Where f has
    no gradient it is a quarter at most, and 0 at the border. It is 0 in rows whose own coalitions contradict it.

    Args:
        rows: the most that are kept.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._layouts: dict[Hashable, _Known] = {}
        self._warned = False

    def explain(
        self, game: Game, evidence: Evidence, start: Tensor, learner: InUnits, state: UnitState | None, with_bounds: bool
    ) -> tuple[Tensor, Tensor]:
        """Attributions ``(N, M)`` and error bounds ``(N,)``, NaN if not asked for, of measured rows.

        Args:
            game: the rows.
            evidence: of each row and output.
            start: f of the baselines, ``(N,)``.
            learner, state: that explain a row without memory.
            with_bounds: whether bounds are asked for.
        """
        if not _can_be_read(game, evidence):
            self.pass_over()
            return explain_alone(learner, state, evidence, with_bounds)
        evidence = with_elements(evidence, game)
        with torch.inference_mode(False), plain_arithmetic(evidence.total.device):
            known = self._known(game)
            keys = keys_of(game, len(evidence.total))
            known.learn(evidence, start, keys, game.label)
        unread = known.unread(game, evidence)
        with torch.inference_mode(False), plain_arithmetic(evidence.total.device):
            if unread is not None:
                known.test(unread, evidence, start, keys, learner)
            return known.explain(evidence, start, keys, learner, state, with_bounds)

    def _known(self, game: Game) -> _Known:
        key = layout(game)
        if key not in self._layouts and len(self._layouts) >= _LAYOUTS:
            self._layouts.pop(next(iter(self._layouts)))
        return self._layouts.setdefault(key, _Known(self.rows))

    @property
    def share(self) -> float | None:
        """The networks' share in the rows explained last; None before they are fitted."""
        learned = [known.share for known in self._layouts.values() if known.learned]
        return learned[-1] if learned else None

    @property
    def has_gradient(self) -> bool:
        """Whether f has one at any row explained last."""
        return all(known.has_gradient for known in self._layouts.values())

    def pass_over(self) -> None:
        """Warn once that rows are explained without memory."""
        if not self._warned:
            self._warned = True
            warn(_UNREAD)


class _Known:
    """The memory of rows of one layout."""

    def __init__(self, rows: int) -> None:
        self.rows, self.networks = Rows(rows), CrossFitted()
        self.learned = self.fresh = 0
        self.understood, self.share, self.has_gradient = nan, 0.0, True
        self.sums: dict[int, Tensor] = {}
        self.tests: dict[int, UnreadTest] = {}

    def learn(self, evidence: Evidence, start: Tensor, keys: Tensor, label: str | None) -> None:
        """Keep evaluations; fit the networks again where enough of them are new."""
        self.fresh += self.rows.add(known_rows(evidence, start, keys), keys)
        known = self.rows.known
        if known is not None and self.rows.examples >= FEWEST and _MORE * self.fresh > self.learned:
            self.networks.fit(known, _shown(label))
            self.understood = self.networks.understood(known)
            self.learned, self.fresh = int(known.measured.sum()), 0

    def unread(self, game: Game, evidence: Evidence) -> UnreadPairs | None:
        """What the networks are to be tested by, once for each fit; None where that is not needed, or too costly."""
        if judges_itself(evidence) or not self._allowed(evidence) or self._test_of(evidence).fits == self.networks.fits:
            return None
        return unread_pairs(game, evidence, self._familiar(evidence))

    def test(self, unread: UnreadPairs, evidence: Evidence, start: Tensor, keys: Tensor, learner: InUnits) -> None:
        """Learn how well each share of the networks predicts these pairs."""
        rows = unread.rows
        some = evidence[rows].to(dtype=working_dtype(evidence.total))
        errors = errors_at(some, self._game(some, start[rows], keys[rows]), learner, unread.members, unread.differences)
        self._test_of(evidence).add(self.networks.fits, errors)

    def explain(
        self, evidence: Evidence, start: Tensor, keys: Tensor, learner: InUnits, state: UnitState | None, with_bounds: bool
    ) -> tuple[Tensor, Tensor]:
        alone = explain_alone(learner, state, evidence, with_bounds)
        self.share = 0.0
        if not self._allowed(evidence) >= SHARES[1]:
            return alone
        parts, left, first = [], [], 0
        for part in chunks_for_matrices(evidence):
            rows = slice(first, first + len(part.total))
            network = self._game(part, start[rows], keys[rows])
            parts.append(options_of(part, network, learner, self.networks.unit, with_bounds))
            left.append(learner.left_out_error(part, part, self.networks.unit))
            first = rows.stop
        without = Options(*alone, torch.cat(left)).map(lambda value: value.unsqueeze(1))
        options = Options.concatenate([without, Options.concatenate(parts)], dim=1)
        return options.chosen(self._judged(options, evidence))

    def _game(self, evidence: Evidence, start: Tensor, keys: Tensor) -> SurrogateGame:
        """The network's game, in which players without any effect have none either."""
        known = known_rows(evidence, start, keys)
        acts = (effect_sizes(evidence) > 0).unsqueeze(-1)
        return self.networks.game(
            torch.where(acts, known.inputs, known.baselines), known.baselines, known.outputs, known.folds
        )

    def _allowed(self, evidence: Evidence) -> float:
        """The largest share of the networks' game."""
        self.has_gradient = bool(evidence.measured[..., :LEAVE_ONE_OUT].any())
        without = _WITHOUT_GRADIENT if judges_itself(evidence) else 0.0
        return float(self.understood > 0) * (1.0 if self.has_gradient else without)

    def _judged(self, options: Options, evidence: Evidence) -> Tensor:
        """Index of the best share for each row, ``(N,)``; 0 where it cannot be judged."""
        telling = options.unexplained.isfinite().all(1) & self._familiar(evidence)
        left = torch.where(telling.unsqueeze(1), options.unexplained, 0.0) + TINY
        shares = torch.tensor(SHARES, device=left.device)
        if judges_itself(evidence):
            losses = self._common(evidence, left, telling) + _MARGIN * shares
        else:
            losses = self._test_of(evidence).losses().to(left)
        best = torch.where(shares <= self._allowed(evidence), losses, torch.inf).argmin()
        self.share = SHARES[int(best)]
        willing = telling & ~_complete(evidence) & ((left[:, best] / left[:, 0]).log() < _AGAINST)
        return torch.where(willing, best, 0)

    def _common(self, evidence: Evidence, left: Tensor, telling: Tensor) -> Tensor:
        """Of all rows so far that had as many coalitions, ``(W,)``: the logarithm of their errors, or that mean if larger.

        Args:
            left: ``(N, W)``, squared errors of these rows.
            telling: ``(N,)`` bool, which of them count.
        """
        from_here = left + _SMALL * left[:, 0].mean()
        changes = (from_here / from_here[:, :1]).log().sum(0)
        sums = torch.stack([left.sqrt().sum(0), changes, telling.sum().expand_as(changes)])
        budget = _coalitions_of(evidence)
        self.sums[budget] = sums = self.sums.get(budget, torch.zeros_like(sums)).to(sums) + sums
        roots, gains, rows = sums
        return torch.maximum(2 * (roots / roots[0]).log(), gains / rows.clamp(min=1))

    def _test_of(self, evidence: Evidence) -> UnreadTest:
        return self.tests.setdefault(_coalitions_of(evidence), UnreadTest())

    def _familiar(self, evidence: Evidence) -> Tensor:
        outputs = torch.zeros_like(evidence.total, dtype=torch.long) if evidence.targets is None else evidence.targets
        return self.networks.knows(outputs)


def _coalitions_of(evidence: Evidence) -> int:
    """Coalitions of each row; 0 for the border alone."""
    return 0 if evidence.coalitions is None else evidence.coalitions.members.shape[-2]


def _can_be_read(game: Game, evidence: Evidence) -> bool:
    rows_apart = game.n_rows == game.n_examples and not game.together and len(game.players.mask) == 1
    return rows_apart and game.players.count * game.players.most_elements <= _MOST_NUMBERS


def _shown(label: str | None) -> Callable[[range], Iterable[int]]:
    return iter if label is None else lambda steps: _captum.progress(steps, desc=f"{label}: memory")


def _complete(evidence: Evidence) -> Tensor:
    coalitions = evidence.coalitions or border_coalitions(evidence)
    return coalitions.measured.sum(-1) >= 2.0**evidence.n_players - 2
