"""Great Expectations: expectations by their own names, one checkpoint over a window of data, and the Data Docs of it.

Importing it takes seconds of CPU: only done when there is something to evaluate.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial_spec.data import Expectation
from perennial_spec.errors import SpecError, nearest
from perennial_spec.load import Pipeline
from perennial_spec.validation import FailedCheck
from perennial_steps.sources.location import line_of

if TYPE_CHECKING:
    import pyarrow as pa

SITE = "perennial"
_OWN_FIELDS = {
    "id",
    "meta",
    "notes",
    "result_format",
    "description",
    "catch_exceptions",
    "rendered_content",
    "severity",
}
_OWN_FIELDS |= {"windows", "batch_id"}
_SEVERITY = {"stop": "critical", "warn": "warning"}
_EXAMPLES = 5
_LISTED = 100
"""Validations on the site's first page; older pages stay where they are."""
_DATE = re.compile(r"^\d{4}-\d{2}-\d{2}$")
_COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list", "column_set")
_MAY_BE_ABSENT = {
    "expect_column_to_exist",
    "expect_table_columns_to_match_set",
    "expect_table_columns_to_match_ordered_list",
}


@dataclass(frozen=True)
class Evaluated:
    """What a checkpoint came to."""

    checks: int
    failed: tuple[FailedCheck, ...]
    """Of both severities."""
    docs_uri: str


def build(pipeline: Pipeline, columns: Mapping[str, str]) -> list[Any]:
    """The spec's expectations as Great Expectations' own objects.

    Args:
        columns: the data's columns, with their types as in the table: BOOLEAN, BIGINT, DOUBLE, VARCHAR or TIMESTAMPTZ.

    Raises:
        SpecError: an expectation does not exist, does not take its arguments, or names a column that is not there; with the
            line and the nearest word.
    """
    with _quiet():
        return [_build_one(pipeline, number, columns) for number in range(len(pipeline.spec.expectations))]


def problems(pipeline: Pipeline, columns: Mapping[str, str] | None) -> list[SpecError]:
    """What is wrong with each of the spec's expectations, for `perennial check`.

    Args:
        columns: as in `build`; None when they are not known, and are not judged.
    """
    found = []
    with _quiet():
        for number in range(len(pipeline.spec.expectations)):
            try:
                _build_one(pipeline, number, columns)
            except SpecError as error:
                found.append(error)
    return found


def evaluate(pipeline: Pipeline, window: pa.Table, version: int, docs: Path) -> Evaluated:
    """Run one checkpoint with all expectations, and add its page to the Data Docs in `docs`.

    Raises:
        SpecError: see `build`; or an expectation that cannot be evaluated on a data frame.
    """
    import pyarrow as pa

    types = {
        field.name: "TIMESTAMPTZ" if pa.types.is_timestamp(field.type) else str(field.type) for field in window.schema
    }
    expectations = build(pipeline, types)
    with _quiet():
        result, page = _run_checkpoint(pipeline, expectations, _frame(window), version, docs)
    hidden = {*pipeline.spec.data.sensitive, *pipeline.spec.data.redact}
    failed = [_failed(pipeline, one, hidden) for one in result.results if not one.success]
    return Evaluated(len(result.results), tuple(failed), page)


def _build_one(pipeline: Pipeline, number: int, columns: Mapping[str, str] | None) -> Any:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations import registry

    expectation = pipeline.spec.expectations[number]
    loc = ("expectations", number, expectation.name)
    try:
        kind = registry.get_expectation_impl(expectation.name)
    except ExpectationNotFoundError:
        guess = nearest(expectation.name, registry.list_registered_expectation_implementations())
        raise SpecError(
            f"there is no expectation named {expectation.name!r}" + (f"; did you mean {guess!r}?" if guess else ""),
            where=line_of(pipeline, *loc),
            expected="one of Great Expectations' expectations: https://greatexpectations.io/expectations",
            next="mend the name, then run: perennial check",
        ) from None
    if columns is not None:
        _need_columns(pipeline, loc, expectation, list(columns))
    arguments = {
        **_dated(expectation, columns or {}),
        "severity": _SEVERITY[expectation.severity],
        "meta": {"number": number},
    }
    try:
        return kind(**arguments)
    except ValueError as error:  # pydantic's
        raise _bad_arguments(pipeline, loc, expectation, kind, error) from None


def _dated(expectation: Expectation, columns: Mapping[str, str]) -> dict[str, Any]:
    """The arguments; for a column of timestamps a date is its midnight, because GX compares timestamps with timestamps only."""
    times = {columns.get(name) for name in _columns(expectation)} == {"TIMESTAMPTZ"}
    given = expectation.arguments
    return {key: f"{value}T00:00:00" if times and _DATE.match(str(value)) else value for key, value in given.items()}


def _bad_arguments(
    pipeline: Pipeline, loc: tuple[int | str, ...], expectation: Expectation, kind: Any, error: ValueError
) -> SpecError:
    known = sorted(set(kind.__fields__) - _OWN_FIELDS)
    problems = error.errors() if hasattr(error, "errors") else [{"loc": (), "msg": str(error)}]
    place = str(next(iter(problems[0]["loc"]), ""))
    said = problems[0]["msg"]
    argument, at = "", loc
    if place and place != "__root__":
        argument, at = f" argument {place!r}:", (*loc, place)
    guess = nearest(place, known) if place not in known else None
    return SpecError(
        f"{expectation.name}:{argument} {said}" + (f"; did you mean {guess!r}?" if guess else ""),
        where=line_of(pipeline, *at),
        expected=f"arguments among {', '.join(known)}, and severity: stop or warn",
        next="mend it, then run: perennial check",
    )


