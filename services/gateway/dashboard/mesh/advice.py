"""What can be done about a problem of the mesh, in words, and on which page. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.nodes.lease import NodeLease
from services.gateway.dashboard.mesh.view import MeshView
from services.gateway.dashboard.shell.pages import PAGES, Link, named

PAGE = {page.name: page for page in PAGES}
LETS_IN = "lets it in again"
"""How a line about a cordon ends. It says the way out by itself, as those about pipelines and clocks do."""
UNUSABLE = "model_unusable"
"""The code of what does not pass by itself."""


@dataclass(frozen=True)
class Problem:
    """A line about something that is wrong; what to do, where the line does not say so itself, and the page
    where that is done."""

    line: str
    advice: str = ""
    page: Link | None = None


def advised(view: MeshView) -> tuple[Problem, ...]:
    """The problems that the status tells of, with what can be done."""
    lines = () if view.status is None else view.status.problems
    return tuple(_advised(line, view) for line in lines)


def _advised(line: str, view: MeshView) -> Problem:
    if any(pipeline.problem == line for pipeline in view.pipelines):
        return Problem(line, page=PAGE["pipelines"])
    if line.endswith(LETS_IN):
        return Problem(line, page=PAGE["nodes"])
    instance, _, complaint = line.partition(": ")
    node = next((node for node in view.nodes if node.instance == instance), None)
    if node is None:
        return Problem(line)
    workers = [model for model in node.models if model.worker is not None]
    if any(complaint.startswith(f"{model.name}: ") for model in workers):
        return Problem(line, "start that server, or correct the worker or remove it", PAGE["workers"])
    page = {"agent": PAGE["nodes"], "shard_stage": PAGE["pipelines"], "modelstore": PAGE["models"]}
    said = (node.problem, *(model.problem for model in node.models))
    stays = any(one is not None and one.code == UNUSABLE and complaint.endswith(one.message) for one in said)
    return Problem(line, _validate(node) if stays else "", page.get(node.service))


def _validate(node: NodeLease) -> str:
    return f"choir validate on {named(node.host)} says what to change there; then it has to be started again"
