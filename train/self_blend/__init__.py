"""Self-blended videos for training: real faces blended, frame by frame, with perturbed copies."""
