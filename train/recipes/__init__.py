"""Config files and commands of published models."""
