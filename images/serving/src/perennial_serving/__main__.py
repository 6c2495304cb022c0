"""`python -m perennial_serving`: the model server as a process, configured by its environment alone."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from perennial_spec.errors import PerennialError


def main() -> int:
    """Serve until SIGTERM or SIGINT. 0 when it ended in order, 1 when it could not start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for chatty in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        return _serve()
    except PerennialError as error:
        print(error, file=sys.stderr)  # noqa: T201 (for the person who started it)
        return error.exit_code


def _serve() -> int:
    import uvloop

    from perennial_serving.server import assemble, listen, server_of
    from perennial_serving.settings import Settings
    from perennial_spec.platform import Platform

    settings = Settings.from_environment()
    parts = assemble(Platform.from_environment(), settings)
    sock = listen(settings)
    host, port = sock.getsockname()[:2]
    logging.getLogger("perennial_serving").info("listening on http://%s:%s", f"[{host}]" if ":" in host else host, port)
    server = server_of(parts)

    def end(*_: object) -> None:
        if not server.should_exit:  # uvicorn raises the signal again after it has obeyed it
            sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets=[sock]))
    if server.failure is not None:
        raise server.failure
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
