"""Held-out models, peers at equal cost, and their comparison; the same on a model of your own."""

from captum_meta.benchmark.own_model import benchmark_model
from captum_meta.benchmark.report import Measurement, ModelBenchmark

__all__ = ["Measurement", "ModelBenchmark", "benchmark_model"]
