"""`captum-meta benchmark trust`: whether calibrated bounds hold on held-out models, how tight they are, and what they save.

Of each model 300 rows of its data calibrate MetaKernelShap with its default budget, and 120 others are explained. The
teacher is the method's own reference, exact up to 12 players. In the second table the tolerance is what two answers of
Captum's ShapleyValueSampling, with its default of 25 permutations, differ by, and evaluations are in units of its own.
"""

from __future__ import annotations

import warnings
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from captum.attr import ShapleyValueSampling
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Generator, Tensor

from captum_meta.attr import CalibratedAttribution, MetaKernelShap
from captum_meta.attr._calibration import Calibration
from captum_meta.attr._calls import Call
from captum_meta.attr._compared import Compared
from captum_meta.attr._runs import compared
from captum_meta.benchmark.heldout import explained, load_held_out, whole_table
from captum_meta.benchmark.journal import append_line, read_lines
from captum_meta.benchmark.options import add_choices, add_output
from captum_meta.benchmark.peers import seeded
from captum_meta.benchmark.problem import some_rows
from captum_meta.benchmark.tables import table_of
from captum_meta.estimators.conformal import stopping_levels
from captum_meta.functional import rank_correlation

ALPHAS = (0.05, 0.1, 0.2)
_CALIBRATE, _TEST = 300, 120
_PERMUTATIONS = 25


def problem_names() -> list[str]:
    """Twenty models with at most 16 players and 420 rows of data, fixed before any of them was looked at.

    >>> len(problem_names())
    20
    """
    regressions = ("mlp/value/zero", "residual/value/row", "transformer/value/zero", "trees/value/row")
    names = [f"{data}/{model}" for data in ("diabetes", "california") for model in regressions]
    names += [f"bike/{model}" for model in ("mlp/value/zero", "residual/value/row", "rnn/value/zero")]
    classifiers = ("residual", "transformer", "trees")
    names += [f"adult/{model}/{out}/zero" for model in classifiers for out in ("logit", "probability")]
    return [
        *names,
        "digits-patches/cnn/probability/zero",
        "digits-patches/mlp/logit/zero",
        "digits-rows/rnn/probability/zero",
    ]


def explained_rows(name: str) -> tuple[Any, dict[str, Any], bool]:
    """The model, arguments of all rows, those that calibrate first, and whether it has a gradient."""
    problem = load_held_out(name)
    order = torch.randperm(len(whole_table(name).x), generator=Generator().manual_seed(0))[: _CALIBRATE + _TEST]
    return problem.model, explained(name, problem.model, order, order.roll(1)), problem.has_gradient


def judged(calibration: Calibration, rows: Compared, tolerance: float | None) -> dict[str, Tensor]:
    """The level, error and bound that ``attribute`` would return for rows known at all levels."""
    scores = torch.stack([d.scores(rows.signals[:, i], rows.features[:, i]) for i, d in enumerate(calibration.levels)], 1)
    largest = torch.inf if tolerance is None else tolerance
    if tolerance is None:
        scale, levels = calibration.scale("distance"), torch.zeros(len(scores), dtype=torch.long)
    else:
        limit, scale = calibration.within("distance", tolerance)
        levels = stopping_levels(scores, limit if bool(scale.isfinite()) else -torch.inf)
    accepted = levels < scores.shape[1]
    at = levels.clamp(max=scores.shape[1] - 1).unsqueeze(1)
    error = torch.where(accepted, rows.errors.distance.gather(1, at).squeeze(1), 0.0)
    bound = torch.where(accepted, (scale * scores.gather(1, at).squeeze(1)).clamp(max=largest), 0.0)
    return {"level": levels, "accepted": accepted, "error": error, "bound": bound, "scale": scale}


def evaluations(levels: Tensor, n_levels: int, n_players: int, base: int, teacher: float) -> float:
    """Mean evaluations per row: coalitions double from 2M, and the teacher comes last."""
    coalitions = torch.minimum(2.0 * n_players * 2.0 ** levels.clamp(max=n_levels - 1), torch.tensor(2.0**n_players - 2))
    return float((base + coalitions + teacher * (levels == n_levels)).mean())


def measure(name: str) -> dict[str, Any]:
    """One model's numbers."""
    model, arguments, has_gradient = explained_rows(name)
    attr = CalibratedAttribution(MetaKernelShap(model))
    attr.calibrate(**some_rows(arguments, slice(0, _CALIBRATE)))
    tested = some_rows(arguments, slice(_CALIBRATE, None))
    call = _call(attr, tested)
    n_players, base = call.game.players.count, 9 if has_gradient else 2
    assert attr.calibration is not None
    rows = compared(call, attr._labelled(call, {}))
    own = 2.0**n_players if n_players <= 12 else base + 32.0 * n_players
    entry: dict[str, Any] = {"name": name, "players": n_players, "rows": len(tested["inputs"]), "smooth": has_gradient}
    for alpha in ALPHAS:
        calibration = replace(attr.calibration, alpha=alpha)
        plain = judged(calibration, rows, None)
        tolerance = float(plain["bound"].median())
        entry[f"{alpha}"] = {
            "covered": int((plain["error"] <= plain["bound"]).sum()),
            "tightness": tolerance / float(plain["error"].median()),
            "rank": float(rank_correlation(plain["bound"][None], plain["error"][None])),
            **_under(judged(calibration, rows, tolerance), rows, n_players, base, own),
        }
    entry["repeat"] = _within_repeat_error(attr, arguments, call, rows, base)
    return entry


