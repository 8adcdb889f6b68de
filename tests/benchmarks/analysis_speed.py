"""The analysis: its crossed bootstrap, the whole report of a paper-size ledger, and how both grow with the records."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from analysis.stats.crossed import crossed_bootstrap
from tests import synthetic
from tests.benchmarks import harness

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
RECORDS = (90, 360, 1_080, 3_240, 9_990)
"""Of 3 models × 6 learning rates; 360 is the paper study."""


def main() -> None:
    """Print both and append them to results.jsonl."""
    bootstrap()
    growth()


def bootstrap(rounds: int = 5) -> None:
    """10,000 resamples of 20 seeds × 10,000 digits, on one core."""
    rng = np.random.default_rng(0)
    gaps = (rng.random((20, 10_000)) < 0.02).astype(np.int8) - (rng.random((20, 10_000)) < 0.01)
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        crossed_bootstrap(gaps, 10_000, 0)
        seconds.append(time.process_time() - began)
    harness.record("crossed_bootstrap", processor_seconds=np.round(seconds, 2).tolist())
    print(f"crossed bootstrap, 10,000 × (20 seeds × 10,000 digits): {np.median(seconds):.1f} s, median of {rounds}")


def growth() -> None:
    """`python -m analysis` on ledgers of more and more records that no one trained."""
    print("python -m analysis, whole report; 10 epochs and 15,000 predicted digits a run")
    for records in RECORDS:
        seeds = records // (3 * len(RATES))
        with tempfile.TemporaryDirectory() as folder:
            ledger = synthetic.write(
                Path(folder), learning_rates=RATES, seeds=seeds, epochs=10, n_test=10_000, n_val=5_000
            )
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", "analysis", str(ledger)], check=True, capture_output=True)
            wall = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        # The ledgers grow, so the largest child so far is this one.
        peak = after.ru_maxrss / 1024
        harness.record(
            "analysis", records=records, seconds=round(wall, 1), processor_seconds=round(cpu, 1), peak_mib=round(peak)
        )
        print(
            f"  {records:,} records: {wall:.0f} s, {cpu:.0f} s of processor time, at most {peak:,.0f} MiB", flush=True
        )


if __name__ == "__main__":
    main()
