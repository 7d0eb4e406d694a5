"""From prompts to video: bundles, decoding, sampling."""
