"""Everything around training: the plan, Ray Tune, the workers, recording, W&B, progress and status."""

import os

# Ray reads this as it is imported. Deaths of workers are told by us, once.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed|Raylet is terminated|marked dead")
