"""`perennial` and `python -m perennial_cli`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; an error that a user can mend is shown without a traceback."""
    from perennial_cli.app import make_app
    from perennial_spec.errors import PerennialError

    try:
        make_app()(prog_name="perennial")
    except PerennialError as error:
        from perennial_cli.console import show_error

        show_error(error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
