"""Every name that two parts of the platform share, once: environment, registry tags, metrics, labels.

Metrics follow Prometheus' conventions: base units, `_total` for counters, labels with bounded values.
"""

from __future__ import annotations

# -- environment --
ENV_REQUEST = "PERENNIAL_STEP_REQUEST"
ENV_REQUEST_FILE = "PERENNIAL_STEP_REQUEST_FILE"
ENV_RESULT_FILE = "PERENNIAL_STEP_RESULT_FILE"

# -- registry: the registered model has the pipeline's name --
ALIAS_CHAMPION = "champion"
ALIAS_CHALLENGER = "challenger"
ALIAS_PREVIOUS = "previous"
TAG_ROUTE = "perennial.route"
"""On the registered model: JSON of `perennial_spec.route.Route`."""
TAG_RUN_KEY = "perennial.run_key"
TAG_STEP = "perennial.step"
TAG_REASON = "perennial.reason"
"""JSON of `perennial_spec.step.Reason`."""
TAG_SPEC_DIGEST = "perennial.spec_digest"
TAG_DATA_URI = "perennial.data_uri"
TAG_DATA_VERSION = "perennial.data_version"
TAG_CODE_VERSION = "perennial.code_version"
TAG_LOCK_DIGEST = "perennial.lock_digest"
TAG_GATES = "perennial.gates"
TAG_JUDGED_AGAINST = "perennial.judged_against"
"""On a model version: the champion that its gates compared it with last; empty when there was none."""
TAG_VERDICT = "perennial.verdict"
"""On a model version: registered, passed, rejected, promoted, rolled_back."""
TAG_VERDICT_REASON = "perennial.verdict_reason"
"""Why the verdict is `rejected` or `rolled_back`, in words."""
TAG_SIGN_OFF = "perennial.sign_off"
"""JSON: answer (approved, rejected), by, at, reason."""
TAG_EXPERIMENT = "perennial.experiment"
"""On a model version: JSON of its experiment against the champion: strategy, run key, when it began, and what came of it."""
TAG_PROMOTED_AT = "perennial.promoted_at"
TAG_RESTORED_AT = "perennial.restored_at"
"""When the traffic was last taken back to this version, by a person or by the controller."""
TAG_ARCHIVED_AT = "perennial.archived_at"
"""On a version whose time is over; see `perennial_registry.retirement`."""
TAG_ARCHIVED_REASON = "perennial.archived_reason"
TAG_BUNDLE_URI = "perennial.bundle_uri"
"""`mlflow-artifacts:/...` of the folder that serving needs; see `perennial_features.bundle`."""
TAG_SPEC = "perennial.spec"
"""On a version without a bundle, or its registered model: JSON of the pipeline's spec, for what its log may hold."""
TAG_ENTITY = "perennial.entity"
"""Likewise: the column that predictions and labels are joined by, where there is no spec."""

# -- labels --
PREDICTION_FEATURE = "prediction"
"""The value of label `feature` under which predictions are counted: predictions are one more feature."""
BIN_MISSING = "missing"
BIN_OTHER = "other"
"""Categories that training did not see, or saw too seldom to have a bin."""

