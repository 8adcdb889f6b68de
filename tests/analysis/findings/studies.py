"""The studies that tests of findings are made of, and ways through their findings."""

import json
from itertools import product

from analysis.stats.estimate import Estimate
from tests.synthetic import Truth

FAST = {"resamples": 200}
STATES = {
    ("lenet5", 0.01, 1): "diverged",
    ("mlp", 0.01, 2): "failed",
    ("mlp", 0.03, 0): "missing",
    ("mlp_matched", 0.003, 3): "collapsed",
}
RATES = (0.003, 0.01, 0.03)
MODELS = {
    "lenet5": Truth(2.5, 2.0, 0.2, 44_426),
    "mlp": Truth(2.2, 2.0, 0.2, 469_160),
    "mlp_matched": Truth(1.9, 2.0, 0.2, 44_439),
}
"""So many errors that no two seeds of a few hundred digits come out alike."""
ONE = Truth(1.5, 1.0, 0.1)
TWO = {"first": ONE, "second": Truth(1.3, 1.0, 0.1)}
EVERY = list(product(TWO, RATES, range(4)))


def estimates(value):
    """Every estimate in a tree of findings, with its path."""
    if isinstance(value, Estimate):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from estimates(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from estimates(part)
    elif hasattr(type(value), "model_fields"):
        for name in type(value).model_fields:
            yield from estimates(getattr(value, name))


def strict(text):
    """JSON, and nothing that only Python takes for it."""

    def refuse(constant):
        raise AssertionError(f"{constant} in findings.json")

    return json.loads(text, parse_constant=refuse)
