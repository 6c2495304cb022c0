from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from perennial_spec.errors import PipelineNotFound, SpecError
from perennial_spec.load import discover, load_pipeline

Write = Callable[..., Path]


def test_a_good_pipeline_is_read_with_its_defaults(write_pipeline: Write) -> None:
    pipeline = load_pipeline(write_pipeline())
    assert pipeline.name == "demo"
    assert pipeline.spec.deployment.rollout == (0.1, 0.5, 1.0)
    assert pipeline.spec.data.label.arrives_after.total_seconds() == 6 * 3600
    assert pipeline.features_file.is_file()


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("timestamp: at", "timestmp: at", 6, ["data.timestmp is not a word", "did you mean 'timestamp'?"]),
        ("timestamp: at", "timestmp: at", 4, ["data.timestamp is missing"]),
        ("xgboost.classifier", "xgboost.clasifier", 10, ["'xgboost.clasifier'; did you mean 'xgboost.classifier'?"]),
        ("xgboost.classifier", "zzz", 10, ["expected one of xgboost.classifier, xgboost.regressor"]),
        ("xgboost.classifier", "xgboost.ranker", 9, ["expected group with xgboost.ranker"]),
        (
            "kind:",
            "group: query_id\n  kind:",
            9,
            ["group is for xgboost.ranker: a xgboost.classifier answers each row"],
        ),
        ("arrives_after: 6h", "arrives_after: 6 hours", 8, ["'6 hours': expected a number with a unit"]),
        (
            "metric: roc_auc, min: 0.7",
            "metric: roc_auc, mim: 0.7",
            14,
            ["evaluation.gates.0.mim", "did you mean 'min'?"],
        ),
        ("metric: roc_auc, min: 0.7", "metric: roc_auc", 14, ["evaluation.gates.0: expected min or max"]),
        ("{metric: roc_auc, min: 0.7}", "{foo: 1}", 14, ["one of the keys metric, slice or against"]),
        ("metric: roc_auc\n", "metric: rmse\n", 1, ["rmse cannot be measured on a xgboost.classifier"]),
        ("name: demo", "name: Demo Pipeline", 2, ["name is 'Demo Pipeline': string should match pattern"]),
        ("owner:", "deployment: {steps: [50%, 10%]}\nowner:", 3, ["rising shares of the traffic that end with 100%"]),
        ("owner:", "deployment: {abort_on: [{}]}\nowner:", 3, ["exactly one of error_rate, latency_p99"]),
        ("owner:", "deployment: {steps: [lots, 100%]}\nowner:", 3, ["expected a share such as 10% or 0.1"]),
        ("owner:", "resources: {train: {memory: much}}\nowner:", 3, ["an amount of memory such as 4Gi"]),
        (
            "owner:",
            "monitoring: {quality: {metric: roc_auc}}\nowner:",
            3,
            ["exactly one of min (roc_auc, r2, ...) or max"],
        ),
        (
            "owner:",
            "monitoring: {concept: {attribution_shift: 1.5}}\nowner:",
            3,
            ["monitoring.concept.attribution_shift is 1.5", "less than or equal to 1"],
        ),
        (
            "owner:",
            "monitoring: {concept: {atribution_shift: 0.1}}\nowner:",
            3,
            ["monitoring.concept.atribution_shift is not a word of the specification", "'attribution_shift'"],
        ),
        (
            "owner:",
            "monitoring: {log: {share: 150%}}\nowner:",
            3,
            ["monitoring.log.share is '150%'", "less than or equal to 1"],
        ),
        (
            "owner:",
            "monitoring: {log: {share: 0%}, quality: {metric: roc_auc, min: 0.7}}\nowner:",
            3,
            ["expected log.share above 0%, because quality is measured on logged predictions"],
        ),
        ("owner:", "expectations: [{expect_x: y}]\nowner:", 3, ["expected the arguments of expect_x as a mapping"]),
        ("owner:", "expectations: [{a: {}, b: {}}]\nowner:", 3, ["one expectation as `expect_...: {argument: value}`"]),
        ("owner:", "model: {}\nowner:", 10, ["the key 'model' is written twice"]),
        ("name: demo", "name: [", 4, ["not valid YAML"]),
        ("label:", "exclude: [at]\n  label:", 1, ["data.exclude and data.redact may not remove at"]),
        ("label:", "window: 10d\n  label:", 1, ["leave nothing of data.window to train on"]),
        ('{trips: "trips/*.parquet"}', "{a: x, b: y}", 1, ["data.query is needed to join more than one source"]),
        ("label:", "query: absent.sql\n  label:", 8, ["'absent.sql', which does not exist"]),
        ("label:", "query: ../other.sql\n  label:", 8, ["'../other.sql', which lies outside the folder"]),
    ],
)
def test_an_error_names_the_file_the_line_and_the_nearest_word(
    write_pipeline: Write, good_text: str, old: str, new: str, line: int, words: list[str]
) -> None:
    assert old in good_text
    folder = write_pipeline(text=good_text.replace(old, new, 1))
    with pytest.raises(SpecError) as caught:
        load_pipeline(folder)
    assert f"{folder / 'pipeline.yaml'}:{line}: " in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("column", ["carrier", "mail", "late", "gate"])
