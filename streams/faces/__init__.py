"""Faces in frames: detection, tracking by optical flow, and the crop that training and runtime share."""
