"""Meta-learned explainers for Captum."""

__version__ = "0.2.0"
