"""The pipeline's own feature function: loading it, calling it, and holding it to its contract.

`def features(columns): ...` takes a mapping of one-dimensional numpy arrays of one length and returns a mapping of one-dimensional
arrays of that length, or scalars. The same code runs in training on millions of rows and in the model server on one.
"""

from __future__ import annotations

import hashlib
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from perennial_spec import names
from perennial_spec.errors import FeatureError, nearest

Array = np.ndarray[Any, np.dtype[Any]]
Columns = Mapping[str, Array]

CONTRACT = "a mapping of feature names to one-dimensional numpy arrays, one value per row, or scalars"
FORBIDDEN_IN_NAMES = "[]<"
"""XGBoost refuses them in feature names."""


@dataclass(frozen=True)
class FeatureCode:
    """A feature function, and where it was read from."""

    file: Path
    function: str
    call: Callable[[Mapping[str, Array]], Any]

    def apply(self, columns: Columns) -> dict[str, Array]:
        """The features of `columns`: per name a 1-d array, numeric (float, integer, boolean) or object (text, None is missing).

        Args:
            columns: 1-d arrays of one length. The function sees them read-only.

        Raises:
            FeatureError: the function raises, or does not keep its contract; with the file and line of the user's code.
        """
        return self.trace(columns)[0]

    def trace(self, columns: Columns) -> tuple[dict[str, Array], tuple[str, ...]]:
        """As `apply`, and the names of the columns that the function read, in their order in `columns`."""
        rows = _row_count(columns, self.where)
        seen = _Recorder({name: _read_only(values) for name, values in columns.items()})
        with np.errstate(all="ignore"):  # NaN is a missing value here, and not news
            try:
                returned = self.call(seen)
            except Exception as error:
                raise self._raised(error, columns) from error
        if not isinstance(returned, Mapping):
            raise self._broke(f"returned {_a(returned)}")
        if not returned:
            raise self._broke("returned no features")
        features = {self._name(name): self._array(name, value, rows) for name, value in returned.items()}
        return features, tuple(name for name in columns if name in seen.read)

    @property
    def where(self) -> str:
        code: CodeType | None = getattr(self.call, "__code__", None)
        return f"{self.file}:{code.co_firstlineno}" if code else str(self.file)

    def _raised(self, error: Exception, columns: Columns) -> FeatureError:
        what = f"{self.function}() raised {type(error).__name__}: {error}"
        expected = next_ = ""
        if isinstance(error, KeyError) and error.args and error.args[0] not in columns:
            missing = str(error.args[0])
            guess = nearest(missing, columns)
            what = f"{self.function}() reads the column {missing!r}, which is not among the inputs"
            what += f"; did you mean {guess!r}?" if guess else ""
            expected = f"one of {', '.join(columns)}"
            next_ = "the label, model.group, and excluded, sensitive and dropped columns never reach a model: see pipeline.yaml"
        elif "read-only" in str(error):
            next_ = "the inputs are read-only: copy before changing, as in columns['x'].copy()"
        return FeatureError(what, where=line_of(error, self.file) or self.where, expected=expected, next=next_)

    def _broke(self, what: str, next: str = "") -> FeatureError:
        return FeatureError(f"{self.function}() {what}", where=self.where, expected=CONTRACT, next=next)

    def _name(self, name: Any) -> str:
        if not isinstance(name, str) or not name or len(name) > 128 or set(name) & set(FORBIDDEN_IN_NAMES):
            raise self._broke(f"named a feature {name!r}", f"use 1 to 128 characters other than {FORBIDDEN_IN_NAMES}")
        if name == names.PREDICTION_FEATURE:
            raise self._broke(
                f"named a feature {name!r}", "give it another name: predictions are monitored under this one"
            )
        return name

    def _array(self, name: str, value: Any, rows: int) -> Array:
        try:
            array = np.asarray(value)
        except ValueError as error:  # a ragged list
            raise self._broke(f"returned {name!r} as {_a(value)} that is no array: {error}") from None
        if array.ndim == 0:
            array = np.full(rows, array.item(), dtype=object if array.dtype.kind in "US" else array.dtype)
        if array.ndim != 1:
            raise self._broke(f"returned {name!r} with {array.ndim} dimensions, shape {array.shape}")
        if len(array) != rows:
            raise self._broke(
                f"returned {name!r} with {len(array)} values for {rows} rows",
                "return one value per row: filtering and aggregating over rows belong in the query",
            )
        try:
            return _usable(array)
        except TypeError as error:
            raise self._broke(f"returned {name!r} {error}") from None


