"""Taking the traffic back, as the controller does it by itself: the same writes as by hand, to the version that the ledger names."""

from __future__ import annotations

from dataclasses import dataclass

from perennial_controller.entry import Entry
from perennial_registry.mlflow_rest import Patience
from perennial_registry.registry import Registry
from perennial_registry.restore import Restoration, plan, restore
from perennial_spec.errors import PerennialError

ACTOR = "perennial"
_PATIENCE = Patience(read=10.0, attempts=1)
"""The outbox tries again, and says so in the ledger."""


class Overtaken(PerennialError):
    """Somebody else has moved the traffic since the decision: there is nothing left to take back."""


@dataclass(frozen=True)
class Rollbacks:
    """The registry of one MLflow server; see `perennial_registry.restore` for what is written in which order."""

    mlflow_url: str

    def take_back(self, entry: Entry) -> str:
        """Do what a row of the ledger has decided; done again, it changes nothing. In words what it came to.

        Raises:
            Overtaken: the version that the alert is about is champion no longer.
            RegistryError: the registry is away, or somebody else changed the route at the same time.
        """
        event, target = entry.event(), entry.model_version
        with Registry(self.mlflow_url, _PATIENCE) as registry:
            planned = plan(registry, entry.pipeline, target, force=True)
            if _overtaken(planned, event.version):
                champion = planned.champion.version if planned.champion else "none"
                raise Overtaken(f"champion is version {champion} now, and the alert is about version {event.version}")
            if planned.is_done:
                return f"{entry.pipeline}: {planned}"
            route = restore(registry, planned, ACTOR, f"{entry.summary} (decision {entry.id})")
        return f"{entry.pipeline}: {planned} (revision {route.revision})"


def _overtaken(planned: Restoration, leaving: str | None) -> bool:
    champion = planned.champion.version if planned.champion else None
    return champion not in {leaving, planned.target.version}
