"""Everything around training: the plan, Ray Tune, the workers, recording, W&B, progress and status."""
