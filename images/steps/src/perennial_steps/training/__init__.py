"""What the training step is made of."""
