"""Small typed clients of the platform's own HTTP interfaces, for people's commands."""
