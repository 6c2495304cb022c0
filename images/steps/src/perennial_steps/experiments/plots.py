"""What an experiment looked like, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from perennial_spec.experiment import Experiment
from perennial_steps.experiments.arms import Rewards, chance_of_first, learned
from perennial_steps.experiments.sequence import effect
from perennial_steps.experiments.units import Stage
from perennial_steps.training.plots import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 5.0
"""The vertical axis shows so many widths of the last interval: the first ones are much wider."""


def draw_sequence(history: Sequence[Stage], experiment: Experiment, file: Path) -> None:
    """The gain and its confidence sequence, from the first stage at which there is one."""
    found = [
        (stage, effect(stage.challenger, stage.champion, experiment.confidence, experiment.planned))
        for stage in history
    ]
    known = [(stage.challenger.n + stage.champion.n, gain) for stage, gain in found if gain]

    def paint(axes: Axes) -> None:
        counts = [n for n, _ in known]
        axes.fill_between(
            counts, [gain.low for _, gain in known], [gain.high for _, gain in known], alpha=0.25, step="post"
        )
        axes.step(counts, [gain.value for _, gain in known], where="post")
        axes.axhline(experiment.min_effect, ls=":", color="grey")
        if known:
            last = known[-1][1]
            room = max(_SHOWN * (last.high - last.low) / 2, abs(last.value - experiment.min_effect) * 1.2)
            axes.set_ylim(last.value - room, last.value + room)
        axes.set(xlabel="entities", ylabel=f"gain in {experiment.measure}, challenger less champion")

    draw(file, f"Gain and its {experiment.confidence:.0%} confidence sequence", paint, left=0.18)


def draw_chances(history: Sequence[Stage], rewards: Rewards, experiment: Experiment, file: Path) -> None:
    """The chance that the challenger is the better version, from the first stage at which anything is known."""
    seen = [
        (stage, learned(replace(rewards, challenger=stage.challenger, champion=stage.champion))) for stage in history
    ]
    known = [(stage.challenger.n + stage.champion.n, chance_of_first(arms)) for stage, arms in seen if arms]

    def paint(axes: Axes) -> None:
        axes.step([n for n, _ in known], [chance for _, chance in known], where="post")
        for bound in (experiment.confidence, 1 - experiment.confidence):
            axes.axhline(bound, ls=":", color="grey")
        axes.set(xlabel="rewards", ylabel="chance that the challenger is better", ylim=(0, 1))

    draw(file, "Thompson sampling", paint)
