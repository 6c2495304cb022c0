"""The subcommands of `perennial`, one module each; a module is imported only when its command is called.

To add one: write `commands/<module>.py` with a function named `command` or like the module (a typer command; its docstring is its
help), or a `typer.Typer` named `app` (a command with subcommands of its own), and add a line to `COMMANDS`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One line of `perennial --help`."""

    module: str
    """Name of the module below `perennial_cli.commands`."""
    summary: str


COMMANDS: dict[str, Entry] = {
    "up": Entry("up", "Start the platform on this machine and wait until it is healthy."),
    "down": Entry("down", "End the platform; its state stays."),
    "status": Entry("status", "Show the platform's parts; with --watch, pipelines and their runs live."),
    "logs": Entry("logs", "Show the log of one part."),
    "demo": Entry("demo", "Watch the loop close on real flights."),
    "new": Entry("new", "Write a new pipeline's folder."),
    "check": Entry("check", "Check pipelines: spec, features, expectations, sources."),
    "run": Entry("run", "Train, evaluate and deploy now."),
    "ingest": Entry("ingest", "Land and validate what is new at the sources."),
    "history": Entry("history", "Tell what happened to a pipeline, the newest first."),
    "why": Entry("why", "Say what happened last, why, and what came of it."),
    "report": Entry("report", "Write the last days of a pipeline as one page with plots."),
    "approve": Entry("approve", "Approve the challenger that waits for a person."),
    "reject": Entry("reject", "Reject the challenger that waits for a person."),
    "promote": Entry("promote", "Make a version that passed its gates champion, now."),
    "rollback": Entry("rollback", "Take all of the traffic back, now."),
    "retire": Entry("retire", "Archive the versions whose time is over."),
    "pause": Entry("pause", "Let no alert start a retraining for a while."),
    "resume": Entry("resume", "Let alerts start retrainings again."),
    "step": Entry("step", "Run one step by hand."),
    "replay": Entry("replay", "Send later data to the model server as clients would."),
    "schema": Entry("schema", "Print the JSON Schema of pipeline.yaml."),
}
"""In the order in which they are shown."""
