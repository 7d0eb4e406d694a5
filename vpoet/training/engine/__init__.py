"""Engines: what computes a step over one process or many."""
