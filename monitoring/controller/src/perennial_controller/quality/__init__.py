"""The quality exporter: predictions and labels as they come, joined, and measured over a rolling window."""
