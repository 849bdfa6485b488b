"""Inference engines: their choice, their interface, and the CPU and GPU implementations."""
