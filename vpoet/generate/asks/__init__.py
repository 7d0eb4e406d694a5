"""What a request comes to: one family of requests a file, listed in `table`."""
