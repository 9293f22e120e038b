"""Shapley values, interactions and path integrals from finitely many evaluations, and bounds from calibration rows."""

from captum_meta.estimators.alike import shapley_matrix
from captum_meta.estimators.coalitions import plan_coalitions, sample_coalitions
from captum_meta.estimators.conformal import (
    binomial_tail,
    chance_of_no_quantile,
    conformal_quantile,
    exceedance_tail,
    likely_limit,
    passing_ratios,
    rows_needed,
    stopping_levels,
)
from captum_meta.estimators.difference_design import telling_differences
from captum_meta.estimators.exact import all_coalitions, shapley_values
from captum_meta.estimators.hypercube import HypercubePosterior
from captum_meta.estimators.input_process import InputProcess, value_distances
from captum_meta.estimators.interaction_process import InteractionProcess
from captum_meta.estimators.interactions import INDICES, Index, InteractionRule, interactions
from captum_meta.estimators.least_squares import kernel_matrix, kernel_shapley_values
from captum_meta.estimators.pair_design import telling_sums
from captum_meta.estimators.pairs import CoalitionPairs, HypercubePrior
from captum_meta.estimators.path_consistency import (
    explained_everywhere,
    inconsistent_gradients,
    smoothly_inconsistent,
    suspected_steps,
)
from captum_meta.estimators.path_intervals import PathIntervals, further_points
from captum_meta.estimators.path_nodes import is_bent, path_nodes
from captum_meta.estimators.path_sample import PathSample
from captum_meta.estimators.permutations import permutation_variance
from captum_meta.estimators.probability_process import ProbabilityProcess
from captum_meta.estimators.quadrature import gauss_legendre, interval_weights, quadrature_weights
from captum_meta.estimators.rate_likelihood import likely_rates, remembered_rates
from captum_meta.estimators.slope_check import DOUBTFUL, FAR, FINE, NEAR, PLACES, change_along, is_no_derivative, missed_part

__all__ = [
    "DOUBTFUL",
    "FAR",
    "FINE",
    "INDICES",
    "NEAR",
    "PLACES",
    "CoalitionPairs",
    "HypercubePosterior",
    "HypercubePrior",
    "Index",
    "InputProcess",
    "InteractionProcess",
    "InteractionRule",
    "PathIntervals",
    "PathSample",
    "ProbabilityProcess",
    "all_coalitions",
    "binomial_tail",
    "chance_of_no_quantile",
    "change_along",
    "conformal_quantile",
    "exceedance_tail",
    "explained_everywhere",
    "further_points",
    "gauss_legendre",
    "inconsistent_gradients",
    "interactions",
    "interval_weights",
    "is_bent",
    "is_no_derivative",
    "kernel_matrix",
    "kernel_shapley_values",
    "likely_limit",
    "likely_rates",
    "missed_part",
    "passing_ratios",
    "path_nodes",
    "permutation_variance",
    "plan_coalitions",
    "quadrature_weights",
    "remembered_rates",
    "rows_needed",
    "sample_coalitions",
    "shapley_matrix",
    "shapley_values",
    "smoothly_inconsistent",
    "stopping_levels",
    "suspected_steps",
    "telling_differences",
    "telling_sums",
    "value_distances",
]
