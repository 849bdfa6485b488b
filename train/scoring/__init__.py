"""Scoring of labelled clips with a model, and metrics of the scores."""
