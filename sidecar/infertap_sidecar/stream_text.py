"""What the pieces of a stored event stream say together, where they are those of OpenAI's API or of one like it."""

import json
from typing import Any


def put_together(events: str) -> str:
    """The text of all pieces, choice by choice; empty where there is none in it. What is no piece of text, an error
    in the middle excepted, is left out."""
    texts: dict[Any, list[str]] = {}
    errors: list[str] = []
    for line in events.splitlines():
        if not line.startswith("data:"):
            continue
        try:
            chunk = json.loads(line.removeprefix("data:"))
        except (ValueError, RecursionError):
            # `[DONE]`, or cut off.
            continue
        if not isinstance(chunk, dict):
            continue
        if chunk.get("error"):
            errors.append(json.dumps(chunk["error"], ensure_ascii=False))
        for choice in chunk["choices"] if isinstance(chunk.get("choices"), list) else ():
            if isinstance(choice, dict) and (text := _piece(choice)):
                index = choice.get("index")
                texts.setdefault(index if isinstance(index, int) else 0, []).append(text)
    said = ["".join(pieces) for _, pieces in sorted(texts.items())]
    return "\n".join([*said, *errors]) if said else ""


def _piece(choice: dict[str, Any]) -> str:
    """Of a chat, or of a completion."""
    delta = choice.get("delta")
    text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
    return text if isinstance(text, str) else ""
