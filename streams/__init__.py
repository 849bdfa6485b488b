"""Live frames and faces: sources, reader, sampler, face detector, tracker, crop and synthetic fakes."""
