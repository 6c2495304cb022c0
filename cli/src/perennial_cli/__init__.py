"""perennial: the command line, and the embedded platform on one machine."""
