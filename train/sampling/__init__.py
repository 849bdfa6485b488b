"""Training batches: clips in memory, augmentation, pairs of real and fake crops."""