def load_features(file: Path, function: str) -> FeatureCode:
    """Load `function` from the Python file `file`.

    The file runs on its own: it may import installed packages and not its neighbours, because a model version carries one file.

    Raises:
        FeatureError: no such file or function, a syntax error, or the file raises while it is loaded.
    """
    try:
        source = file.read_bytes()
    except OSError as error:
        raise FeatureError(
            f"the feature code cannot be read: {error.strerror}", where=str(file), expected="a Python file"
        ) from None
    try:
        code = compile(source, str(file), "exec")
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise FeatureError(f"not valid Python: {error}", where=f"{file}:{line}") from None
    module = _run(code, file, source)
    call = getattr(module, function, None)
    if not callable(call):
        names_ = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        guess = nearest(function, names_)
        raise FeatureError(
            f"there is no function {function!r}" + (f"; did you mean {guess!r}?" if guess else ""),
            where=str(file),
            expected=f"def {function}(columns): ...",
        )
    return FeatureCode(file, function, call)


def line_of(error: BaseException, file: Path) -> str | None:
    """`file:line` of the innermost frame of `error` that lies in `file`, or None."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f"{file}:{frames[-1].lineno}" if frames else None


def _run(code: CodeType, file: Path, source: bytes) -> ModuleType:
    # Named by place and content: versions of one file live side by side in a server. Registered, because dataclasses look it up.
    digest = hashlib.sha256(str(file).encode() + b"\0" + source).hexdigest()[:16]
    module = ModuleType(f"_perennial_features_{digest}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    try:
        exec(code, module.__dict__)  # noqa: S102 (running the pipeline's own code is the purpose)
    except Exception as error:
        del sys.modules[module.__name__]
        next_ = ""
        if isinstance(error, ModuleNotFoundError):
            next_ = "import only installed packages: a model version carries this one file and none of its neighbours"
        raise FeatureError(
            f"the feature code raised {type(error).__name__} while it was loaded: {error}",
            where=line_of(error, file) or str(file),
            next=next_,
        ) from error
    return module


class _Recorder(Mapping[str, Array]):
    """Columns that remember which of them were read."""

    def __init__(self, columns: Mapping[str, Array]) -> None:
        self._columns = columns
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Array:
        values = self._columns[name]
        self.read.add(name)
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __contains__(self, name: object) -> bool:  # Mapping's own would count a question as a reading
        return name in self._columns


def _row_count(columns: Columns, where: str) -> int:
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        what = f"the input columns have lengths {sorted(lengths)}" if lengths else "there are no input columns"
        raise FeatureError(what, where=where, expected="one or more columns of one length")
    return lengths.pop()


def _read_only(values: Array) -> Array:
    view = values.view()
    view.flags.writeable = False
    return view


def _usable(array: Array) -> Array:
    """Numeric as it is; text as objects.

    Raises:
        TypeError: neither; the message continues "returned 'x' ...".
    """
    kind = array.dtype.kind
    if kind in "fiub":
        return array
    if kind == "U":
        return array.astype(object)
    if kind == "O":
        return _objects(array)
    advice = "; turn it into numbers, as in (a - b) / np.timedelta64(1, 'h')" if kind in "mM" else ""
    raise TypeError(f"as {array.dtype}, which a model cannot use{advice}")


def _objects(array: Array) -> Array:
    """Text with None for missing; objects that are all numbers become numbers."""
    types = set(map(type, array.tolist()))
    if types <= {str, type(None)}:
        return array
    if str not in types and all(issubclass(t, int | float | np.number | np.bool_ | type(None)) for t in types):
        return array.astype(np.float64)  # None becomes NaN
    if all(issubclass(t, str | float | type(None)) for t in types):  # NaN for missing text, as pandas has it
        text = array.copy()
        text[[isinstance(value, float) and math.isnan(value) for value in array]] = None
        if set(map(type, text.tolist())) <= {str, type(None)}:
            return text
    found = ", ".join(sorted(t.__name__ for t in types))
    raise TypeError(f"as objects of types {found}: expected text (None for missing) or numbers, not a mixture")


def _a(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
