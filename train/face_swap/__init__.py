"""Face swaps for training: small autoencoders fitted to the real faces of a manifest, and their videos."""
