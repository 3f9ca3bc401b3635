"""The metaclass of messages of an older version: classes have only the fields that a file beside this names.

It is copied into a copy of `schemas` (older_schemas.py) and imports nothing of ours. To the code of services
a field that is not there yet reads as unset, and is not sent: an older service would not have known it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from pydantic._internal._decorators import PydanticDescriptorProxy
from pydantic._internal._model_construction import ModelMetaclass
from pydantic.fields import FieldInfo

FIELDS: dict[str, list[str]] = json.loads(Path(__file__).with_name("first_form.json").read_text())
"""The fields of each class that the older version has; other classes are as they are."""
LATER = "__later__"


class FirstForm(ModelMetaclass):
    """Leaves optional fields out of classes as they are made."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **more: Any) -> type:
        kept = FIELDS.get(name)
        if kept is None:
            return super().__new__(mcs, name, bases, namespace, **more)
        annotations = namespace.get("__annotations__", {})
        later = [
            field
            for field in annotations
            if field in namespace and field not in kept and _is_optional(namespace[field])
        ]
        for field in later:
            annotations[field] = ClassVar[Any]
            namespace[field] = _default(namespace[field])
        for value in namespace.values():
            if isinstance(value, PydanticDescriptorProxy) and hasattr(value.decorator_info, "check_fields"):
                value.decorator_info.check_fields = False
        made = super().__new__(mcs, name, bases, namespace, **more)
        type.__setattr__(made, LATER, frozenset(later) | getattr(made, LATER, frozenset()))
        return made

    def __call__(cls, *arguments: Any, **fields: Any) -> Any:
        later = getattr(cls, LATER, ())
        return super().__call__(
            *arguments, **{name: value for name, value in fields.items() if name not in later}
        )


def _is_optional(value: Any) -> bool:
    return not (isinstance(value, FieldInfo) and value.is_required())


def _default(value: Any) -> Any:
    return (
        value.get_default(call_default_factory=True, validated_data={})
        if isinstance(value, FieldInfo)
        else value
    )