# -- metrics of the model server --
OBSERVATIONS = "perennial_feature_observations_total"  # pipeline, version, feature, bin
REFERENCE_SHARE = "perennial_feature_reference_share"  # pipeline, version, feature, bin
REFERENCE_ROWS = "perennial_feature_reference_rows"  # pipeline, version
ATTRIBUTION_ABS = "perennial_attribution_abs_total"  # pipeline, version, feature: sum of |contribution|
ATTRIBUTION_ROWS = "perennial_attribution_rows_total"  # pipeline, version
ATTRIBUTION_DROPPED = "perennial_attribution_rows_dropped_total"  # pipeline, version
ATTRIBUTION_REFERENCE = "perennial_attribution_reference"  # pipeline, version, feature: share of the total
ATTRIBUTION_REFERENCE_ROWS = "perennial_attribution_reference_rows"  # pipeline, version
ATTRIBUTION_NOISE = "perennial_attribution_reference_noise"  # pipeline, version: see perennial_features.attribution
OUT_OF_RANGE = "perennial_feature_out_of_range_total"  # pipeline, version, feature (numeric ones)
REQUESTS = "perennial_requests_total"  # pipeline, version, protocol, code
REQUEST_SECONDS = "perennial_request_duration_seconds"  # histogram: pipeline, version
PREDICTIONS = "perennial_predictions_total"  # pipeline, version (rows)
ROUTE_WEIGHT = "perennial_route_weight"  # pipeline, version
ROUTE_REVISION = "perennial_route_revision"  # pipeline
MODEL_LOADED = "perennial_model_loaded"  # pipeline, version (1; 0 when refused)
MODEL_TRAINED = "perennial_model_trained_timestamp_seconds"  # pipeline, version
HEALTH_QUERY_UP = "perennial_health_query_up"  # pipeline, version (1; 0 when it does not answer as at its training)
HEALTH_QUERY_SECONDS = "perennial_health_query_seconds"  # pipeline, version
CHAMPION = "perennial_champion"  # pipeline, version (1)
REGISTRY_UP = "perennial_registry_up"
REGISTRY_POLLS = "perennial_registry_polls_total"  # outcome (unchanged, changed, failed)
REGISTRY_ANSWERED = "perennial_registry_last_answer_timestamp_seconds"
WORKERS = "perennial_workers"
PREDICTION_LOG_WRITTEN = "perennial_prediction_log_rows_written_total"  # pipeline
PREDICTION_LOG_DROPPED = "perennial_prediction_log_rows_dropped_total"  # pipeline
PREDICTION_LOG_SAMPLED_OUT = "perennial_prediction_log_rows_sampled_out_total"  # pipeline
SHADOW_DROPPED = "perennial_shadow_rows_dropped_total"  # pipeline, version
REQUESTS_SHED = "perennial_requests_shed_total"  # pipeline
IN_FLIGHT = "perennial_requests_in_flight"
REQUESTS_LIMIT = "perennial_requests_limit"
ROWS_IN_FLIGHT = "perennial_rows_in_flight"
ROWS_LIMIT = "perennial_rows_limit"
FEEDBACK = "perennial_feedback_labels_total"  # pipeline
REWARDS = "perennial_rewards_total"  # pipeline, version
REWARD_SUM = "perennial_reward_sum"  # pipeline, version: gauge, since rewards may be negative

