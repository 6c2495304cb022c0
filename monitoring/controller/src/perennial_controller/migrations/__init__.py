"""The ledger's schema, version by version; applied when the controller starts."""
