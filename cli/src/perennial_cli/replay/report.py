"""What a replay came to, as a table."""

from __future__ import annotations

from rich.table import Table

from perennial_cli.replay.engine import Progress


def report(progress: Progress) -> Table:
    """Requests, failures, latency as the client saw it, and which version answered how often."""
    table = Table(show_header=False)
    table.add_row("requests", f"{progress.requests:,}")
    table.add_row("rows", f"{progress.rows:,}")
    table.add_row("labels", f"{progress.labels:,}")
    table.add_row("failed", f"{progress.failed:,}")
    if progress.latencies:
        ordered = sorted(progress.latencies)
        median, high = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
        table.add_row("latency", f"median {median * 1000:.1f} ms, 99th percentile {high * 1000:.1f} ms")
    for version, count in sorted(progress.versions.items()):
        table.add_row(f"answered by {version}", f"{count:,} requests")
    for failure in progress.failures[-3:]:
        table.add_row("failure", failure)
    return table