def _under(found: dict[str, Tensor], rows: Compared, n_players: int, base: int, teacher: float) -> dict[str, float]:
    """Counts of rows under a tolerance, and what they cost in units of the teacher's cost."""
    kept, accepted = found["error"] <= found["bound"], found["accepted"]
    cost = 1.0  # where no row can be accepted, none is tried
    if bool(found["scale"].isfinite()):
        cost = evaluations(found["level"], rows.signals.shape[1], n_players, base, teacher) / teacher
    numbers = {"covered within": kept.sum(), "accepted": accepted.sum(), "covered accepted": (kept & accepted).sum()}
    return {**{key: int(value) for key, value in numbers.items()}, "cost": cost}


def _within_repeat_error(
    attr: CalibratedAttribution, arguments: dict[str, Any], call: Call, rows: Compared, base: int
) -> dict[str, Any]:
    """The tolerance is the distance that nine in ten pairs of answers of ShapleyValueSampling stay below; alpha is .1.

    Bounds are on the distance to our reference, or to the sampled answers, whose noise is then part of the distance.
    """
    sampler = ShapleyValueSampling(attr.forward_func)
    answers = []
    for seed in range(2):
        with seeded(seed):
            answers.append(sampler.attribute(**arguments, n_samples=_PERMUTATIONS, perturbations_per_eval=16))
    first, second = (_call(attr, arguments).values((answer,)) for answer in answers)
    tolerance = float((first - second).norm(dim=1)[:_CALIBRATE].quantile(0.9))
    noisy = CalibratedAttribution(attr.method, sampler)
    noisy.calibrate(**some_rows(arguments, slice(0, _CALIBRATE)), attributions=answers[0][:_CALIBRATE])
    assert attr.calibration is not None and noisy.calibration is not None
    n_players = call.game.players.count
    teacher = float(_PERMUTATIONS * n_players + 1)
    sampled = compared(call, first[_CALIBRATE:])
    return {
        "reference": _under(judged(attr.calibration, rows, tolerance), rows, n_players, base, teacher),
        "sampled": _under(judged(noisy.calibration, sampled, tolerance), sampled, n_players, base, teacher),
    }


def _call(attr: CalibratedAttribution, arguments: Mapping[str, Any]) -> Call:
    return attr._call(*(arguments.get(key) for key in ("inputs", "baselines", "target", "extra", "feature_mask")), {})


def tables(entries: Sequence[dict[str, Any]]) -> list[Table]:
    """Coverage and tightness, cost under a tolerance, and each model by itself."""
    total = sum(entry["rows"] for entry in entries)
    title = f"{total} rows of {len(entries)} held-out models; tolerance: each model's median bound"
    under = ("covered under a tolerance", "of the accepted", "to the teacher", "evaluations / teacher's")
    first = table_of(title, ("alpha", "covered", "bound / error (medians)", *under))
    for alpha in ALPHAS:
        some = [entry[f"{alpha}"] for entry in entries]
        sums = {key: sum(one[key] for one in some) for key in ("covered", "covered within", "accepted", "covered accepted")}
        shares = (sums["covered"] / total, sums["covered within"] / total, sums["covered accepted"] / sums["accepted"])
        cells = [f"{share:.3f}" for share in shares]
        cells.insert(1, f"{_middle(one['tightness'] for one in some):.2f}")
        cost = sum(one["cost"] for one in some) / len(some)
        first.add_row(f"{alpha}", *cells, f"{1 - sums['accepted'] / total:.1%}", f"{cost:.2f}")
    columns = ("distance to", "covered", "of the accepted", "to the teacher", "evaluations / the sampler's")
    second = table_of(f"tolerance: repeat error of ShapleyValueSampling, {_PERMUTATIONS} permutations; alpha .1", columns)
    for label, shown in (("reference", "our reference"), ("sampled", "a sampled answer")):
        some = [entry["repeat"][label] for entry in entries]
        within, accepted, kept = (
            sum(one[key] for one in some) for key in ("covered within", "accepted", "covered accepted")
        )
        cost = sum(one["cost"] for one in some) / len(some)
        cells = [f"{within / total:.3f}", f"{kept / max(1, accepted):.3f}", f"{1 - accepted / total:.1%}", f"{cost:.2f}"]
        second.add_row(shown, *cells)
    heads = ("model", "players", "covered", "bound / error", "Spearman", "accepted covered", "evaluations / teacher's")
    third = table_of("each model, alpha .1", heads, ("model",))
    for entry in entries:
        one = entry["0.1"]
        accepted = f"{one['covered accepted'] / max(1, one['accepted']):.2f} of {one['accepted']}"
        cells = [f"{one['covered'] / entry['rows']:.2f}", f"{one['tightness']:.1f}", f"{one['rank']:.2f}", accepted]
        third.add_row(entry["name"], str(entry["players"]), *cells, f"{one['cost']:.2f}")
    for label, smooth in (("mean over smooth models", True), ("mean over trees", False)):
        ranks = [entry["0.1"]["rank"] for entry in entries if entry["smooth"] == smooth]
        third.add_row(label, "", "", "", f"{sum(ranks) / max(1, len(ranks)):.2f}", "", "")
    return [first, second, third]


def _middle(values: Any) -> float:
    return float(torch.tensor(list(values)).median())


def main(arguments: Sequence[str]) -> None:
    """Test calibrated bounds on twenty held-out models: how many hold, how tight they are, and what a tolerance costs."""
    parser = ArgumentParser(prog="captum-meta benchmark trust", description=main.__doc__)
    add_output(parser, Path("runs/trust.jsonl"))
    add_choices(parser, "--models", problem_names(), "MODEL")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    known = {entry["name"] for entry in read_lines(options.output)}
    for name in track([name for name in options.models if name not in known], description="Calibrated bounds"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            append_line(options.output, measure(name))
    entries = [entry for entry in read_lines(options.output) if entry["name"] in options.models]
    Console(width=150).print(*tables(entries))
    print(f"All results: {options.output}")
