"""The controller's timeline and overview, in the terminal."""
