"""Files to samples: videos, shards, streams, worlds. Tokenizers and networks are handed in, never imported."""
