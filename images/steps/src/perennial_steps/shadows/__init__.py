"""Champion and shadow on the very same rows: `pairs` reads them out of the prediction log, `agreement` says how far apart they are."""
