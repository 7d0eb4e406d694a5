"""Worlds that are drawn, not filmed: endless clips whose captions and ground truth are exactly true."""
