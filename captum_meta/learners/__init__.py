"""Meta-learners: how an explainer adapts to one explained model from its support set."""

from captum_meta.learners._gradient import GradientLearner
from captum_meta.learners.anil import ANIL
from captum_meta.learners.base import MetaLearner
from captum_meta.learners.deep_kernel import DeepKernelTransfer
from captum_meta.learners.feature_maml import FeatureMAML
from captum_meta.learners.implicit_maml import ImplicitMAML
from captum_meta.learners.kernel_ridge import KernelRidge
from captum_meta.learners.learned_optimizer import LearnedOptimizer
from captum_meta.learners.maml import MAML
from captum_meta.learners.matching import MatchingNetwork
from captum_meta.learners.meta_sgd import MetaSGD
from captum_meta.learners.momentum_maml import MomentumMAML
from captum_meta.learners.prototypical import PrototypicalNetwork
from captum_meta.learners.reptile import Reptile
from captum_meta.learners.ridge import Ridge
from captum_meta.learners.stacking import Stacking
from captum_meta.learners.storage import list_learners, load_learner
from captum_meta.learners.transfer_process import TransferGaussianProcess
from captum_meta.learners.zero_shot import ZeroShot

__all__ = [
    "ANIL",
    "MAML",
    "DeepKernelTransfer",
    "FeatureMAML",
    "GradientLearner",
    "ImplicitMAML",
    "KernelRidge",
    "LearnedOptimizer",
    "MatchingNetwork",
    "MetaLearner",
    "MetaSGD",
    "MomentumMAML",
    "PrototypicalNetwork",
    "Reptile",
    "Ridge",
    "Stacking",
    "TransferGaussianProcess",
    "ZeroShot",
    "list_learners",
    "load_learner",
]
