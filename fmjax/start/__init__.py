"""What a run starts from: its own checkpoints, another's parameters, or chance."""
