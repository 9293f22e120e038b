"""`captum-meta benchmark adaptation`: errors of learners after k explained rows of a held-out model."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from captum_meta.benchmark.explained_rows import query_rows, support_rows
from captum_meta.benchmark.heldout import HeldOutProblem, held_out_names, load_held_out, quick_names
from captum_meta.benchmark.journal import kept, read_lines
from captum_meta.benchmark.options import add_output, add_references
from captum_meta.benchmark.summary import family_group
from captum_meta.benchmark.tables import table_of
from captum_meta.functional import attribution_error
from captum_meta.learners import MatchingNetwork, MetaLearner, list_learners, load_learner
from captum_meta.learners._gradient_state import GradientState
from captum_meta.losses import relative_squared_error
from captum_meta.nn import CosineSimilarity, RawInputs
from captum_meta.types import Evidence, Explanations

ROWS = (4, 16, 64)
BUDGETS = {"none": 0, "2M": 2}
ZERO_SHOT, LITERAL, FINE_TUNING = "zero-shot", "matching, literal form", "fine-tuning, 60 Adam steps"
SAME, SHIFTED, OTHER = "same", "other half", "other model"
_ELSEWHERE = 16
_WORSE = 1.1


class FineTuning(MetaLearner[GradientState]):
    """All parameters of the explainer, moved by Adam steps on the support rows' loss, as without meta-learning."""

    def __init__(self, learner: MetaLearner, steps: int = 60, rate: float = 1e-3) -> None:
        super().__init__(learner.explainer)
        self.steps, self.rate = steps, rate

    def adapt(self, support: Explanations) -> GradientState:
        explainer = deepcopy(self.explainer).requires_grad_(True)
        optimizer = torch.optim.Adam(explainer.parameters(), self.rate)
        evidence = support.evidence.without_coalitions()
        with torch.enable_grad():
            for _ in range(self.steps):
                optimizer.zero_grad()
                predicted = explainer(evidence).attributions
                relative_squared_error(predicted, support.attributions).backward()
                optimizer.step()
        moved = {name: value.detach() for name, value in explainer.named_parameters()}
        return GradientState(moved, support.attributions.new_ones(()))

    def predict(self, state: GradientState | None, evidence: Evidence) -> Tensor:
        fast = {} if state is None else state.fast
        return torch.func.functional_call(self.explainer, fast, (evidence,)).attributions


@dataclass(frozen=True)
class Adapted:
    """One learner on one held-out model.

    Attributes:
        problem, family, learner: the problem, its family, and the method.
        rows: explained rows adapted to.
        budget: coalitions per row, ``"none"`` or ``"2M"``, beside three gradients.
        support: where the rows come from: ``"same"``, ``"other half"`` of the inputs, ``"other model"`` on the same data.
        error: relative squared error over the query rows.
        before: the zero-shot explainer's on the same rows.
    """

    problem: str
    family: str
    learner: str
    rows: int
    budget: str
    support: str
    error: float
    before: float


def learners(names: Sequence[str] = ()) -> dict[str, MetaLearner]:
    """Shipped learners, the literal matching network and plain fine-tuning, or those of them with the given ``names``."""
    zero_shot = load_learner(ZERO_SHOT)
    literal = MatchingNetwork(zero_shot.explainer, RawInputs(), CosineSimilarity(), values="attributions").eval()
    makers: dict[str, Callable[[], MetaLearner]] = {
        **{name: (lambda name=name: load_learner(name)) for name in list_learners()},  # type: ignore[misc]
        LITERAL: lambda: literal,
        FINE_TUNING: lambda: FineTuning(zero_shot),
    }
    unknown = [name for name in names if name not in makers]
    if unknown:
        raise ValueError(f"There are no learners {unknown}: pass some of {list(makers)}.")
    return {name: makers[name]() for name in names or makers}


def run(names: Sequence[str], chosen: Mapping[str, MetaLearner], output: Path, references: Path) -> list[Adapted]:
    """Adapt every learner to every problem; results already in ``output`` (JSON lines) are kept."""
    done = [Adapted(**entry) for entry in read_lines(output)]
    known = {(r.problem, r.learner, r.rows, r.budget, r.support) for r in done}
    for name in track(names, description="Adapting"):
        problem = load_held_out(name)
        for budget in BUDGETS if problem.has_gradient else ("2M",):
            wanted = [
                (learner, k, where)
                for learner in chosen
                for k, where in _settings(name)
                if (name, learner, k, budget, where) not in known
            ]
            if wanted:
                done += kept(output, _measure(problem, budget, wanted, chosen, references))
    return [r for r in done if r.problem in names and r.learner in chosen]


def _settings(name: str) -> list[tuple[int, str]]:
    settings = [(k, SAME) for k in ROWS] + [(_ELSEWHERE, SHIFTED)]
    return settings + ([(_ELSEWHERE, OTHER)] if _sibling(name) else [])


