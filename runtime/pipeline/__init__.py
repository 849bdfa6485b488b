"""Analysis of streams and files: windows and decisions per face, stream states, batches, threads."""
