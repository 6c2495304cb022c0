"""The pages as a browser gets them: hostile words stay words, nothing is loaded from elsewhere, and a phone can show them."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from perennial_controller.pages.links import Links, figure
from perennial_controller.pages.model import Glance, Link, Moment, Overview, RunStory, Taken, Timeline, Version
from perennial_controller.pages.render import overview_page, problem_page, style, timeline_page
from perennial_controller.steps import Step
from perennial_spec.errors import RequestError

AT = "2026-06-01T12:00:00+00:00"
LATER = "2026-06-01T12:04:30+00:00"
EVIL = '"><script>document.title = "owned"</script><img src=x onerror="document.title=1">{{ 7 * 7 }}'


def glances(evil: str = "") -> Overview:
    link = (Link("Airflow", "http://airflow/dags/x"), Link("MLflow", "http://mlflow/#/models/x"))
    both = (Version("6", 0.9, True), Version("7", 0.1))
    return Overview(
        (
            Glance(
                "flight-delays",
                f"ops{evil}",
                "rolling out",
                f"version 7 has 10% of the traffic{evil}",
                "6",
                AT,
                both,
                links=link,
            ),
            Glance(
                "churn",
                "growth",
                "serving",
                "version 3 is champion",
                "3",
                AT,
                (Version("3", 1.0, True),),
                last_run="promoted",
                last_run_at=AT,
                budget_left=4,
            ),
            Glance(
                "fraud",
                "risk",
                "waiting",
                "decision 12 (over budget): 4 runs since yesterday",
                "9",
                AT,
                firing=("PerennialFeatureDrift", f"Other{evil}"),
                breaker_open=True,
            ),
            Glance(
                "ranking-of-everything-that-has-a-very-long-name",
                "shop",
                "paused",
                "ann has paused retraining: the feed is broken",
            ),
        ),
        AT,
        (f"the registry does not answer{evil}",),
    )


def story(evil: str = "") -> Timeline:
    gates: list[dict[str, Any]] = [
        {"gate": f"roc_auc{evil}", "value": 0.7123, "bound": ">= 0.6", "passed": True},
        {"gate": "gain", "value": None, "bound": ">= 0", "passed": False},
    ]
    steps = (
        Step("train", "success", AT, LATER, "pass", f"version 7 on 200,000 rows{evil}"),
        Step(
            "evaluate",
            "success",
            AT,
            LATER,
            "pass",
            "version 7 against champion 6: roc_auc 0.7499 against 0.6123",
            {},
            gates,
        ),
        Step("approve", "deferred", AT, None),
        Step("analyse_10", "failed", AT, LATER, "fail", "version 7 at 10% fails: error rate 4% > 1%"),
    )
    run = RunStory(
        "alert__20260601T120000__abc",
        "failed",
        AT,
        LATER,
        steps,
        "7",
        "rolled_back",
        None,
        (Link("run in Airflow", "http://airflow/r"),),
    )
    trail = (Taken(AT, "cooling_down", f"until later{evil}"), Taken(LATER, "accepted", "drift: data version 5"))
    drift = Moment(
        3,
        AT,
        "alert",
        f"PerennialFeatureDrift{evil}",
        f"temp has drifted{evil}",
        "accepted",
        f"because{evil}",
        None,
        4,
        LATER,
        trail,
        run,
        links=figure("http://prometheus/graph?g0.expr=x"),
    )
    other = Moment(
        2,
        AT,
        "alert",
        "PerennialPredictionDrift",
        "predictions have drifted",
        "merged",
        "run r has not finished",
        answered_by="r",
        asks_again=3,
    )
    return Timeline(
        "flights", (drift, other, Moment(1, AT, "pause", "Paused", "a look", "noted", "in force", "ann")), 1, AT, ()
    )


class Tags(HTMLParser):
    """Every element, and every attribute that loads or leads somewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        for name, value in attrs:
            if name.startswith("on") or name in {"src", "style"} or (name == "href" and tag != "a"):
                self.loads.append(f"{tag} {name}={value}")
            elif name == "href":
                self.leads.append(value or "")
            elif name == "id":
                self.ids.append(value or "")


PAGES = {
    "overview": lambda evil: overview_page(glances(evil)),
    "timeline": lambda evil: timeline_page(story(evil), glances(evil).pipelines[0], is_older=False),
    "problem": lambda evil: problem_page(RequestError(f"there is none{evil}", expected=f"x{evil}", next=f"y{evil}")),
}


