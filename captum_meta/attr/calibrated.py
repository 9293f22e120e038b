"""Any attribution method with bounds on the distance of its answers to a teacher's."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor
from typing_extensions import Self

from captum_meta import _captum
from captum_meta.attr._arguments import check_teacher, checked
from captum_meta.attr._calibration import Calibration
from captum_meta.attr._calibration_warnings import warn_of_unlike_rows, warn_of_wrong_estimates
from captum_meta.attr._calls import Call, in_form_of, parts_of
from captum_meta.attr._compared import MEASURES, Measure
from captum_meta.attr._frontend import Frontend, count_examples, of_inputs
from captum_meta.attr._levels import climb
from captum_meta.attr._path import PathFrontend
from captum_meta.attr._runs import BoundedRun, compared, joined
from captum_meta.attr._support import Support, content_keys
from captum_meta.attr.general import MetaAttribution
from captum_meta.estimators.conformal import rows_needed
from captum_meta.games import Game

_ROWS_AT_ONCE = 32


class CalibratedAttribution(Attribution):
    r"""Wraps a method, as ``NoiseTunnel`` does, and bounds the distance of its answers to a teacher's, on this model.

    :meth:`calibrate` compares the method with its teacher on calibration rows. :meth:`attribute` then returns what the
    method gives, and bounds: a score ranks rows by difficulty, and a quantile of the calibration rows' errors over their
    scores turns it into a bound (split conformal prediction). So easy rows get tight bounds.

    What is promised holds for any model, and for new rows that are exchangeable with the calibration rows: drawn from the
    same data in the same way, and explained with the same arguments.

    - **Without a tolerance.** The L2 distance between the method's and the teacher's attributions of a new row, a player
      counted once, is at most its bound with probability at least :math:`1 - \alpha`. This probability is over the
      calibration rows and the new row together (it is marginal). It says nothing of a certain row, or of rows of one class.
    - **With a tolerance.** A row *passes* if its score is small enough at some level of effort: with the method's own
      budget, or with this budget doubled once, twice or three times. How small is set by the rows to which the score
      is fitted, and which do not calibrate. So new rows that pass are exchangeable with the calibration rows that pass,
      and these calibrate their bounds, none of which is larger than the tolerance:
      :math:`P(\text{distance} > \text{bound} \mid \text{the row passes}) \le \alpha`. This is marginal as above, for a
      tolerance that was chosen without these rows. A row that passes is *accepted*: the method's answer is returned. The
      teacher answers the others, with a bound of 0. It answers all rows if so many of the calibration rows that pass have
      errors beyond the tolerance that no bound within it can be promised. If this happens in a share p of calibrations, a
      share of up to :math:`\alpha / (1 - p)` of the accepted rows may be beyond their bounds; p is kept below .2, as far as
      these rows can show.
    - **Once calibrated**, the share beyond the bounds is a fixed number around :math:`\alpha`: with 200 calibration rows
      to which the score is not fitted, at :math:`\alpha = .1`, between .07 and .14 in nine of ten calibrations.
    - **The truth** is known only as far as the teacher knows it. The error of a random teacher is part of the distance, so
      that bounds become wider. A row that the teacher answers has the teacher's error, which the bound of 0 does not count.

    The score, and how small it must be, are fitted to one third of 60 or more calibration rows, which do not calibrate.
    Rows given to the method's ``adapt`` are refused, as errors on them are smaller than on others. Rows that act on each
    other are not exchangeable.

    Args:
        method: any Captum method, ours or not. If it is adapted after :meth:`calibrate`, :meth:`attribute` raises.
        teacher: a Captum method over the same model; None for the method's own reference, which ours have.

    References: Lei et al., *Distribution-Free Predictive Inference for Regression*, JASA 2018. Vovk, Gammerman and Shafer,
    *Algorithmic Learning in a Random World*, 2005, section 4.5 (Mondrian conformal predictors: a promise for each category
    of rows; here they pass or not).

    >>> import torch
    >>> from captum_meta.attr import MetaKernelShap
    >>> model = lambda x: (x[:, 0] * x[:, 1] * x[:, 2]).tanh() + x.sum(1)
    >>> x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    >>> attr = CalibratedAttribution(MetaKernelShap(model)).calibrate(x[:30], alpha=0.1)
    >>> attributions, bounds = attr.attribute(x[30:], return_error_bound=True)
    >>> attributions.shape, bounds.shape
    (torch.Size([10, 4]), torch.Size([10]))
    """

    def __init__(self, method: Attribution, teacher: Attribution | None = None) -> None:
        if method is None:
            raise TypeError("method is None: pass a Captum method, such as MetaKernelShap(model).")
        self.method = check_teacher("method", method)
        self.teacher = check_teacher("teacher", teacher)
        if teacher is None and isinstance(method, MetaAttribution):
            self.teacher = method.teacher
        self.calibration: Calibration | None = None
        self._further: dict[str, Any] = {}
        self._teacher_kwargs: dict[str, Any] = {}
        self._support_keys = Support().keys
        Attribution.__init__(self, method.forward_func)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the method's attributions are multiplied by the inputs."""
        return bool(self.method.multiplies_by_inputs)

    @checked
    def calibrate(
        self,
        inputs: Any,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Any = None,
        *,
        alpha: float = 0.1,
        attributions: Any = None,
        teacher_kwargs: dict[str, Any] | None = None,
        show_progress: bool = False,
        **method_kwargs: Any,
    ) -> Self:
        """Compare the method with the teacher on calibration rows; another call starts anew.

        Args:
            inputs, baselines, target, additional_forward_args, feature_mask: the calibration rows, as for the method.
            alpha: share of rows that may be beyond their bound.
            attributions: the teacher's answers, where they are known, as Captum returns them.
            teacher_kwargs: further arguments of ``teacher.attribute``, such as ``{"n_steps": 500}``.
            show_progress: show how many rows have been compared.
            method_kwargs: further arguments of the method, such as ``n_samples=40``; :meth:`attribute` uses the same.

        Each calibration row costs what the teacher costs, and the method with eight times its budget.

        Returns:
            This object, so that calls can be chained.

        Raises:
            ValueError: if there are fewer rows than ``alpha`` needs (9 for .1, 19 for .05), some were given to the method's
                ``adapt``, the teacher's answers are not finite, or there is no teacher.
        """
        count, needed = count_examples(inputs, empty=ValueError), rows_needed(alpha)
        if count < needed:
            raise ValueError(
                f"There are {count} calibration rows, and alpha={alpha:g} needs at least {needed}: pass more rows, or "
                f"alpha={1 / (count + 1):.3g} or more."
            )
        self._check_further(method_kwargs)
        call = self._call(inputs, baselines, target, additional_forward_args, feature_mask, method_kwargs)
        self._refuse_adapted(call)
        given = None if attributions is None else call.given_values(attributions)
        everyone = torch.arange(count, device=call.device)
        split = [everyone] if call.together else everyone.split(_ROWS_AT_ONCE)
        shown = _captum.progress(split, desc=f"{self.get_name()} calibration") if show_progress else split
        found = []
        for rows in shown:
            part = call if call.together else call.take(rows)
            truth = self._labelled(part, teacher_kwargs or {}) if given is None else given[rows]
            broken = rows[(~truth.isfinite()).any(1)].tolist()
            if broken:
                raise ValueError(f"The teacher's attributions of the rows {broken} are not finite: leave these rows out.")
            found.append(compared(part, truth))
        self.calibration = Calibration.of(joined(found), alpha, call.game.players.count)
        self._further, self._teacher_kwargs = dict(method_kwargs), dict(teacher_kwargs or {})
        self._support_keys = self._adapted_keys()
        if attributions is None and self.teacher is None:
            warn_of_wrong_estimates(self.calibration.rows)
        return self

    @log_usage(part_of_slo=True)
    @checked
    def attribute(
        self,
        inputs: Any,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Any = None,
        *,
        tolerance: float | None = None,
        return_error_bound: bool | Measure = False,
    ) -> Any:
        """Explain rows by the method, with the further arguments of :meth:`calibrate`.

        Args:
            inputs, baselines, target, additional_forward_args, feature_mask: as for the method.
            tolerance: the largest bound that is accepted; other rows get more of the method's budget, then the teacher's
                answer. It is of the kind that ``return_error_bound`` names: of a player the widest interval's half.
            return_error_bound: True or "distance": also return the bound on the L2 distance. "relative": on the distance
                over the length of the teacher's attributions. "players": half-widths of intervals around the attributions,
                which hold all of the teacher's at once.

        Returns:
            Attributions as the method returns them; with the bounds ``(B,)``, or for "players" in the attributions' shapes,
            if asked for. They are 0 where the teacher has answered, NaN where the method's answer is not finite, and
            infinite where nothing can be said.

        Raises:
            RuntimeError: before :meth:`calibrate`, or if the method was adapted after it.
            ValueError: if the tolerance is not positive, or there are too few calibration rows for one (60 are needed for an
                alpha of .1 or .2, 118 for .05), or no teacher.
        """
        measure = self._measure(return_error_bound)
        calibration = self._calibrated()
        count_examples(inputs)
        call = self._call(inputs, baselines, target, additional_forward_args, feature_mask, self._further)
        if tolerance is not None:
            self._check_teacher(call)
        warn_of_unlike_rows(calibration, call)
        run = BoundedRun(call, calibration, measure, tolerance)
        if tolerance is None or bool(run.scale.isfinite()):
            climb(call, run.visit, only_first=tolerance is None)
        left = (~run.accepted).nonzero().flatten()
        if tolerance is not None and len(left):
            some = call if call.together or len(left) == len(call) else call.take(left)
            run.label(left, self._teacher_answer(some, self._teacher_kwargs))
        attributions = in_form_of(run.form, iter(run.parts))
        if not return_error_bound:
            return attributions
        if measure == "players":
            return attributions, in_form_of(run.form, iter(call.parts(run.bounds, run.parts)))
        return attributions, run.bounds.to(run.parts[0])

    def _call(self, inputs: Any, *arguments: Any) -> Call:
        if self.forward_func is not self.method.forward_func:
            raise RuntimeError(
                "forward_func is not that of the wrapped method: wrap a method over this function, and calibrate."
            )
        tensors = _captum.format_tensor_into_tuples(inputs)
        return Call(self.method, tensors, isinstance(inputs, tuple), *arguments)

    def _calibrated(self) -> Calibration:
        if self.calibration is None:
            raise RuntimeError("There are no calibration rows yet: call calibrate(rows) first.")
        if not torch.equal(self._adapted_keys(), self._support_keys):
            raise RuntimeError(
                "The method was adapted after calibrate(), so that its errors are other ones: call calibrate() again, with "
                "rows that adapt() was not given."
            )
        return self.calibration

    def _adapted_keys(self) -> Tensor:
        """Content keys of the rows given to the method's ``adapt``; none for methods that do not adapt."""
        return getattr(self.method, "_support", Support()).keys

    def _refuse_adapted(self, call: Call) -> None:
        adapted = self._adapted_keys()
        used = torch.isin(content_keys(call.inputs).cpu(), adapted).nonzero().flatten().tolist()
        if used:
            raise ValueError(
                f"The method was adapted to the calibration rows {used}, on which its errors are smaller than on others: "
                "pass rows that adapt() was not given."
            )

    def _check_further(self, given: dict[str, Any]) -> None:
        wrong = [name for name in given if name.startswith("return_") or name in ("tolerance", "outputs", "memory")]
        if getattr(self.method, "memory", 0):
            raise ValueError(
                "A method with memory is another one after each call, so that its errors cannot be calibrated: pass one "
                "with memory=0."
            )
        if wrong:
            raise ValueError(
                f"{', '.join(wrong)} cannot be calibrated: pass other arguments of {type(self.method).__name__}."
            )

    def _measure(self, asked: bool | Measure) -> Measure:
        if isinstance(asked, bool):
            return "distance"
        if asked not in MEASURES:
            raise ValueError(f"return_error_bound is {asked!r}: pass a bool, or one of {', '.join(map(repr, MEASURES))}.")
        return asked

    def _teacher_answer(self, call: Call, further: dict[str, Any]) -> Any:
        """The teacher's attributions of all rows of a call, in the form of the method's."""
        if self.teacher is not None:
            return call.explain(self.teacher, other_draws=True, **further)
        self._check_teacher(call)
        game = self._method_game(call)
        return of_inputs(self.method._reference(game), game)

    def _check_teacher(self, call: Call) -> None:
        if self.teacher is None and (not self._has_reference or "background" in call.further):
            what = " with background rows" if "background" in call.further else ""
            raise ValueError(
                f"{type(self.method).__name__}{what} has no reference of its own: pass teacher=, such as the same method "
                "with more steps in teacher_kwargs, or attributions= to calibrate() and no tolerance."
            )

    @property
    def _has_reference(self) -> bool:
        of_gradients = isinstance(self.method, PathFrontend) and not self.method.multiplies_by_inputs
        own = getattr(type(self.method), "_reference", Frontend._reference) is not Frontend._reference
        return own and not of_gradients

    def _method_game(self, call: Call) -> Game:
        """The game that one of our methods explains, of activations for methods of layers."""
        masks = () if call.feature_mask is None else (call.feature_mask,)
        game: Game = self.method._game(call.inputs, call.baselines, call.target, call.extra, *masks)
        return game

    def _labelled(self, call: Call, further: dict[str, Any]) -> Tensor:
        return call.values(parts_of(self._teacher_answer(call, further)))
