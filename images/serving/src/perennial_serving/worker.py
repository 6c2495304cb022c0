"""`python -m perennial_serving.worker POST`: one of several model servers on one port; `workers` starts it."""

from __future__ import annotations

import json
import socket
import sys

from perennial_serving.lean import import_libraries
from perennial_spec.errors import PerennialError


def main() -> int:
    """Serve until the supervisor, or the end of it, says otherwise. 0 when it ended in order, 1 when it could not start."""
    import_libraries()
    from perennial_serving.http_server import run
    from perennial_serving.listening import log_to_stderr
    from perennial_serving.place import Place
    from perennial_serving.post import Post
    from perennial_serving.server import assemble, server_of
    from perennial_serving.settings import Settings
    from perennial_spec.platform import Platform

    post = Post(**json.loads(sys.argv[1]))
    log_to_stderr(f"worker {post.slot}")
    try:
        settings = Settings.from_environment()
        place = Place(post)
        server = server_of(assemble(Platform.from_environment(), settings, place))
        status = run(server, socket.socket(fileno=post.listener))
    except PerennialError as error:
        print(error, file=sys.stderr)  # noqa: T201 (for the person who started it)
        return error.exit_code
    place.leave()
    return status


if __name__ == "__main__":
    sys.exit(main())