@pytest.mark.parametrize("name", PAGES)
def test_words_from_outside_are_words_and_nothing_is_loaded_but_our_style_sheet(name: str) -> None:
    text = PAGES[name](EVIL)
    tags = Tags(text)
    assert not {"script", "img", "iframe", "form", "style"} & set(tags.names)
    assert tags.loads == ["link href=/static/style.css"]
    assert "{{ 7 * 7 }}" in text
    assert len(tags.ids) == len(set(tags.ids))
    assert tags.names.count("h1") == tags.names.count("main") == 1
    assert not re.search(r"url\(|@import", style())


def test_an_alerts_own_link_is_followed_only_to_the_web() -> None:
    assert figure("javascript:alert(1)") == figure("data:text/html,x") == figure(None) == figure("http://[") == ()
    assert figure("https://prometheus/graph?x=1")[0].url == "https://prometheus/graph?x=1"


def test_links_lead_to_the_run_and_to_the_version() -> None:
    links = Links("http://airflow", "http://mlflow")
    assert links.run("flights", "manual__2026-01-01T00:00:00+00:00")[0].url == (
        "http://airflow/dags/flights/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00"
    )
    assert links.version("flights", "7")[0].url == "http://mlflow/#/models/flights/versions/7"
    assert Links(None, None).pipeline("flights") == ()


def test_the_timeline_tells_the_story() -> None:
    text = timeline_page(story(), None, is_older=False)
    for words in (
        "4 more copies",
        "2 decisions in turn",
        "cooling down: until later",
        "took 4.5 min",
        "version 7 at 10% fails: error rate 4% &gt; 1%",
        "Asked again by",
        "Answered by run r.",
        '<time datetime="2026-06-01T12:00:00+00:00">2026-06-01 12:00:00 UTC</time>',
    ):
        assert words in text
    assert 'href="#decision-3"' in text


def test_a_platform_without_pipelines_says_how_to_begin() -> None:
    assert "perennial new NAME" in overview_page(Overview((), AT))
    assert "Nothing has happened yet." in timeline_page(Timeline("flights", at=AT), None, is_older=False)


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH: apt-get install chromium")


def shown(folder: Path, text: str, width: int, *words: str) -> subprocess.CompletedProcess[str]:
    """A page within a frame as wide as a phone, or wider; the title of the frame's page says by how much it is too wide."""
    inline = text.replace('<link rel="stylesheet" href="/static/style.css">', f"<style>{style()}</style>")
    (folder / "page.html").write_text(inline)
    (folder / "frame.html").write_text(
        f'<body style="margin:0"><iframe id="f" src="page.html" style="border:0;width:{width}px;height:3000px"></iframe><script>'
        "f.onload = () => { const d = f.contentDocument.documentElement;"
        " document.body.dataset.over = d.scrollWidth - d.clientWidth; document.body.dataset.title = f.contentDocument.title; }</script>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--hide-scrollbars"]
    command = [str(CHROMIUM), *flags, "--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}", *words]
    command += [f"--window-size={max(width, 500)},3000", f"file://{folder / 'frame.html'}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@needs_chromium
@pytest.mark.parametrize("width", [320, 1060])
@pytest.mark.parametrize("name", PAGES)
def test_a_phone_and_a_desk_show_the_whole_page_without_scrolling_sideways(
    tmp_path: Path, name: str, width: int
) -> None:
    done = shown(tmp_path, PAGES[name](EVIL), width, "--dump-dom")
    assert 'data-over="0"' in done.stdout
    assert 'data-title="owned"' not in done.stdout
    assert "CONSOLE" not in done.stderr


@needs_chromium
def test_the_share_of_each_version_is_drawn(tmp_path: Path) -> None:
    """In the colours of champion and challenger: style sheet, page and layout work together."""
    from PIL import Image

    shown(tmp_path, overview_page(replace(glances(), away=())), 1060, f"--screenshot={tmp_path / 'page.png'}")
    picture = Image.open(tmp_path / "page.png").convert("RGB")
    counts = {colour: count for count, colour in picture.getcolors(maxcolors=1 << 24) or []}
    champion, challenger = counts.get((0x24, 0x67, 0xB3), 0), counts.get((0xD9, 0x7A, 0x0D), 0)
    assert champion > 5 * challenger > 0
