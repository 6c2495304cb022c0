"""KServe's SDK with a model of its own, which answers both protocols: `kserve_server.py PORT MODEL`.

Its line per request in the log is turned off: as fast as it can be.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import kserve  # type: ignore[import-not-found]
import numpy as np
import xgboost
from kserve.utils.utils import get_predict_response  # type: ignore[import-not-found]


class Trees(kserve.Model):  # type: ignore[misc]
    def __init__(self, model: Path) -> None:
        super().__init__("bench")
        self._booster = xgboost.Booster(model_file=model / "bare.json")
        self._booster.set_param({"nthread": 1})
        self.ready = True

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        v1 = isinstance(payload, dict)
        rows = np.array(payload["instances"], dtype=np.float32) if v1 else payload.inputs[0].as_numpy()
        return get_predict_response(payload, self._booster.inplace_predict(rows), self.name)


if __name__ == "__main__":
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    kserve.ModelServer(http_port=port, workers=1, enable_grpc=False, enable_latency_logging=False).start(
        [Trees(folder)]
    )
