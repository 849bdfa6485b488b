"""Evaluation of a model on labelled videos, and its report."""
