"""Errors of the shipped weights on a small fixed part of the benchmark.

`python -m tests.benchmark.floor` writes them into floor.json; do so when new weights are shipped, and not otherwise.
"""

import json
from math import exp, log
from pathlib import Path
from statistics import mean

from captum_meta.benchmark.heldout import load_held_out, reference
from captum_meta.benchmark.methods import METHODS
from captum_meta.functional import attribution_error

RECORDED = Path(__file__).with_name("floor.json")
PROBLEMS = {
    "shapley": [
        "wine/mlp/probability/row",
        "diabetes/residual/value/row",
        "diabetes/trees/value/row",
        "digits-rows/rnn/logit/zero",
    ],
    "path": [
        "wine/mlp/probability/row",
        "wine/residual/logit/zero",
        "diabetes/mlp/value/zero",
        "breast-cancer/mlp/probability/row",
    ],
}
BUDGETS = {"shapley": (2, 8), "path": (3, 10)}


def errors() -> dict[str, float]:
    """Geometric means over the problems, for each kind, method of ours and budget."""
    found = {}
    for kind, names in PROBLEMS.items():
        problems = [load_held_out(name) for name in names]
        references = [reference(problem, kind).double() for problem in problems]
        for label in (name for name in METHODS[kind] if name.startswith("Meta")):
            for budget in BUDGETS[kind]:
                logs = []
                for problem, right in zip(problems, references, strict=True):
                    cost = budget if kind == "path" else budget * problem.n_players + problem.base_cost
                    values = METHODS[kind][label](problem, cost).double()
                    logs.append(log(float(attribution_error(values, right))))
                found[f"{label}, {budget}"] = exp(mean(logs))
    return found


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(errors(), indent=1) + "\n")
    print(RECORDED.read_text())
