"""Later data sent to the model server as clients would send it, many times faster than the clock, with labels as late as they are."""