def test_quality_cannot_be_told_by_what_is_not_logged(write_pipeline: Write, good_text: str, column: str) -> None:
    hidden = "sensitive: [carrier]\n  redact: {mail: hash}\n  exclude: [gate]\n  label:"
    quality = f"monitoring: {{quality: {{metric: roc_auc, min: 0.7, slices: [origin, {column}]}}}}\nowner:"
    text = good_text.replace("label:", hidden, 1).replace("owner:", quality, 1)
    with pytest.raises(SpecError) as caught:
        load_pipeline(write_pipeline(text=text))
    assert f"monitoring.quality.slices cannot name {column}: the prediction log never holds" in str(caught.value)
    assert "expected inputs of the model" in str(caught.value)


RANKER = (
    ("kind: xgboost.classifier", "kind: xgboost.ranker\n  group: query_id"),
    ("metric: roc_auc\n", "metric: ndcg\n"),
    ("metric: roc_auc, min: 0.7", "metric: map, min: 0.3"),
)


def ranker(text: str) -> str:
    for old, new in RANKER:
        text = text.replace(old, new)
    return text


def test_a_ranker_names_its_lists_and_has_metrics_of_its_own(write_pipeline: Write, good_text: str) -> None:
    spec = load_pipeline(write_pipeline(text=ranker(good_text))).spec
    assert (spec.model.kind, spec.model.group, spec.evaluation.metric) == ("xgboost.ranker", "query_id", "ndcg")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "metric: ndcg\n",
            "metric: roc_auc\n",
            "roc_auc cannot be measured on a xgboost.ranker: expected one of ndcg, map",
        ),
        (
            "label:",
            "exclude: [query_id]\n  label:",
            "may not remove query_id: timestamp, entity and label are needed, and so",
        ),
        ("label:", "redact: {query_id: drop}\n  label:", "may not remove query_id"),
        ("group: query_id", "group: trip_id", "model.group is trip_id, the timestamp, entity or label"),
        (
            "owner:",
            "monitoring: {quality: {metric: ndcg, min: 0.5}}\nowner:",
            "monitoring.quality cannot be measured on a",
        ),
    ],
)
def test_what_a_ranker_cannot_have_is_told(
    write_pipeline: Write, good_text: str, old: str, new: str, words: str
) -> None:
    text = ranker(good_text)
    assert old in text
    with pytest.raises(SpecError, match=words):
        load_pipeline(write_pipeline(text=text.replace(old, new, 1)))


def test_the_list_of_a_ranker_may_be_hashed(write_pipeline: Write, good_text: str) -> None:
    text = ranker(good_text).replace("label:", "redact: {query_id: hash}\n  label:")
    assert load_pipeline(write_pipeline(text=text)).spec.data.redact == {"query_id": "hash"}


def test_all_problems_are_told_at_once_each_with_a_caret(write_pipeline: Write, good_text: str) -> None:
    text = good_text.replace("entity:", "entitee:").replace("roc_auc, min", "roc_auk, min")
    with pytest.raises(SpecError) as caught:
        load_pipeline(write_pipeline(text=text))
    message = str(caught.value)
    assert message.index("data.entitee") < message.index("evaluation.gates.0.metric")
    assert "7 |   entitee: trip_id\n    |   ^" in message


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff\xfe", "not UTF-8"), (b"", "valid dictionary"), (b"- a", "valid dictionary")]
)
def test_a_file_that_is_no_mapping_is_refused(write_pipeline: Write, content: bytes, words: str) -> None:
    folder = write_pipeline()
    (folder / "pipeline.yaml").write_bytes(content)
    with pytest.raises(SpecError, match=words):
        load_pipeline(folder)


