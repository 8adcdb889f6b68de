"""Do the intervals and tests keep their promise on simulated truth? python -m analysis.calibration."""
