"""What the evaluation step is made of."""
