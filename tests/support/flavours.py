"""Models of several MLflow flavours, logged and registered as their users do it."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

RULES = '''
import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel


class Rules(PythonModel):
    """Two scores per row: a discount, and a risk."""

    def predict(self, context, model_input, params=None):
        if (model_input["amount"] == 666.0).any():
            raise ValueError(f"cannot do with {model_input['plan'].tolist()}")
        loyal = (pd.Timestamp("2020-01-01") - model_input["since"]).dt.days.fillna(0).clip(lower=0)
        discount = np.where(model_input["vip"], 0.2, 0.0) + 0.01 * model_input["visits"] + loyal / 36500
        risk = model_input["amount"].fillna(0.0) / 1000 + (model_input["plan"].fillna("none") == "none")
        return pd.DataFrame({"discount": discount.astype(float), "risk": risk.astype(float)})


mlflow.models.set_model(Rules())
'''
SLOW = '''
import os, signal, time
import mlflow
from mlflow.pyfunc import PythonModel


class Slow(PythonModel):
    """Sleeps as long as it is told to, and kills its process when that is less than nothing."""

    def predict(self, context, model_input, params=None):
        for seconds in model_input["seconds"]:
            if seconds < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(seconds)
        return model_input["seconds"].to_numpy() + model_input["more"].to_numpy()


mlflow.models.set_model(Slow())
'''
UNSOUND = '''
import mlflow
from mlflow.pyfunc import PythonModel


class Unsound(PythonModel):
    """Cannot answer its own example."""

    def predict(self, context, model_input, params=None):
        raise ArithmeticError("not today")


mlflow.models.set_model(Unsound())
'''
LACKING = UNSOUND.replace(
    "    def predict", "    def load_context(self, context):\n        import no_such_library\n\n    def predict"
)


class Logging:
    """Logs models to a registry; `folder` is for the code of those that are code."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        folder.mkdir(parents=True, exist_ok=True)

    def rules(self, name: str) -> str:
        """float64[rows, 2] from amount, visits, vip, plan (may be missing), since."""
        return self._code(name, RULES, rules_frame(), np.zeros((2, 2)))

    def slow(self, name: str) -> str:
        """seconds + more, after so many seconds."""
        import pandas as pd

        return self._code(name, SLOW, pd.DataFrame({"seconds": [0.0], "more": [0.5]}), np.array([0.5]))

    def unsound(self, name: str) -> str:
        return self._code(name, UNSOUND, rules_frame(), np.zeros(2))

    def lacking(self, name: str) -> str:
        return self._code(name, LACKING, rules_frame(), np.zeros(2))

    def texts(self, name: str) -> tuple[str, Any]:
        """A scikit-learn classifier whose classes are "no" and "yes", from age and plan; and the classifier."""
        import pandas as pd
        from sklearn.compose import ColumnTransformer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder

        rng = np.random.default_rng(1)
        frame = pd.DataFrame({"age": rng.uniform(18, 80, 200), "plan": rng.choice(["a", "b", "c"], 200)})
        answer = np.where((frame["age"] > 40) & (frame["plan"] != "a"), "yes", "no")
        encode = ColumnTransformer(
            [("plan", OneHotEncoder(handle_unknown="ignore"), ["plan"])], remainder="passthrough"
        )
        model = make_pipeline(encode, LogisticRegression(max_iter=1000)).fit(frame, answer)
        return self._logged("sklearn", name, model, frame[:3], model.predict(frame)), model

    def boosted(self, name: str, rounds: int = 20) -> tuple[str, Any]:
        """A LightGBM regressor from x and y, which may be missing; and the regressor."""
        import lightgbm
        import pandas as pd

        rng = np.random.default_rng(2)
        frame = pd.DataFrame({"x": rng.normal(size=300), "y": rng.normal(size=300)})
        frame.loc[::7, "y"] = np.nan
        target = frame["x"] * 2 + frame["y"].fillna(0)
        model = lightgbm.LGBMRegressor(n_estimators=rounds, n_jobs=1, verbose=-1).fit(frame, target)
        return self._logged("lightgbm", name, model, frame[:3], model.predict(frame)), model

    def matrix(self, name: str) -> str:
        """A scikit-learn regressor of a matrix without names: x0 + 10 x1 + 100 x2, and its negative."""
        from sklearn.linear_model import LinearRegression

        inputs = np.random.default_rng(3).normal(size=(50, 3))
        answer = inputs @ np.array([1.0, 10.0, 100.0])
        model = LinearRegression().fit(inputs, np.column_stack([answer, -answer]))
        return self._logged("sklearn", name, model, inputs[:2], model.predict(inputs))

    def torch(self, name: str) -> str:
        """A network of PyTorch: a matrix of 2 columns in, x0 + 10 x1 and x0 - x1 out."""
        torch: Any = importlib.import_module("torch")  # which mypy need not find
        layer = torch.nn.Linear(2, 2)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[1.0, 10.0], [1.0, -1.0]]))
            layer.bias.zero_()
        inputs = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
        return self._logged("pytorch", name, layer, inputs, np.zeros((2, 2), dtype=np.float32))

    def unsigned(self, name: str) -> str:
        """Without a signature."""
        import mlflow.sklearn
        from sklearn.dummy import DummyRegressor

        self._connect()
        model = DummyRegressor().fit([[0.0], [1.0]], [0.0, 1.0])
        found = mlflow.sklearn.log_model(model, name="model", registered_model_name=name, pip_requirements=[])
        return str(found.registered_model_version)

    def _code(self, name: str, code: str, example: Any, output: Any) -> str:
        file = self._folder / f"{name}.py"
        file.write_text(code)
        return self._logged("pyfunc", name, str(file), example, output)

    def _logged(self, flavour: str, name: str, model: Any, example: Any, output: Any) -> str:
        import mlflow.models

        self._connect()
        module = importlib.import_module(f"mlflow.{flavour}")
        given = {"python_model": model} if flavour == "pyfunc" else {}
        found = module.log_model(
            *(() if given else (model,)),
            **given,
            name="model",
            registered_model_name=name,
            signature=mlflow.models.infer_signature(example, output),
            input_example=example,
            pip_requirements=[],
        )
        return str(found.registered_model_version)

    def _connect(self) -> None:
        os.environ["MLFLOW_UV_AUTO_DETECT"] = (
            "false"  # else the lock of the project that this runs in becomes the model's
        )
        import mlflow

        mlflow.set_tracking_uri(self._url)


def rules_frame() -> Any:
    """Two rows for the rules, the second with what may be missing."""
    import pandas as pd

    return pd.DataFrame(
        {
            "amount": [100.0, np.nan],
            "visits": [3, 4],
            "vip": [True, False],
            "plan": ["a", None],
            "since": np.array(["2015-05-01", "NaT"], dtype="datetime64[ns]"),
        }
    )
