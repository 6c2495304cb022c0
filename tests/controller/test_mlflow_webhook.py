"""What MLflow tells of the registry: signed with the shared secret, kept in the ledger, once each. Also from a real MLflow."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from controller_neighbours import served
from mlflow.webhooks.delivery import _generate_hmac_signature as signature_of

from perennial_controller.app import make_app
from perennial_controller.controller import Controller

SECRET = "whsec-of-the-test"
PATH = "/api/v1/mlflow"
PROMOTED = {
    "entity": "model_version_alias",
    "action": "created",
    "data": {"name": "flights", "alias": "champion", "version": "7"},
}


@pytest.fixture
def secret(world: Any) -> str:
    (world.folder / "mlflow-secret").write_text(SECRET + "\n")
    return str(world.folder / "mlflow-secret")


def signed(body: str, delivery: str = "d-1", at: float | None = None, secret: str = SECRET) -> dict[str, str]:
    """The headers that MLflow sends with a body."""
    timestamp = str(int(time.time() if at is None else at))
    return {
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": timestamp,
        "X-MLflow-Signature": signature_of(secret, delivery, timestamp, body),
        "Authorization": "",
    }


async def told(client: Any, event: dict[str, Any], delivery: str = "d-1") -> httpx.Response:
    body = json.dumps(event)
    answer: httpx.Response = await client.http.post(PATH, content=body, headers=signed(body, delivery))
    return answer


async def test_an_alias_that_was_moved_past_us_is_on_record_once(world: Any, secret: str) -> None:
    async with world.controller(mlflow_secret_file=secret) as client:
        first, again = await told(client, PROMOTED), await told(client, PROMOTED)
        assert (first.json()["new"], again.json()["new"]) == (1, 0)
        row = await client.decided(first.json()["decisions"][0], "noted")
        story = (await client.http.get("/api/v1/pipelines/flights/timeline")).json()
    assert (row["kind"], row["summary"], row["actor"]) == ("registry", "alias champion -> version 7", "MLflow")
    assert row["reason"] == "told by MLflow"
    assert story["moments"][0]["heading"] == "Registry"
    assert world.airflow.posts == []


@pytest.mark.parametrize(
    ("entity", "action", "data", "says"),
    [
        ("model_version", "created", {"version": "3", "tags": {}}, "version 3 was registered"),
        ("model_version_alias", "deleted", {"alias": "challenger"}, "alias challenger was taken away"),
        (
            "model_version_tag",
            "set",
            {"version": "3", "key": "perennial.verdict", "value": "rolled_back"},
            "version 3 is rolled back",
        ),
    ],
)
async def test_what_changed_is_told_in_words(
    world: Any, secret: str, entity: str, action: str, data: dict[str, Any], says: str
) -> None:
    async with world.controller(mlflow_secret_file=secret) as client:
        await told(client, {"entity": entity, "action": action, "data": {"name": "flights", **data}})
        (row,) = await client.decisions()
    assert row["summary"] == says


async def test_other_models_and_other_tags_are_of_no_interest(world: Any, secret: str) -> None:
    tag = {"name": "flights", "version": "1", "key": "team", "value": "ops"}
    async with world.controller(mlflow_secret_file=secret) as client:
        for event in (
            {**PROMOTED, "data": {"name": "somebody-elses", "alias": "champion", "version": "7"}},
            {"entity": "model_version_tag", "action": "set", "data": tag},
            {"entity": "prompt", "action": "created", "data": {"name": "flights"}},
        ):
            answer = await told(client, event)
            assert (answer.status_code, answer.json()) == (200, {"decisions": [], "new": 0})
        assert await client.decisions() == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"secret": "another"}, "the signature is wrong"),
        ({"at": time.time() - 3600}, "the request is not of now"),
        ({"at": time.time() + 3600}, "the request is not of now"),
        ({"delivery": ""}, "the request is not signed"),
    ],
    ids=["another secret", "recorded", "from later", "no id"],
)
async def test_what_is_not_signed_by_us_now_is_not_taken(
    world: Any, secret: str, change: dict[str, Any], says: str
) -> None:
    body = json.dumps(PROMOTED)
    async with world.controller(mlflow_secret_file=secret) as client:
        answer = await client.http.post(PATH, content=body, headers=signed(body, **change))
        other = await client.http.post(PATH, content=body + " ", headers=signed(body))
        plain = await client.http.post(PATH, json=PROMOTED)
        assert await client.decisions() == []
    assert (answer.status_code, answer.json()["error"]) == (401, says)
    assert (other.status_code, plain.status_code) == (401, 401)


async def test_what_is_signed_and_cannot_be_read_says_what_was_expected(world: Any, secret: str) -> None:
    async with world.controller(mlflow_secret_file=secret) as client:
        answer = await client.http.post(PATH, content="no JSON", headers=signed("no JSON"))
    assert answer.status_code == 400
    assert answer.json()["expected"] == "JSON of Delivery: entity, action, data"


async def test_without_a_secret_there_is_no_webhook_and_it_says_how_to_have_one(world: Any) -> None:
    async with world.controller() as client:
        answer = await client.http.post(PATH, json=PROMOTED)
    assert answer.status_code == 404
    assert "PERENNIAL_MLFLOW_WEBHOOK_SECRET_FILE" in answer.json()["next"]


async def test_text_that_only_looks_like_a_nul_is_taken(world: Any) -> None:
    asked = {"reason": "a path: C:\\u0000", "actor": "ada"}
    body = json.dumps(asked)
    assert "\\\\u0000" in body
    async with world.controller() as client:
        answer = await client.http.post("/api/v1/pipelines/flights/runs", content=body)
        wrong = await client.http.post(
            "/api/v1/pipelines/flights/runs", content='{"reason": "\\u0000", "actor": "ada"}'
        )
    assert (answer.status_code, wrong.status_code) == (202, 400)


def test_a_real_mlflow_tells_of_an_alias(world: Any, secret: str, mlflow_url: str, waiting: Any) -> None:
    with served(make_app(Controller.of(world.settings(mlflow_secret_file=secret))), lifespan="on") as url:
        waiting(lambda: httpx.get(f"{url}/readyz").status_code == 200, "the controller")
        api = httpx.Client(base_url=f"{mlflow_url}/api/2.0/mlflow", timeout=30)
        hook = {
            "name": "perennial",
            "url": f"{url}{PATH}",
            "secret": SECRET,
            "events": [{"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}],
        }
        made = api.post("/webhooks", json=hook)
        assert made.status_code == 200, made.text
        api.post("/registered-models/create", json={"name": "flights"})
        run = api.post("/runs/create", json={"experiment_id": "0"}).json()["run"]["info"]
        version = {"name": "flights", "run_id": run["run_id"], "source": f"{run['artifact_uri']}/model"}
        number = api.post("/model-versions/create", json=version).json()["model_version"]["version"]
        aliased = api.post("/registered-models/alias", json={"name": "flights", "alias": "champion", "version": number})
        assert aliased.status_code == 200, aliased.text
        headers = {"Authorization": "Bearer correct-horse"}

        def noted() -> list[str]:
            rows = httpx.get(f"{url}/api/v1/pipelines/flights/decisions", headers=headers).json()["decisions"]
            return [row["summary"] for row in rows if row["kind"] == "registry"]

        waiting(noted, "MLflow's webhook")
        assert noted() == [f"alias champion -> version {number}"]
