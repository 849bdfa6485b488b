"""CPU time of a verdict: the original method (dlib and an 80-frame clip) against unmask."""
