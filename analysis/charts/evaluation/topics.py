"""How reliable each agent and each strategy is on each topic."""

from __future__ import annotations

import altair as alt

from analysis.charts.evaluation.cells import shares_in_cells
from analysis.charts.evaluation.picture import Picture
from analysis.evaluation.scoring.scores import Contestant

CELL_WIDTH = 78
CELL_HEIGHT = 28
MOST_TOPICS = 60


def topics(picture: Picture) -> alt.LayerChart | None:
    """Accuracy by topic, with the number of questions; None where all questions are on one topic."""
    contestants = (*picture.field.of("agent"), *picture.field.of("strategy"))
    by_topic = {each.name: accuracy_by_topic(each) for each in contestants}
    counts = {topic: n for topic, (_, n) in by_topic[contestants[0].name].items()}
    if len(counts) < 2:
        return None
    largest = sorted(counts, key=lambda topic: (-counts[topic], topic))[:MOST_TOPICS]
    values = [
        {"who": name, "topic": f"{topic} ({counts[topic]})", "accuracy": by_topic[name][topic][0]}
        for name in by_topic
        for topic in largest
    ]
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("who:N", sort=list(by_topic), title=None, axis=alt.Axis(labelAngle=-35)),
        y=alt.Y("topic:N", title=None),
    )
    chart: alt.LayerChart = shares_in_cells(base, "accuracy", "accuracy").properties(
        title=alt.Title(picture.title, subtitle="accuracy by topic (number of questions)"),
        width=CELL_WIDTH * len(by_topic),
        height=CELL_HEIGHT * len(largest),
    )
    return chart


def accuracy_by_topic(contestant: Contestant) -> dict[str, tuple[float, int]]:
    """The accuracy on each topic, and how many questions there are of it."""
    right: dict[str, list[float]] = {}
    questions: dict[str, set[str]] = {}
    for outcome in contestant.outcomes:
        right.setdefault(outcome.topic, []).append(outcome.expected)
        questions.setdefault(outcome.topic, set()).add(outcome.question_id)
    return {topic: (sum(each) / len(each), len(questions[topic])) for topic, each in right.items()}
