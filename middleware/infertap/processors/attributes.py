"""Redact the attributes of spans, and tags: by their names, by what the conventions keep under such a name, by content.

1. Headers are kept by the allow-list, whoever captured them; URLs and queries are read as such.
2. An attribute that cannot be redacted is not kept.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from infertap.processors.redact import Redacted, Redactor
from infertap.processors.secret_names import MARK, SecretNames

_URLS = frozenset({"url.full", "url.original", "url.path", "http.url", "http.target", "url.fragment"})
_ROUTES = frozenset({"http.route", "url.template"})
_QUERIES = frozenset({"url.query"})
_HEADER_PREFIXES = (
    "http.request.header.", "http.response.header.", "rpc.request.metadata.", "rpc.response.metadata.",
    "rpc.grpc.request.metadata.", "rpc.grpc.response.metadata.", "rpc.connect_rpc.request.metadata.",
    "rpc.connect_rpc.response.metadata.",
)  # fmt: skip
_CONTENT = (
    "input.value", "output.value", "mlflow.spanInputs", "mlflow.spanOutputs", "mlflow.traceInputs",
    "mlflow.traceOutputs", "mlflow.chunk.value", "mlflow.chat.tools", "gen_ai.input.messages",
    "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions", "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result", "gen_ai.event.content", "gen_ai.prompt", "gen_ai.completion",
    "traceloop.entity.input", "traceloop.entity.output", "gen_ai.headers", "llm.headers", "llm.prompts",
    "llm.input_messages", "llm.output_messages", "llm.tools", "llm.invocation_parameters", "embedding.embeddings",
    "retrieval.documents", "reranker.input_documents", "reranker.output_documents", "infertap.request.preview",
    "infertap.response.preview",
)  # fmt: skip
"""Attributes (or what they begin with) that hold content, by the conventions in use."""
_RULES_MAX = 4096
_NAME_CHARACTERS_MAX = 128


class _Rule(Enum):
    BY_CONTENT = "by content"
    SECRET = "secret"
    URL = "URL"
    ROUTE = "route"
    QUERY = "query"
    HEADER = "header"
    DROP = "drop"


class _Rules(dict[str, tuple[_Rule, str]]):
    """What is done with an attribute of this name, and the name that is shown (of a header: its own, too)."""

    def __init__(self, find: Callable[[str], tuple[_Rule, str]]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, name: str) -> tuple[_Rule, str]:
        rule = self._find(name)
        if len(name) <= _NAME_CHARACTERS_MAX:
            if len(self) >= _RULES_MAX:
                self.clear()
            self[name] = rule
        return rule


class AttributeRedactor:
    """Redacts attributes.

    Args:
        kept_headers: Lower-case names of the headers that may be kept.
        keeps_content: Whether attributes that hold content are kept.
    """

    __slots__ = ("_keeps_content", "_kept_headers", "_names", "_redactor", "_rules")

    def __init__(
        self, redactor: Redactor, names: SecretNames, *, kept_headers: frozenset[str], keeps_content: bool
    ) -> None:
        self._redactor = redactor
        self._names = names
        # OpenTelemetry once wrote `_` for `-`.
        self._kept_headers = frozenset(name.replace("_", "-") for name in kept_headers)
        self._keeps_content = keeps_content
        self._rules = _Rules(self._rule)

    def all(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Those that are kept, redacted; values keep their types."""
        kept: dict[str, Any] = {}
        for name, value in ((str(key), value) for key, value in attributes.items()):
            rule, shown_name = self._rules[name]
            if rule is _Rule.DROP:
                continue
            try:
                kept[shown_name] = self._redacted(rule, name, _plain(value))[0]
            except Exception:
                # The privacy law: what cannot be redacted is not kept.
                kept[shown_name] = MARK
        return kept

    def one(self, name: str, value: Any) -> tuple[Any, int]:
        """The value of one attribute or tag, and how many values in it were redacted."""
        return self._redacted(self._rules[name][0], name, value)

    def _rule(self, name: str) -> tuple[_Rule, str]:
        shown = self._redactor.label(name)[0]
        header = _header(name)
        if header is not None:
            if header not in self._kept_headers:
                return _Rule.DROP, shown
            return (_Rule.SECRET if self._names.in_fields(header) else _Rule.HEADER), shown
        if not self._keeps_content and name.startswith(_CONTENT):
            return _Rule.DROP, shown
        if self._names.in_attributes(name):
            return _Rule.SECRET, shown
        if name in _URLS:
            return _Rule.URL, shown
        if name in _ROUTES:
            return _Rule.ROUTE, shown
        return (_Rule.QUERY if name in _QUERIES else _Rule.BY_CONTENT), shown

    def _redacted(self, rule: _Rule, name: str, value: Any) -> tuple[Any, int]:
        if rule in (_Rule.SECRET, _Rule.DROP):
            return (MARK, 1) if value not in ("", MARK) else (value, 0)
        if isinstance(value, str):
            return self._text(rule, name, value)
        if isinstance(value, (list, tuple)):
            return self._list(rule, name, value)
        if isinstance(value, dict):
            by_name = {key: self.one(key, item) for key, item in value.items()}
            return {
                self._rules[key][1]: item for key, (item, _) in by_name.items() if self._rules[key][0] is not _Rule.DROP
            }, sum(hits for _, hits in by_name.values())
        return value, 0

    def _text(self, rule: _Rule, name: str, text: str) -> Redacted:
        if rule is _Rule.URL:
            return self._redactor.url(text)
        if rule is _Rule.ROUTE:
            return self._redactor.route(text)
        if rule is _Rule.QUERY:
            return self._redactor.query(text.removeprefix("?"))
        if rule is _Rule.HEADER:
            return self._redactor.field(_header(name) or "", text)
        return self._redactor.value(text)

    def _list(self, rule: _Rule, name: str, values: list[Any] | tuple[Any, ...]) -> tuple[list[Any], int]:
        count = 0
        kept: list[Any] = []
        flag = False
        for value in values:
            # A command line in pieces: `--api-key` and, as the next one, the key.
            shown, hits = (MARK, 1) if flag else self._redacted(rule, name, value)
            flag = isinstance(value, str) and value[:1] == "-" and "=" not in value and self._names.in_text(value)
            kept.append(shown)
            count += hits
        return kept, count


def redacted_resource(
    resource: Mapping[str, Any], redact_keys: Iterable[str], redact_except: Iterable[str] = ()
) -> dict[str, Any]:
    """The resource of this process, as it may be stored."""
    names = SecretNames(redact_keys, redact_except)
    return AttributeRedactor(Redactor(names), names, kept_headers=frozenset(), keeps_content=True).all(resource)


def _header(name: str) -> str | None:
    """The header that an attribute holds, lower-case; None where it holds none."""
    for prefix in _HEADER_PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix).lower().replace("_", "-")
    return None


def _plain(value: Any) -> Any:
    """OpenTelemetry's attribute types, and text for everything else."""
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return str(value)
