"""What is measured: figures, each a ratio of two values of one round, and the jobs that bring the values."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Literal

from benchmarks.harness import Job, Values


@dataclass(frozen=True)
class Figure:
    """A ratio with its goal.

    Args:
        row: its row in the table of goals.
        what: for people.
        over: name of the value above the line.
        under: name of the value below it.
        goal: what is to be reached; None for information.
        sense: whether the ratio must be at most or at least the goal.
    """

    row: str
    what: str
    over: str
    under: str
    goal: float | None = None
    sense: Literal["most", "least"] = "least"

    def reached(self, ratio: float) -> bool | None:
        """Whether that ratio is good enough; None when there is no goal."""
        if self.goal is None:
            return None
        return ratio <= self.goal if self.sense == "most" else ratio >= self.goal


@dataclass(frozen=True)
class Group:
    """Figures that share their jobs.

    Args:
        figures: what comes out.
        jobs: what is run in every round, each in an interpreter of its own.
        rounds: how often, and how often in a quick run.
        unit: of the values.
        needs: modules without which the group cannot run on this Python.
    """

    figures: tuple[Figure, ...]
    jobs: tuple[Job, ...]
    rounds: tuple[int, int] = (5, 2)
    unit: str = "ns a record"
    needs: tuple[str, ...] = ()

    def measure(self, *, quick: bool) -> list[Values]:
        """The values of each round; every second round takes the jobs in the opposite order."""
        rounds: list[Values] = []
        for number in range(self.rounds[quick]):
            values: Values = {}
            for job in self.jobs[:: -1 if number % 2 else 1]:
                values.update(job.run(quick=quick))
            rounds.append(values)
        return rounds


@dataclass(frozen=True)
class Result:
    """A figure as it was measured.

    Args:
        figure: which.
        ratios: one for each round.
    """

    figure: Figure
    ratios: tuple[float, ...]

    @classmethod
    def of(cls, figure: Figure, rounds: list[Values]) -> Result:
        return cls(figure, tuple(values[figure.over] / values[figure.under] for values in rounds))

    @property
    def median(self) -> float:
        return median(self.ratios)

    @property
    def verdict(self) -> str:
        """``ok``, ``miss``, or nothing for information."""
        return {True: "ok", False: "miss", None: ""}[self.figure.reached(self.median)]
