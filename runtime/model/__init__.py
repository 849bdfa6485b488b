"""Model bundle: manifest, calibration, temporal classifier, video score, and the bundled model."""