def test_one_broken_pipeline_never_hides_the_others(write_pipeline: Write, good_text: str) -> None:
    root = write_pipeline("good").parent
    write_pipeline("bad", text=good_text.replace("model:", "modle:"))
    catalogue = discover(root)
    assert [p.name for p in catalogue.pipelines] == ["good"]
    assert [b.folder.name for b in catalogue.broken] == ["bad"]
    with pytest.raises(SpecError, match="did you mean 'model'"):
        catalogue.get("bad")


def test_two_pipelines_of_one_name_are_both_refused(write_pipeline: Write) -> None:
    root = write_pipeline("demo", folder="a").parent
    write_pipeline("demo", folder="b")
    catalogue = discover(root)
    assert catalogue.pipelines == ()
    assert ["also used in" in str(b.error) for b in catalogue.broken] == [True, True]


def test_an_unknown_name_is_answered_with_the_nearest(write_pipeline: Write) -> None:
    root = write_pipeline("flight-delays").parent
    with pytest.raises(PipelineNotFound, match="flihgt") as caught:
        discover(root).get("flihgt-delays")
    assert "did you mean 'flight-delays'?" in str(caught.value)
    with pytest.raises(PipelineNotFound) as caught:
        discover(root).get("zzz")
    assert "perennial new zzz" in str(caught.value)


def test_the_digest_follows_meaning_and_code_but_not_comments(write_pipeline: Write) -> None:
    folder = write_pipeline()
    first = load_pipeline(folder).digest
    (folder / "pipeline.yaml").write_text("# a comment\n" + (folder / "pipeline.yaml").read_text())
    assert load_pipeline(folder).digest == first
    (folder / "features.py").write_text("def features(columns):\n    return {}\n")
    assert load_pipeline(folder).digest != first


def test_words_that_yaml_1_1_took_for_booleans_stay_words(write_pipeline: Write, good_text: str) -> None:
    pipeline = load_pipeline(write_pipeline(text=good_text + "retraining: {on: [quality]}\n"))
    assert pipeline.spec.retraining.on == ("quality",)


def test_the_timeout_of_an_analysis_is_one_looks_however_long_it_bakes(write_pipeline: Write, good_text: str) -> None:
    spec = load_pipeline(write_pipeline(text=good_text + "deployment: {bake: 3d}\n")).spec
    assert spec.step_timeout("analyse").total_seconds() == 3600 + 300
    assert spec.step_timeout("train").total_seconds() == 3600


def test_limits_of_the_service_are_said_once(write_pipeline: Write, good_text: str) -> None:
    def limits(name: str, more: str) -> tuple[float, float]:
        folder = write_pipeline(name, text=good_text.replace("name: demo", f"name: {name}") + more)
        spec = load_pipeline(folder).spec
        return spec.error_rate_limit, spec.latency_limit.total_seconds()

    abort = "deployment: {abort_on: [{error_rate: 2%}, {latency_p99: 50ms}, {error_rate: 3%}]}\n"
    assert limits("bare", "") == (0.01, 0.5)
    assert limits("abort", abort) == (0.02, 0.05)
    assert limits("both", abort + "monitoring: {service: {error_rate: 5%}}\n") == (0.05, 0.05)


def test_a_run_may_take_as_long_as_its_steps_or_as_the_spec_says(write_pipeline: Write, good_text: str) -> None:
    def longest(name: str, more: str) -> timedelta:
        folder = write_pipeline(name, text=good_text.replace("name: demo", f"name: {name}") + more)
        return load_pipeline(folder).spec.run_limit

    hour = timedelta(hours=1)
    replace = "deployment: {strategy: replace}\n"
    assert longest("replaced", replace) == 5 * hour  # ingest, validate, train, evaluate, promote
    assert longest("quick", replace + "resources: {train: {timeout: 15m}}\n") == 4.25 * hour
    assert longest("canary", "deployment: {max_bake: 2h}\n") == (5 + 2 * (1 + 1 + 2)) * hour
    assert longest("said", "monitoring: {runs: {longest: 90m}}\n") == 1.5 * hour
