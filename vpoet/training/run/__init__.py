"""What a run leaves on disk: its folder, checkpoints, curves and where it came from."""
