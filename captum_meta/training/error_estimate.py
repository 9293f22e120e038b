"""`python -m captum_meta.training.error_estimate`: powers and factor of Shapley error estimates, from synthetic models.

The logarithm of each row's relative squared error, less its mean over the model, is regressed on those of the signals of
:meth:`captum_meta.nn.ShapleyExplainer.error_signals`; the factor is the quantile of what the errors have beyond. Models of
up to 12 players, whose Shapley values are exact; the shipped explainer was trained on none of them.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from captum_meta.functional import rank_correlation
from captum_meta.learners import load_learner
from captum_meta.nn import ShapleyExplainer
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.tasks.cache import ExplanationCache, describe, key_of, make
from captum_meta.types import Coalitions, Evidence, Explanations

_PLAYERS = range(7, 13)
_MULTIPLES = (2, 4, 8)
_FIRST = torch.tensor([1.0, 0.0, 0.0, 0.0]).double()
_ROWS, _SHARE = 24, 0.95
_FLOOR, _TRIVIAL = 1e-12, 1e-9
"""Added to errors and signals before their logarithms; models whose errors are below the second teach nothing."""


def within(evidence: Evidence, multiple: int) -> Evidence | None:
    """The evidence with its first ``multiple * M`` coalitions; None where it has fewer."""
    length, coalitions = multiple * evidence.players.shape[-1], evidence.coalitions
    if multiple == 2:
        return replace(evidence, coalitions=None)
    if coalitions is None or coalitions.members.shape[-2] < length:
        return None
    shorter = Coalitions(
        coalitions.members[..., :length, :], coalitions.worths[..., :length], coalitions.measured[..., :length]
    )
    return replace(evidence, coalitions=shorter)


def logarithms(explainer: ShapleyExplainer, explained: Explanations) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For each budget, logarithms of the signals ``(T, N, 4)`` and of the true errors ``(T, N)``."""
    right = explained.attributions
    for multiple in _MULTIPLES:
        evidence = within(explained.evidence, multiple)
        if evidence is None:
            continue
        with torch.no_grad():
            prior = explainer.prior(evidence)
            values = explainer.complete(prior, evidence).attributions
            signals = explainer.error_signals(prior, evidence, values)
        errors = (values - right).square().sum(-1) / right.square().sum(-1)
        useful = errors.isfinite().all(-1) & signals.isfinite().flatten(1).all(-1) & (errors.mean(-1) > _TRIVIAL)
        yield multiple, (signals[useful] + _FLOOR).log(), (errors[useful] + _FLOOR).log()


def regress(signals: Tensor, errors: Tensor) -> Tensor:
    """Powers ``(4,)`` by least squares, from logarithms ``(R, 4)`` and ``(R,)`` that sum to zero over each model."""
    return torch.linalg.lstsq(signals, errors.unsqueeze(-1)).solution.squeeze(-1)


def _measured(seed: int, rows: int, batches: int, folder: str) -> list[tuple[int, Tensor, Tensor]]:
    family = SyntheticTaskFamily("shapley", tasks_per_batch=8, rows=rows, seed=seed)
    cache, indices = ExplanationCache(folder), range(batches)
    keys = [key_of(describe(family, index)) for index in indices]
    for _ in make(family, cache, indices, keys, 0):
        pass
    explainer = load_learner("zero-shot").explainer.double()
    assert isinstance(explainer, ShapleyExplainer)
    found = []
    for key in track(keys, description=f"Seed {seed}"):
        explained = cache.read(key)[0]
        if explained.attributions.shape[-1] in _PLAYERS:
            found += list(logarithms(explainer, explained[:, :_ROWS].to(dtype=torch.float64)))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print powers, factor, and on models of another seed the rank correlation within a model."""
    parser = ArgumentParser(prog="python -m captum_meta.training.error_estimate", description=main.__doc__)
    parser.add_argument("--folder", default="runs/tasks-metric", help="where the tasks are kept")
    folder = str(Path(parser.parse_args(arguments).folder))
    torch.set_num_threads(1)
    found = _measured(11, 48, 64, folder)
    signals = torch.cat([_centred(signals).flatten(0, 1) for _, signals, _ in found])
    powers = regress(signals, torch.cat([_centred(errors).flatten() for _, _, errors in found]))
    factor = torch.cat([(errors - signals @ powers).flatten() for _, signals, errors in found]).quantile(_SHARE)
    print("powers", [round(float(power), 2) for power in powers])
    print(f"factor that {_SHARE:.0%} of the rows stay below: {factor.exp():.3g}")
    unseen = _measured(12, 80, 8, folder)
    for multiple in _MULTIPLES:
        logs = [(signals, errors) for number, signals, errors in unseen if number == multiple]
        ranks = [torch.stack([_rank(signals @ w, errors) for signals, errors in logs]).mean() for w in (powers, _FIRST)]
        kept = torch.cat([(errors - signals @ powers).flatten() for signals, errors in logs]) <= factor
        print(
            f"{multiple}M: Spearman within a model {ranks[0]:.3f}, of the first signal alone {ranks[1]:.3f}; "
            f"{kept.double().mean():.1%} of the rows within the bound"
        )


def _centred(values: Tensor) -> Tensor:
    """``(T, N, ...)`` less the mean over each model's rows."""
    return values - values.mean(1, keepdim=True)


def _rank(estimates: Tensor, errors: Tensor) -> Tensor:
    """Mean over models of the rank correlation over rows, both ``(T, N)``."""
    return torch.stack([rank_correlation(e[None], r[None]) for e, r in zip(estimates, errors, strict=True)]).mean()


if __name__ == "__main__":
    main()
