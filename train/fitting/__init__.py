"""Training of the backbone, the head and the temporal classifier, and calibration."""