# -- metrics of the controller: thresholds from the specs, and its own work --
DRIFT_THRESHOLD = "perennial_drift_psi_threshold"  # pipeline
DRIFT_MIN_ROWS = "perennial_drift_min_rows"  # pipeline
DRIFT_WINDOW = "perennial_drift_window"  # pipeline, window (1)
DRIFT_IGNORED = "perennial_drift_ignored"  # pipeline, feature (1)
ATTRIBUTION_SHIFT_LIMIT = "perennial_attribution_shift_limit"  # pipeline
ATTRIBUTION_MIN_ROWS = "perennial_attribution_min_rows"  # pipeline
QUALITY_MIN = "perennial_quality_min"  # pipeline, metric
QUALITY_MAX = "perennial_quality_max"  # pipeline, metric
QUALITY_MIN_LABELS = "perennial_quality_min_labels"  # pipeline
QUALITY_SLICE_MIN = "perennial_quality_slice_min"  # pipeline, slice, metric
QUALITY_SLICE_MAX = "perennial_quality_slice_max"  # pipeline, slice, metric
QUALITY_SLICE_MIN_LABELS = "perennial_quality_slice_min_labels"  # pipeline, slice, metric
QUALITY_MIN_LABELLED = "perennial_quality_min_labelled_share"  # pipeline
LABEL_ARRIVES_AFTER = "perennial_label_arrives_after_seconds"  # pipeline
RETRAIN_ON = "perennial_retrain_on"  # pipeline, trigger (1)
DATA_FRESHNESS_LIMIT = "perennial_data_freshness_limit_seconds"  # pipeline
DATA_LAST_TIMESTAMP = "perennial_data_last_timestamp_seconds"  # pipeline
ERROR_RATE_LIMIT = "perennial_error_rate_limit_ratio"  # pipeline
LATENCY_LIMIT = "perennial_latency_p99_limit_seconds"  # pipeline
SERVICE_MIN_REQUESTS = "perennial_service_min_requests"  # pipeline
MODEL_REVIEW_AFTER = "perennial_model_review_after_seconds"  # pipeline
MODEL_RETIRE_AFTER = "perennial_model_retire_after_seconds"  # pipeline
RUN_LIMIT = "perennial_run_limit_seconds"  # pipeline
RUN_FAILURES_LIMIT = "perennial_run_failures_limit"  # pipeline
RETRAININGS_LIMIT = "perennial_retrainings_without_promotion_limit"  # pipeline
DECISIONS = "perennial_controller_decisions_total"  # pipeline, decision
BACKLOG = "perennial_controller_backlog"
OLDEST_UNDELIVERED = "perennial_controller_oldest_undelivered_seconds"
DELIVERIES = "perennial_controller_deliveries_total"  # pipeline, result (delivered, already_there, away, refused)
LEDGER_UP = "perennial_controller_ledger_up"
AIRFLOW_UP = "perennial_controller_airflow_up"
HELD_EVENTS = "perennial_controller_held_events"  # pipeline, decision
RUNS = "perennial_runs_total"  # pipeline, outcome (promoted, rejected, rolled_back, failed, refused, lost)
RUN_LAST_SUCCESS = "perennial_run_last_success_timestamp_seconds"  # pipeline
RUN_FAILURES_IN_A_ROW = "perennial_run_failures_in_a_row"  # pipeline
RUN_ACTIVE_SINCE = "perennial_run_active_since_timestamp_seconds"  # pipeline
RUN_UNDELIVERED_SINCE = "perennial_run_undelivered_since_timestamp_seconds"  # pipeline
RUN_DUE = "perennial_run_due_timestamp_seconds"  # pipeline
RETRAININGS_SINCE_PROMOTION = "perennial_retrainings_since_promotion"  # pipeline
BREAKER_OPEN = "perennial_breaker_open"  # pipeline (1; 0 when closed)
ROLLOUT_VERDICTS = "perennial_rollout_verdicts_total"  # pipeline, verdict (pass, fail, inconclusive, error)
PAUSED_SINCE = "perennial_paused_since_timestamp_seconds"  # pipeline
WATCH_UNTIL = "perennial_watch_until_timestamp_seconds"  # pipeline, version
ROLLBACKS = "perennial_rollbacks_total"  # pipeline, result (done, away, refused)
BUDGET_LEFT = "perennial_budget_runs_left"  # pipeline
BUDGET_SECONDS_LEFT = "perennial_budget_compute_seconds_left"  # pipeline
WATCHDOG_RECEIVED = "perennial_watchdog_last_received_timestamp_seconds"
PIPELINE_BROKEN = "perennial_pipeline_broken"  # pipeline (1)

# -- metrics of the quality exporter --
QUALITY = "perennial_quality"  # pipeline, version, metric
QUALITY_LABELS = "perennial_quality_labels"  # pipeline, version: joined predictions in the window
QUALITY_LABELLED_SHARE = "perennial_quality_labelled_share"  # pipeline, version
QUALITY_LOWER = "perennial_quality_lower"  # pipeline, version, metric: ends of the 95% interval
QUALITY_UPPER = "perennial_quality_upper"  # pipeline, version, metric
QUALITY_SLICE = "perennial_quality_slice"  # pipeline, version, metric, slice, value (20 values and missing, other)
QUALITY_SLICE_LOWER = "perennial_quality_slice_lower"  # pipeline, version, metric, slice, value
QUALITY_SLICE_UPPER = "perennial_quality_slice_upper"  # pipeline, version, metric, slice, value
QUALITY_SLICE_LABELS = "perennial_quality_slice_labels"  # pipeline, version, slice, value
QUALITY_LABEL_LAG = "perennial_quality_label_lag_seconds"  # pipeline: median over the window
QUALITY_LAST_LABEL = "perennial_quality_last_label_timestamp_seconds"  # pipeline
QUALITY_LABELS_SEEN = "perennial_quality_labels_total"  # pipeline, outcome
QUALITY_PREDICTIONS_SEEN = "perennial_quality_predictions_total"  # pipeline, outcome
QUALITY_DUE = "perennial_quality_due_predictions"  # pipeline: of late, and older than data.label.arrives_after
QUALITY_DUE_LABELLED_SHARE = "perennial_quality_due_labelled_share"  # pipeline
QUALITY_LOGS_UP = "perennial_quality_logs_up"  # pipeline
QUALITY_ESTIMATED = "perennial_quality_estimated"  # pipeline, version, metric: of predictions without a label
QUALITY_WAITING = "perennial_quality_waiting_predictions"  # pipeline, version: how many those are
PREDICTION_CONFIDENCE = "perennial_prediction_confidence"  # pipeline, version

