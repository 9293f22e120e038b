"""Inner loops: update rules, hypergradients, and networks whose weights differ from task to task."""

from captum_meta.optim.hypergradients import Backprop, FirstOrder, Hypergradient, iterates
from captum_meta.optim.implicit import Implicit
from captum_meta.optim.per_task import call_per_task
from captum_meta.optim.problem import InnerProblem, Tensors
from captum_meta.optim.rules import SGD, Clipped, ElementwiseSGD, UpdateRule

__all__ = [
    "SGD",
    "Backprop",
    "Clipped",
    "ElementwiseSGD",
    "FirstOrder",
    "Hypergradient",
    "Implicit",
    "InnerProblem",
    "Tensors",
    "UpdateRule",
    "call_per_task",
    "iterates",
]
