"""Training a pack of runs: data, models, fusion, optimizer, the loop, checkpoints. No Ray and no W&B."""
