"""Sequences of interleaved text, image and video tokens: pure integers, no networks."""
