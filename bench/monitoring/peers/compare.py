"""The peer: Evidently's data drift report on two data frames. Prints JSON: seconds of the comparison, and the process's largest memory.

python compare.py REFERENCE.npy CURRENT.npy
"""

import json
import resource
import sys
import time

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report  # type: ignore[import-not-found]
from evidently.presets import DataDriftPreset  # type: ignore[import-not-found]

frames = [pd.DataFrame(np.load(file)).add_prefix("feature_") for file in sys.argv[1:3]]
definition = DataDefinition(numerical_columns=list(frames[0].columns))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
reference, current = (Dataset.from_pandas(frame, data_definition=definition) for frame in frames)
Report([DataDriftPreset(num_method="psi")]).run(current, reference)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "mb": peak / 1024, "before_mb": before / 1024}))
