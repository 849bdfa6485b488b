"""Sources of frames: parsing, opening, decoding, sampling and handing frames over between threads."""
