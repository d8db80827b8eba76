"""What landed in the tables, asked in SQL like anybody would."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infertap.tables.query import QueryError, query, rows
from infertap.targets import TableTarget
from infertap_sidecar.demo.clients import API_KEY, Answered, Kind

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Findings:
    """The rows of one run, set against what its clients saw."""

    sent: int
    matching: int
    """Requests with exactly one row, whose status is the one that the client saw."""
    by_kind: Sequence[Row]
    """kind, requests, statuses, cut_short: rows that ended with the client's disconnect."""
    by_path: Sequence[Row]
    """path, status_code, requests, p50_ms, p95_ms, p99_ms, first_chunk_ms."""
    streamed: Row | None
    failed: Row | None
    redacted: int
    """Values replaced before anything was stored."""
    rows_with_key: int
    """Rows that hold the clients' API key: none, if redaction works."""

    @property
    def complete(self) -> bool:
        """Whether every request landed, once and truly."""
        return self.matching == self.sent


class Run:
    """The rows of one run of the demo; `name` is what its request ids begin with."""

    def __init__(self, target: TableTarget, name: str) -> None:
        self._target = target
        self._mine = f"client_request_id LIKE '{name}-%'"
        self._name = name

    def landed(self) -> int:
        """How many of the run's requests have a row by now."""
        try:
            return int(
                self._ask(f"SELECT count(DISTINCT client_request_id) AS n FROM inference WHERE {self._mine}")[0]["n"]
            )
        except QueryError:
            # There is no table before the first commit.
            return 0

    def findings(self, answers: Sequence[Answered]) -> Findings:
        """Everything the summary shows. Raises: QueryError, RetryableError: the tables cannot be read."""
        stored: dict[str, list[Row]] = {}
        sql = f"SELECT client_request_id, status_code, end_reason FROM inference WHERE {self._mine}"
        for row in self._ask(sql):
            stored.setdefault(row["client_request_id"], []).append(row)
        found = {answer: stored.get(f"{self._name}-{answer.planned.number}", []) for answer in answers}
        totals = self._ask(
            f"SELECT coalesce(sum(redacted_count), 0) AS redacted, {_count_of(API_KEY)} AS holding "
            f"FROM inference WHERE {self._mine}"
        )[0]
        return Findings(
            sent=len(answers),
            matching=sum([row["status_code"] for row in group] == [answer.status] for answer, group in found.items()),
            by_kind=[_of_kind(kind, found) for kind in Kind],
            by_path=self._by_path(),
            streamed=self._one("is_stream AND end_reason = 'complete'", "chunk_count DESC"),
            failed=self._one("status_code >= 500", "request_time"),
            redacted=totals["redacted"],
            rows_with_key=totals["holding"],
        )

    def _by_path(self) -> Sequence[Row]:
        # One path a kind of work: the samples' numbers would make a line each.
        return self._ask(
            f"""
            SELECT CASE WHEN path LIKE '/wines/%' THEN '/wines/{{number}}' ELSE path END AS path,
                   status_code,
                   is_stream,
                   count(*) AS requests,
                   approx_percentile_cont(duration_ns, 0.50) / 1e6 AS p50_ms,
                   approx_percentile_cont(duration_ns, 0.95) / 1e6 AS p95_ms,
                   approx_percentile_cont(duration_ns, 0.99) / 1e6 AS p99_ms,
                   approx_percentile_cont(time_to_first_chunk_ns, 0.50) / 1e6 AS first_chunk_ms
            FROM inference WHERE {self._mine}
            GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
            """
        )

    def _one(self, condition: str, order: str) -> Row | None:
        found = self._ask(f"SELECT * FROM inference WHERE {self._mine} AND {condition} ORDER BY {order} LIMIT 1")
        return found[0] if found else None

    def _ask(self, sql: str) -> list[dict[str, Any]]:
        return rows(query(self._target, sql))


def _of_kind(kind: Kind, found: Mapping[Answered, Sequence[Row]]) -> Row:
    mine = [row for answer, group in found.items() if answer.planned.kind is kind for row in group]
    return {
        "kind": str(kind),
        "requests": sum(answer.planned.kind is kind for answer in found),
        "rows": len(mine),
        "statuses": sorted({row["status_code"] for row in mine}),
        "cut_short": sum(row["end_reason"] == "client_disconnect" for row in mine),
    }


def _count_of(text: str) -> str:
    """SQL that counts the rows with `text` in a body or a header."""
    columns = ("request", "response", "query", "CAST(map_values(request_headers) AS VARCHAR)")
    return f"count(*) FILTER (WHERE {' OR '.join(f'{column} LIKE {chr(39)}%{text}%{chr(39)}' for column in columns)})"
