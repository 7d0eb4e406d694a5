"""Files to samples: sources, clips, shards, streams. Tokenizers and networks are handed in, never imported."""
