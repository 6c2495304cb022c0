"""`python -m perennial_controller.quality`: export live quality until told to end."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from perennial_spec.errors import PerennialError


def main() -> int:
    """Run the exporter in this process; the exit code."""
    from perennial_controller.quality.app import make_app
    from perennial_controller.quality.exporter import Exporter
    from perennial_controller.serve import serve
    from perennial_controller.settings import DEFAULT_QUALITY_PORT, Settings
    from perennial_controller.specs import Specs

    try:
        settings = Settings.from_environment(port=DEFAULT_QUALITY_PORT)
        specs = Specs(Path(settings.platform.need("pipelines_dir")))
        exporter = Exporter(settings.platform.need("store"), specs, lambda: time.time_ns() // 1000)
        serve(make_app(exporter, settings.reload_every), settings.host, settings.port)
    except PerennialError as error:
        print(error, file=sys.stderr)  # noqa: T201 (the message for the person who starts it)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
