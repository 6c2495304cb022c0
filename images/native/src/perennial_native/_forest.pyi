"""The compiled part of `forest`: use that."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np

@final
class Forest:
    def __new__(cls, features: int, outputs: int, transform: str, arrays: Mapping[str, Any]) -> Forest: ...
    def predict(self, matrix: Any, /) -> np.ndarray[Any, np.dtype[np.float64]]: ...
