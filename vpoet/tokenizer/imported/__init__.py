"""Tokenizers that others have trained: their networks, written here, and readers of their files."""
