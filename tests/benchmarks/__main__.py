"""Runs every benchmark: `make bench`, or `python -m tests.benchmarks NAME …`."""

from __future__ import annotations

import importlib
import sys

ALL = ("training_speed", "bookkeeping", "memory", "analysis_speed", "scheduler", "storage", "whole_study")

for name in sys.argv[1:] or ALL:
    if name not in ALL:
        sys.exit(f"error: found benchmark {name!r}; allowed: {', '.join(ALL)}")
    importlib.import_module(f"tests.benchmarks.{name}").main()