# -- alerts: each has a runbook of its name --
ALERT_FEATURE_DRIFT = "PerennialFeatureDrift"
ALERT_PREDICTION_DRIFT = "PerennialPredictionDrift"
ALERT_ATTRIBUTION_SHIFT = "PerennialAttributionShift"
ALERT_QUALITY = "PerennialQualityLow"
ALERT_QUALITY_ESTIMATED = "PerennialQualityEstimatedLow"
ALERT_QUALITY_SLICE = "PerennialQualitySliceLow"
ALERT_QUALITY_UNREAD = "PerennialQualityUnread"
ALERT_LABELS_LATE = "PerennialLabelsLate"
ALERT_SERVER_DOWN = "PerennialModelServerDown"
ALERT_NO_DATA = "PerennialNoPredictions"
ALERT_DATA_STALE = "PerennialDataStale"
ALERT_MONITORING_DOWN = "PerennialMonitoringDown"
ALERT_ERRORS = "PerennialErrorsHigh"
ALERT_LATENCY = "PerennialLatencyHigh"
ALERT_SATURATED = "PerennialServerSaturated"
ALERT_MODEL_OLD = "PerennialModelOld"
ALERT_MODEL_REFUSED = "PerennialModelRefused"
ALERT_ROUTE_NOT_FOLLOWED = "PerennialRouteNotFollowed"
ALERT_REGISTRY_UNREACHABLE = "PerennialRegistryUnreachable"
ALERT_LOG_DROPPING = "PerennialPredictionLogDropping"
ALERT_HEALTH_QUERY = "PerennialHealthQueryFailing"
ALERT_NO_GOOD_RUN = "PerennialNoGoodRun"
ALERT_RUN_FAILING = "PerennialRunFailing"
ALERT_RUN_TOO_LONG = "PerennialRunTooLong"
ALERT_RETRAINING_STORM = "PerennialRetrainingStorm"
ALERT_REGRESSION = "PerennialRegression"
ALERT_ROLLED_BACK = "PerennialRolledBack"
ALERT_PAUSED_LONG = "PerennialPausedLong"
ALERT_BUDGET_SPENT = "PerennialBudgetSpent"
ALERT_DELIVERY_FAILING = "PerennialDeliveryFailing"
ALERT_BACKLOG = "PerennialControllerBacklog"
ALERT_LEDGER_DOWN = "PerennialLedgerDown"
ALERT_PIPELINE_BROKEN = "PerennialPipelineBroken"
ALERT_NOT_RECEIVED = "PerennialAlertsNotReceived"
ALERT_WATCHDOG = "PerennialWatchdog"
"""Fires always: that it stops coming says that alerts no longer arrive."""


def dag_id(pipeline: str) -> str:
    """The DAG that trains, evaluates and deploys."""
    return pipeline


def rollback_id(pipeline: str) -> str:
    """In place of a DAG, for what the controller does itself: it takes the traffic back. No pipeline or DAG has that name."""
    return f"{pipeline}.rollback"


def data_dag_id(pipeline: str) -> str:
    """The DAG that lands and validates new data, without training."""
    return f"{pipeline}.data"


def retire_dag_id(pipeline: str) -> str:
    """The DAG that archives versions whose time is over."""
    return f"{pipeline}.retire"
