"""Devices of this machine as sources: webcams and screens, by operating system."""
