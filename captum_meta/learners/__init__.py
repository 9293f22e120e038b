"""Meta-learners: how an explainer adapts to one explained model from its support set."""

from captum_meta.learners.base import MetaLearner
from captum_meta.learners.ridge import Ridge
from captum_meta.learners.storage import list_learners, load_learner
from captum_meta.learners.zero_shot import ZeroShot

__all__ = ["MetaLearner", "Ridge", "ZeroShot", "list_learners", "load_learner"]