def _sibling(name: str) -> str | None:
    """Another model on the same data, with the same baseline; of another architecture where there is one."""
    data, architecture, _, baseline = name.split("/")
    others = [n for n in held_out_names() if n != name and n.split("/")[0] == data and n.split("/")[3] == baseline]
    others = [n for n in others if "/trees/" not in n or architecture == "trees"]
    return min(others, key=lambda n: n.split("/")[1] == architecture) if others else None


def _measure(
    problem: HeldOutProblem,
    budget: str,
    wanted: Sequence[tuple[str, int, str]],
    chosen: Mapping[str, MetaLearner],
    references: Path,
) -> list[Adapted]:
    coalitions = BUDGETS[budget] * problem.n_players
    query = query_rows(problem, coalitions, references)
    beside = max(chosen[name].reading.evaluations_of(problem.n_players) for name, _, _ in wanted)
    supports = {SAME: support_rows(problem, coalitions, references, beside)}
    if any(where == OTHER for _, _, where in wanted):
        sibling = _sibling(problem.name)
        assert sibling is not None
        supports[OTHER] = support_rows(load_held_out(sibling), coalitions, references, beside)
    low, high = _halves(supports[SAME], query)
    results = []
    for name, k, where in wanted:
        rows = low if where == SHIFTED else torch.arange(k)
        asked = query[high] if where == SHIFTED else query
        support = supports[OTHER if where == OTHER else SAME][rows[:k]]
        learner = chosen[name]
        if not learner.reading.evaluations_of(problem.n_players):
            support = support.without_coalitions()
        with torch.no_grad():
            before = learner.explainer(asked.evidence).attributions
            predicted = learner.predict(learner.adapt(support), asked.evidence)
        errors = [float(attribution_error(v.double(), asked.attributions.double())) for v in (predicted, before)]
        results.append(Adapted(problem.name, problem.family, name, k, budget, where, *errors))
    return results


def _halves(support: Explanations, query: Explanations) -> tuple[Tensor, Tensor]:
    """Support rows of one half of the inputs, and query rows of the other: halves along the first principal direction."""
    assert support.evidence.inputs is not None and query.evidence.inputs is not None
    rows, asked = support.evidence.inputs[..., 0], query.evidence.inputs[..., 0]
    centre = rows.mean(0)
    direction = torch.linalg.svd(rows - centre, full_matrices=False).Vh[0]
    along, queries = (rows - centre) @ direction, (asked - centre) @ direction
    middle = along.median()
    high = (queries > middle).nonzero().flatten()
    if len(high) == 0:
        return (along > middle).nonzero().flatten(), torch.arange(len(queries))
    return (along <= middle).nonzero().flatten(), high


def table(results: Sequence[Adapted], budget: str) -> Table:
    """Median / mean error by family, and how many models are worse than zero-shot by more than 10 %, or better."""
    some = [r for r in results if r.budget == budget]
    families = list(dict.fromkeys(family_group(r) for r in some))
    columns = ("support", "rows", "learner", *families, "worse", "better")
    title = f"Errors after adaptation, median / mean; coalitions per row: {budget}"
    shown = table_of(title, columns, ("support", "learner"))
    settings = [(SAME, k) for k in ROWS] + [(SHIFTED, _ELSEWHERE), (OTHER, _ELSEWHERE)]
    for where, k in settings:
        here = [r for r in some if r.support == where and r.rows == k]
        for name in dict.fromkeys(r.learner for r in here):
            mine = [r for r in here if r.learner == name]
            cells = []
            for family in families:
                errors = np.array([r.error for r in mine if family_group(r) == family])
                cells.append(f"{np.median(errors):.4f} / {errors.mean():.4f}" if len(errors) else "")
            worse = np.mean([r.error > _WORSE * r.before for r in mine])
            better = np.mean([r.error < r.before for r in mine])
            shown.add_row(where, str(k), name, *cells, f"{worse:.0%}", f"{better:.0%}")
        shown.add_section()
    return shown


def main(arguments: Sequence[str]) -> None:
    """Adapt learners to 4, 16 and 64 explained rows of the held-out models, with 2M coalitions per row and with none."""
    parser = ArgumentParser(prog="captum-meta benchmark adaptation", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="only a few models of every family")
    text = "names of shipped learners, or paths given to save(); default: all shipped ones, and methods to compare with"
    parser.add_argument("--learners", nargs="*", metavar="LEARNER", default=(), help=text)
    add_output(parser, Path("runs/adaptation.jsonl"))
    add_references(parser)
    options = parser.parse_args(arguments)
    try:
        chosen = learners(options.learners)
    except ValueError as error:
        parser.error(str(error))
    names = quick_names() if options.quick else held_out_names()
    references = options.references or options.output.parent / "references"
    results = run(names, chosen, options.output, references)
    console = Console(width=200)
    for budget in BUDGETS:
        console.print(table(results, budget))
    console.print(f"All results: {options.output}")
