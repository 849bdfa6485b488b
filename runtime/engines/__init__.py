"""Inference engines: interface, choice, cache, and the implementations for CPU and GPU."""
