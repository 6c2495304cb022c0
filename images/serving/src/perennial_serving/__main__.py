"""`python -m perennial_serving`: the model server as a process, or as several, configured by its environment alone."""

from __future__ import annotations

import sys

from perennial_spec.errors import PerennialError


def main() -> int:
    """Serve until SIGTERM or SIGINT. 0 when it ended in order, 1 when it could not start."""
    from perennial_serving.listening import listen, log_to_stderr
    from perennial_serving.settings import Settings

    log_to_stderr()
    try:
        settings = Settings.from_environment()
        if settings.workers > 1:
            from perennial_serving.workers import supervise

            return supervise(settings)
        from perennial_serving.lean import import_libraries

        import_libraries()
        from perennial_serving.http_server import run
        from perennial_serving.server import assemble, server_of
        from perennial_spec.platform import Platform

        parts = assemble(Platform.from_environment(), settings)
        sock = listen(settings)
        return run(server_of(parts), sock)
    except PerennialError as error:
        print(error, file=sys.stderr)  # noqa: T201 (for the person who started it)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