def _need_columns(pipeline: Pipeline, loc: tuple[int | str, ...], expectation: Expectation, columns: list[str]) -> None:
    if expectation.name in _MAY_BE_ABSENT:
        return
    for argument in _COLUMN_ARGUMENTS:
        given = expectation.arguments.get(argument, [])
        for name in [given] if isinstance(given, str) else given:
            if name not in columns:
                guess = nearest(str(name), columns)
                raise SpecError(
                    f"{expectation.name} names the column {name!r}, which the data does not have"
                    + (f"; did you mean {guess!r}?" if guess else ""),
                    where=line_of(pipeline, *loc, argument),
                    expected=f"one of {', '.join(columns)}",
                    next="mend the name, then run: perennial check",
                )


def _run_checkpoint(
    pipeline: Pipeline, expectations: list[Any], frame: Any, version: int, docs: Path
) -> tuple[Any, str]:
    import great_expectations as gx
    from great_expectations.checkpoint import UpdateDataDocsAction
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.base import ProgressBarsConfig

    name = pipeline.name
    context = gx.get_context(mode="ephemeral", project_config=_config(docs))
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    batch = (
        context.data_sources.add_pandas(name).add_dataframe_asset("data").add_batch_definition_whole_dataframe("window")
    )
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    checkpoint = gx.Checkpoint(
        name=name,
        validation_definitions=[definition],
        actions=[UpdateDataDocsAction(name="docs", site_names=[SITE])],
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": _EXAMPLES},
    )
    run = context.checkpoints.add(checkpoint).run(
        batch_parameters={"dataframe": frame}, run_id=RunIdentifier(run_name=f"data-version-{version}")
    )
    ((identifier, result),) = run.run_results.items()
    pages = context.get_docs_sites_urls(resource_identifier=identifier, site_name=SITE)
    return result, str(pages[0]["site_url"])


def _config(docs: Path) -> Any:
    """Everything in memory but the results and their pages: the site's index lists those of earlier versions too."""
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

    defaults = InMemoryStoreBackendDefaults()

    def files(folder: Path) -> dict[str, str]:
        return {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)}

    results = files(docs / "results") | {"filepath_suffix": ".json"}
    defaults.stores[defaults.validation_results_store_name]["store_backend"] = results
    index = {"class_name": "DefaultSiteIndexBuilder", "validation_results_limit": _LISTED, "show_cta_footer": False}
    site: dict[str, Any] = {"class_name": "SiteBuilder", "store_backend": files(docs), "site_index_builder": index}
    site["show_how_to_buttons"] = False
    return DataContextConfig(store_backend_defaults=defaults, data_docs_sites={SITE: site}, analytics_enabled=False)


def _failed(pipeline: Pipeline, result: Any, hidden: set[str]) -> FailedCheck:
    number = int(result.expectation_config.meta["number"])
    expectation = pipeline.spec.expectations[number]
    if problem := _exception(result.exception_info):
        # Neither met nor missed: an expectation that cannot be evaluated must not let data through.
        raise SpecError(
            f"{expectation.name} cannot be evaluated on {_column(expectation) or 'the data'}: {problem}",
            where=line_of(pipeline, "expectations", number, expectation.name),
            expected="an expectation that fits the type of its column",
            next="mend it, then run: perennial check",
        )
    arguments = ", ".join(
        f"{key}={value}" for key, value in expectation.arguments.items() if key not in _COLUMN_ARGUMENTS
    )
    observed = _observed(result.result, show_values=not hidden & _columns(expectation))
    message = f"expected {arguments}; {observed}" if arguments else observed
    return FailedCheck(
        name=expectation.name, column=_column(expectation), severity=expectation.severity, message=message[:1000]
    )


def _observed(result: Mapping[str, Any], *, show_values: bool) -> str:
    if "unexpected_count" in result:
        count, total = result["unexpected_count"], result.get("element_count") or 0
        text = f"{count:,} of {total:,} values ({result.get('unexpected_percent') or 0:.3g} %) are not so"
        examples = list(dict.fromkeys(map(str, result.get("partial_unexpected_list") or [])))[:_EXAMPLES]
        return text + (f", for example {', '.join(examples)}" if examples and show_values else "")
    if "observed_value" in result:
        return f"observed {result['observed_value']}" if show_values else "observed something else"
    return "it is not so"


def _exception(info: Any) -> str | None:
    if not isinstance(info, Mapping):
        return None
    found = [info] if "raised_exception" in info else [one for one in info.values() if isinstance(one, Mapping)]
    return next((str(one.get("exception_message")).strip() for one in found if one.get("raised_exception")), None)


def _columns(expectation: Expectation) -> set[str]:
    found: set[str] = set()
    for argument in _COLUMN_ARGUMENTS:
        given = expectation.arguments.get(argument, [])
        found |= {given} if isinstance(given, str) else set(given)
    return found


def _column(expectation: Expectation) -> str | None:
    return ", ".join(sorted(_columns(expectation))) or None


def _frame(window: pa.Table) -> Any:
    """As pandas; timestamps in UTC without a zone, because GX compares them with dates that have none."""
    import pyarrow as pa

    naive = pa.schema(
        [pa.field(f.name, pa.timestamp("us")) if pa.types.is_timestamp(f.type) else f for f in window.schema]
    )
    return window.cast(naive).to_pandas()


@contextmanager
def _quiet() -> Iterator[None]:
    """GX without telemetry, warnings and progress bars; scipy.stats, which few expectations need, is loaded when one does."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    _load_later("scipy.stats")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _load_later(name: str) -> None:
    """Import a module at the first use of one of its attributes: here it is 2 of the 6 seconds that importing GX takes."""
    if name in sys.modules or "great_expectations" in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, module)
