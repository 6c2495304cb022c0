"""Every pipeline in `pipelines/` as two Airflow DAGs: `<name>` trains and deploys, `<name>.data` lands new data."""

from pathlib import Path

from perennial_operators import build_dags

globals().update(build_dags(Path(__file__).parent / "pipelines"))
