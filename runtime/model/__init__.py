"""Model bundle: manifest, calibration, temporal classifier, score of a video, and the bundled model."""
