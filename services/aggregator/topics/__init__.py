"""Topics of questions: a small protocol, and one classifier behind it."""

from __future__ import annotations

from services.aggregator.topics.classifier import TopicClassifier, TopicWords, shipped

__all__ = ["TopicClassifier", "TopicWords", "shipped"]
