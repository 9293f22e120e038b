"""Inner loops: update rules, hypergradients, and networks whose weights differ from task to task."""

from captum_meta.optim.annealed import Annealed
from captum_meta.optim.coordinatewise_lstm import CoordinatewiseLSTM
from captum_meta.optim.coordinatewise_mlp import CoordinatewiseMLP
from captum_meta.optim.hypergradients import Backprop, FirstOrder, Hypergradient, iterates
from captum_meta.optim.implicit import Implicit
from captum_meta.optim.loop import InnerLoop
from captum_meta.optim.multi_step import MultiStepLoss
from captum_meta.optim.per_task import call_per_task
from captum_meta.optim.persistent_es import PersistentES
from captum_meta.optim.plain import Adam, GradientDescent, RMSProp
from captum_meta.optim.preconditioned import Preconditioned
from captum_meta.optim.problem import InnerProblem, Tensors
from captum_meta.optim.reversible import Reversible
from captum_meta.optim.rules import SGD, Clipped, ElementwiseSGD, MomentumSGD, UpdateRule
from captum_meta.optim.segmented import Segmented
from captum_meta.optim.truncated import Truncated

__all__ = [
    "SGD",
    "Adam",
    "Annealed",
    "Backprop",
    "Clipped",
    "CoordinatewiseLSTM",
    "CoordinatewiseMLP",
    "ElementwiseSGD",
    "FirstOrder",
    "GradientDescent",
    "Hypergradient",
    "Implicit",
    "InnerLoop",
    "InnerProblem",
    "MomentumSGD",
    "MultiStepLoss",
    "PersistentES",
    "Preconditioned",
    "RMSProp",
    "Reversible",
    "Segmented",
    "Tensors",
    "Truncated",
    "UpdateRule",
    "call_per_task",
    "iterates",
]
