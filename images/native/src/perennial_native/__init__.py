"""The inner loops of serving, in C. A leaf: imports none of the other packages."""
