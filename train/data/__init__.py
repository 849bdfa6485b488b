"""Data sets: layouts, splits, face clips and their shards."""
