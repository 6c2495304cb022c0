"""A new pipeline's folder: written from what a sample of the data looks like."""
