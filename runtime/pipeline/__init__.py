"""Live analysis: per-face windows and decisions, stream states, batching, and the threads that run them."""
