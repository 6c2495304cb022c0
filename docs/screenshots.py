"""Makes the README's pictures from the demonstration that is running: `make demo && make screenshots`.

Needs Chromium (Debian: apt-get install chromium). Pictures go to docs/pictures/.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console

from perennial_cli.clients.controller import Controller
from perennial_cli.demo.legs import Summary
from perennial_cli.demo.run import SUMMARY
from perennial_cli.demo.screen import summary_table
from perennial_cli.embedded import connection
from perennial_cli.embedded.home import find_home
from perennial_cli.insight.gather import tell
from perennial_cli.insight.parts import parts_of, utc_now
from perennial_cli.insight.screen import show
from perennial_cli.paths import pipelines_dir
from perennial_cli.report.gather import gather
from perennial_cli.report.page import render
from perennial_spec.load import discover
from perennial_spec.platform import Platform

PICTURES = Path(__file__).parent / "pictures"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PIPELINE = "flight-delays"
REPORT_SINCE = timedelta(minutes=20)
"""What the demonstration and its retraining take, and a little before."""


def summary_picture() -> None:
    """The summary table of the last demonstration as an SVG."""
    console = Console(record=True, width=118, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(summary_table(Summary.load(find_home().path / SUMMARY)))
    console.save_svg(str(PICTURES / "demo.svg"), title="make demo")


def why_picture(platform: Platform, pipeline: str) -> None:
    """What `perennial why` says of the retraining that the drift alert started, as an SVG."""
    decisions = Controller(platform).decisions(pipeline)
    id = next(d.id for d in decisions if d.kind == "alert" and d.decision == "accepted" and d.run_id)
    console = Console(record=True, width=112, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with parts_of(platform) as parts:
        show(console, tell(parts, pipeline, id, utc_now()))
    console.save_svg(str(PICTURES / "why.svg"), title=f"perennial why {pipeline} --decision {id}")


def report_pictures(browser: Browser, platform: Platform, pipeline: str, since: timedelta) -> None:
    """The top of the report on a desk, and in the dark on a phone."""
    with parts_of(platform) as parts:
        text = render(gather(parts, discover(pipelines_dir()).get(pipeline).spec, since, utc_now()))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        file.write_text(text)
        for name, size, scheme in (("report", (1040, 1180), "light"), ("report-phone", (390, 844), "dark")):
            page = browser.new_page(
                viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, device_scale_factor=1.5
            )
            page.goto(file.as_uri())
            page.screenshot(path=str(PICTURES / f"{name}.png"))


def story_pictures(browser: Browser, platform: Platform, pipeline: str) -> None:
    """The controller's story of a pipeline on a desk, and all pipelines in the dark on a phone."""
    token = Path(platform.need("token_file")).read_text().strip()
    for name, path, size, scheme in (
        ("story", f"/pipelines/{pipeline}", (1100, 1250), "light"),
        ("pipelines-phone", "/", (390, 700), "dark"),
    ):
        context = browser.new_context(
            http_credentials={"username": "docs", "password": token},
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            device_scale_factor=1.5,
        )
        page = context.new_page()
        page.goto(f"{platform.controller_url}{path}")
        page.screenshot(path=str(PICTURES / f"{name}.png"))
        context.close()


def airflow_picture(page: Page, platform: Platform) -> None:
    """The retraining run that the drift alert started."""
    decisions = Controller(platform).decisions(PIPELINE)
    run = next(d for d in decisions if d.kind == "alert" and d.decision == "accepted" and d.run_id)
    credentials = json.loads(Path(platform.need("airflow_credentials_file")).read_text())
    page.goto(f"{platform.airflow_url}/auth/login")
    page.fill('input[name="username"]', credentials["username"])
    page.fill('input[name="password"]', credentials["password"])
    page.click('button[type="submit"]')
    page.wait_for_url(lambda url: "/login" not in url)
    page.goto(f"{platform.airflow_url}/dags/{run.dag_id}/runs/{run.run_id}")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(5000)  # the page draws its table after its last request
    page.screenshot(path=str(PICTURES / "airflow.png"))


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("error: no Chromium on the PATH\n  next: apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    platform = connection.load()
    summary_picture()
    why_picture(platform, PIPELINE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        airflow_picture(browser.new_page(viewport={"width": 1400, "height": 900}), platform)
        report_pictures(browser, platform, PIPELINE, REPORT_SINCE)
        story_pictures(browser, platform, PIPELINE)
        browser.close()
    print("\n".join(str(file) for file in sorted(PICTURES.iterdir())))


if __name__ == "__main__":
    main()
