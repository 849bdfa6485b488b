"""Sources of frames: parsing, opening, decoding, sampling, and the queue between reader and analysis."""
