"""`python -m perennial_controller`: listen until told to end."""

from __future__ import annotations

import sys

from perennial_spec.errors import PerennialError


def main() -> int:
    """Run the controller in this process; the exit code."""
    from perennial_controller.app import make_app
    from perennial_controller.controller import Controller
    from perennial_controller.serve import serve
    from perennial_controller.settings import Settings

    try:
        settings = Settings.from_environment()
        serve(make_app(Controller.of(settings)), settings.host, settings.port)
    except PerennialError as error:
        print(error, file=sys.stderr)  # noqa: T201 (the message for the person who starts it)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
