"""The OpenAPI document, made from the models of the bodies."""

import functools
import importlib.metadata
from typing import Any

from pydantic.json_schema import models_json_schema

from seedjax.server.bodies import (
    ChatBody,
    CompletionBody,
    EditBody,
    FeedbackBody,
    GenerateBody,
    InfillBody,
)

POSTS: dict[str, tuple[type, str]] = {
    "/v1/chat/completions": (ChatBody, "Complete a conversation"),
    "/v1/completions": (CompletionBody, "Continue a text, or fill a hole in it"),
    "/v1/fim/completions": (CompletionBody, "Fill a hole between prompt and suffix"),
    "/v1/edit/completions": (EditBody, "Edit code between tags"),
    "/v1/apply/completions": (EditBody, "Merge an update into code between tags"),
    "/generate": (GenerateBody, "Continue a text, in the words of Diffulex"),
    "/infill": (InfillBody, "Fill a hole, in the words of llama.cpp"),
    "/v1/feedback": (FeedbackBody, "Store whether a completion was accepted"),
}
GETS = {
    "/health": "Whether requests are served",
    "/metrics": "Numbers, in the format of Prometheus",
    "/v1/models": "The model",
    "/v1/feedback": "How many completions were accepted and rejected",
}


@functools.cache
def document() -> dict[str, Any]:
    """OpenAPI 3.1, as plain values."""
    kinds = {kind for kind, _ in POSTS.values()}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    references, schemas = models_json_schema(
        [(kind, "validation") for kind in ordered],  # type: ignore[misc]
        ref_template="#/components/schemas/{model}",
    )
    statuses = (400, 401, 404, 408, 413, 429, 500, 503)
    faults = {str(status): {"description": "An error object"} for status in statuses}

    def operation(text: str) -> dict[str, Any]:
        return {"summary": text, "responses": {"200": {"description": "OK"}} | faults}

    paths: dict[str, Any] = {
        path: {"get": operation(text)} for path, text in GETS.items()
    }
    for path, (kind, text) in POSTS.items():
        reference = references[(kind, "validation")]  # type: ignore[index]
        body = {
            "required": True,
            "content": {"application/json": {"schema": reference}},
        }
        paths.setdefault(path, {})["post"] = operation(text) | {"requestBody": body}
    return {
        "openapi": "3.1.0",
        "info": {"title": "seedjax", "version": importlib.metadata.version("seedjax")},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }
