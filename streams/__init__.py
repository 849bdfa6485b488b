"""Live frames and faces: sources, reader, sampler, detector, tracker, crop, and the forgeries of the demo."""
