"""Losses, optimiser, engines, checkpoints and tracking."""
