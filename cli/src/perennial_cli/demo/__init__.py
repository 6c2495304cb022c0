"""The demonstration: real flights of 2013, delivered as the world delivered them, until the loop has closed."""
