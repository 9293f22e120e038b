"""Held-out models, peers at equal cost, and the comparison of both."""
