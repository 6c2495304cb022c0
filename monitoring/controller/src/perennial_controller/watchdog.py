"""The other end of the dead man's switch: notices that the alert which fires always has stopped coming.

Prometheus fires PerennialWatchdog all the time, and Alertmanager sends it here again and again. When it does not come, no alert comes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from perennial_controller.ledger import Ledger
from perennial_controller.marks import WATCHDOG
from perennial_spec.units import format_duration

log = logging.getLogger(__name__)


@dataclass
class Watchdog:
    """Looks when it last came. The moment is in the database: every controller knows of what another one received."""

    ledger: Ledger
    clock: Callable[[], datetime]
    after: timedelta
    """Without it for so long, alerts no longer arrive."""
    started: datetime
    """When this controller started: from then on somebody could have sent it."""
    warning: str = ""
    """What people must know; empty while all is well."""

    async def received(self) -> None:
        """It came."""
        await self.ledger.mark(WATCHDOG, self.clock())

    async def look(self) -> None:
        """Say so, once, when it has stopped coming, and when it is back."""
        last = await self.ledger.marked(WATCHDOG)
        late = self.clock() - max(last or self.started, self.started) > self.after
        warning = _words(last, self.after) if late else ""
        if warning and not self.warning:
            log.error("%s", warning)
        elif self.warning and not warning:
            log.info("PerennialWatchdog comes again: alerts arrive")
        self.warning = warning


def _words(last: datetime | None, after: timedelta) -> str:
    since = f"since {last:%Y-%m-%d %H:%M:%S} UTC" if last else "yet"
    return (
        f"PerennialWatchdog has not come {since}, though it fires always: for {format_duration(after)} or longer no alert can have "
        "arrived; look at Prometheus and Alertmanager (runbook PerennialAlertsNotReceived)"
    )
