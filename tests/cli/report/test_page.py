"""The page, as Chromium shows it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ledger_rows import NOON, decision

from perennial_cli.clients.prometheus import Series, Span
from perennial_cli.insight.story import Gate, Now, Version
from perennial_cli.report.model import Report, fired
from perennial_cli.report.page import need_writable, render, write
from perennial_spec.errors import PlatformError

EVIL = '"><script>document.title = "owned"</script><img src=x onerror="document.title=1">{{ 7 * 7 }}$x^2$'
TIMES = [(NOON + timedelta(minutes=m)).timestamp() for m in range(0, 120, 5)]
SPAN = Span(NOON - timedelta(minutes=5), NOON + timedelta(minutes=120), timedelta(minutes=5))


def series(value: float, **labels: str) -> Series:
    return Series(labels, tuple((at, value) for at in TIMES))


def report(evil: str = "") -> Report:
    """A small report; `evil` is put wherever the words are a user's."""
    rows = (decision(3, 60, summary=f"drift {evil}", reason=f"because {evil}"), decision(1, 5))
    first = Version("1", "promoted", "", (Gate("roc_auc", 0.7, ">= 0.6", True),), "1", NOON, NOON, "first", ())
    second = Version(
        "2",
        "rejected",
        f"worse {evil}",
        (Gate("roc_auc", 0.69, ">= 0.6", True), Gate(f"gain {evil}", None, ">= 0.01", False)),
        "2",
        NOON,
        None,
        f"why {evil}",
        ("challenger",),
    )
    return Report(
        pipeline="flights",
        team=f"ops {evil}",
        metric="roc_auc",
        span=SPAN,
        now=Now("1", {"1": 1.0}, ("PerennialFeatureDrift",)),
        threshold=0.2,
        ignored=frozenset({"wind"}),
        drift=(
            series(0.05, feature="wind"),
            series(1.3, feature=f"temp{evil}"),
            series(0.1, feature="prediction"),
        ),
        quality=(series(0.71, version="1"), series(0.66, version="2")),
        quality_low=(series(0.69, version="1"),),
        quality_high=(series(0.73, version="1"),),
        quality_limit=0.68,
        routes=(series(0.9, version="1"), series(0.1, version="2")),
        requests=(series(12.0, kind="answered"), series(0.0, kind="failed")),
        versions=(first, second),
        decisions=rows,
        alerts=fired((), rows, SPAN),
        away={},
    )


class Tags(HTMLParser):
    """Names of all elements, and every attribute that would load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (name in {"src", "href", "xlink:href"} and not (value or "").startswith("#")):
                self.loads.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")


def test_words_of_users_are_words_on_the_page() -> None:
    text = render(report(EVIL))
    tags = Tags(text)
    assert "script" not in tags.names
    assert "img" not in tags.names
    assert tags.loads == []
    assert "{{ 7 * 7 }}" in text
    assert "$x^2$" in text  # no formula either


def test_the_page_loads_nothing_and_may_not() -> None:
    text = render(report())
    assert Tags(text).loads == []
    assert "default-src 'none'" in text
    assert not re.search(r"url\((?!#)|@import", text)


def test_every_id_is_there_once_and_every_reference_leads_to_one() -> None:
    text = render(report())
    ids = Tags(text).ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:url\(|xlink:href=\")#([^)\"]+)", text)) <= set(ids)


def test_each_retraining_is_marked_in_the_charts_and_each_chart_says_what_it_shows() -> None:
    text = render(report())
    for chart in ("drift", "quality", "routes", "requests"):
        assert f'id="{chart}-wide-retraining-3"' in text
        assert f'id="{chart}-narrow-retraining-1"' in text
    labels = re.findall(r'<figure[^>]* aria-label="([^"]+)"', text)
    assert len(labels) == 5
    assert any("temp 1.30" in label for label in labels)
    assert any("version 1: 0.710" in label for label in labels)


def test_versions_stand_side_by_side_with_all_gates() -> None:
    text = render(report())
    table = text[text.index('id="versions"') : text.index('id="decisions"')]
    assert "✓ 0.69" in table
    assert "✗ -" in table
    assert table.count("<th>gain") == 1


def test_a_part_that_was_away_is_named_on_the_page() -> None:
    empty = replace(report(), drift=(), quality=(), routes=(), requests=(), alerts=(), away={"prometheus": "refused"})
    text = render(empty)
    assert "Not known: prometheus was away" in text
    assert "<svg" not in text


def test_a_file_is_written_whole_and_one_that_cannot_be_is_told_before(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("old")
    need_writable(file)
    write(file, "new")
    assert file.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(PlatformError, match="it is a folder"):
        need_writable(tmp_path)
    with pytest.raises(PlatformError, match="its folder does not exist"):
        need_writable(tmp_path / "no" / "page.html")


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH: apt-get install chromium")


def chromium(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--hide-scrollbars"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={folder / 'profile'}", *words, f"file://{folder / 'page.html'}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@needs_chromium
def test_chromium_shows_the_page_with_nothing_on_the_console(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(render(report(EVIL)))
    done = chromium(tmp_path, "--dump-dom")
    assert "CONSOLE" not in done.stderr
    assert "<title>flights: the last 2 h 5 min</title>" in done.stdout
    assert "Versions side by side" in done.stdout


@needs_chromium
@pytest.mark.parametrize("width", [1100, 500])
def test_the_charts_are_drawn_in_both_widths(tmp_path: Path, width: int) -> None:
    """The drift's strongest colour is on the picture: SVG, page colours and layout work together."""
    from PIL import Image

    (tmp_path / "page.html").write_text(render(report()))
    chromium(tmp_path, f"--screenshot={tmp_path / 'page.png'}", f"--window-size={width},1200")
    picture = Image.open(tmp_path / "page.png").convert("RGB")
    counts = {colour: count for count, colour in picture.getcolors(maxcolors=1 << 24) or []}
    assert picture.width == width
    assert counts.get((0xB3, 0x26, 0x1E), 0) > 500
