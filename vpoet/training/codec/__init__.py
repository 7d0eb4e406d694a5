"""Training of the video tokenizer."""
