"""Networks: the decoder-only transformer, its attention backends, rotary positions and KV cache."""
