"""The page `docs/tables.md`, made from the schema so that it cannot disagree with it.

`python -m infertap.tables.document > docs/tables.md` writes it; a test says whether the file is current.
"""

import sys

from infertap.tables.schema import INFERENCE, LEDGER, SPANS, TableSchema

_INTRODUCTION = """\
# The tables

<!-- Made by `python -m infertap.tables.document > docs/tables.md`; change `middleware/infertap/tables/` instead. -->

infertap writes three Delta tables below one root: `inference` with a row for each request, `spans` with a row for each
span of a sampled trace, and `ledger` with counts that say whether the other two are complete. Any Delta reader opens
them. In a bucket, and how old rows are deleted: [storage.md](storage.md).

Some columns wait for parts that are not built yet (protocols, sampling rules, payload files): they exist, so that no
table has to change later, and are NULL. The column "filled by" says which.

- TIMESTAMP columns hold microseconds, UTC. Partition columns are UTC days: name them in a query, and it reads less.
- MAP, ARRAY and STRUCT columns are never NULL but empty, because engines disagree about NULL there.
- You may add columns; infertap leaves them NULL. Rows that break a CHECK constraint of yours go to `parked/` in the
  spool, and count as `lost` with the cause `parked`. A NOT NULL column of yours stops the delivery: the spool fills.
- The Delta log and the Parquet footers hold minima and maxima of ids, times and numbers only, never of content.
- A local root has mode 0700, its files 0600, and a `.gitignore` that keeps all of it out of a repository.
- In `infertap query`, `SHOW TABLES` and `DESCRIBE inference` list tables and columns, yours too. Times have seconds
  (`request_time >= '2026-01-31 14:03:00'`), brackets lead into lists, maps and structs (`tags['arm']`,
  `events[1]['name']`), and JSON is text (`regexp_match(attributes, '"http.route":"([^"]*)"')[1]`).
- A stream that reads a table must not lag by more than two days: that is how long log and replaced files are kept.

## How they join

- **One request and its own span** have the same `trace_id` and `span_id`. A request whose trace is not sampled has no
  span: `LEFT JOIN` keeps its row.
- **All spans of a trace** have the same `trace_id`. This always joins. Requests that one caller sends within one trace
  share it.
- **`request_id`** is the request that a span belongs to, where the process that wrote the span knows it. It is NULL on
  the app's spans behind a sidecar with the same `outer_secret`, on spans that a receiver took (`infertap collect`,
  `serve --otlp-*`) unless the span became a row itself, and on all spans of a sender with the destination `both`.

## Questions in SQL

`infertap query` runs them. Times are UTC, and a time needs its seconds (`'2026-11-27 14:03:00'`). Requests and latency
by route; the route is in the name of the request's own span, for example `GET /wines/{number}`:

```sql
SELECT spans.name AS route, count(*) AS n, approx_percentile_cont(duration_ns, 0.99) / 1e6 AS p99_ms
FROM inference JOIN spans ON inference.trace_id = spans.trace_id AND inference.span_id = spans.span_id
GROUP BY spans.name ORDER BY n DESC
```

The sidecar does not know the routes of the app behind it, and no app has one for a wrong address: there the name holds
the path. Failed requests by hour; a stream that breaks off has status 200 and says so in `end_reason`:

```sql
SELECT hour, count(*) AS n, sum(failed) AS failed, round(100.0 * sum(failed) / count(*), 2) AS percent
FROM (SELECT date_trunc('hour', request_time) AS hour,
             CASE WHEN status_code >= 500 OR end_reason NOT IN ('complete', 'client_disconnect')
                  THEN 1 ELSE 0 END AS failed
      FROM inference WHERE request_date >= current_date - INTERVAL '7 days')
GROUP BY hour ORDER BY hour
```

`attributes` is JSON text. `infertap query` has no functions for JSON; a regular expression does for single values:

```sql
SELECT regexp_match(attributes, '"http.response.status_code":([0-9]+)')[1] AS status, count(*) AS n
FROM spans WHERE kind = 'SPAN_KIND_SERVER' GROUP BY 1 ORDER BY 2 DESC
```

DuckDB and Spark have them. In DuckDB, after `infertap query "SELECT * FROM spans" --format parquet > spans.parquet`:

```sql
SELECT attributes ->> '$."http.route"' AS route, count(*) AS n
FROM 'spans.parquet' WHERE kind = 'SPAN_KIND_SERVER' GROUP BY 1 ORDER BY 2 DESC
```

Worth knowing:

- A request without a body has `request` = `''` where middleware or sidecar wrote the row, and NULL where the row came
  over OTLP (`infertap collect`).
- An exception that the app does not handle: the framework or the server answers it, outside of the middleware. So the
  row has status 500, `error_type` and `error_message`, but no `response`, and `response_bytes` is 0.
- `execution_duration_ms` is cut to whole milliseconds; `duration_ns` is exact.
"""

_ABOUT = {
    INFERENCE.name: "One row for each request. Names and types up to `requester` are those of Databricks' AI-Gateway "
    "inference table, with `request_id` for `databricks_request_id`.",
    SPANS.name: "One row for each span: names and types of Unity Catalog's OpenTelemetry span table, version 2, with "
    "attributes as JSON text instead of VARIANT. The server span of a request is here without the bodies.",
    LEDGER.name: "Counts to add up. A row says how many requests more than the rows before it.",
}

_AFTER = {
    SPANS.name: """\
A view for Databricks, where VARIANT exists:

```sql
CREATE VIEW spans_variant AS SELECT * EXCEPT (attributes), parse_json(attributes) AS attributes FROM spans
```
""",
    LEDGER.name: """\
What the outcomes mean, for the requests that arrived in a minute:

| outcome | destination | meaning |
|---|---|---|
| `seen` | null | requests that arrived, without excluded paths |
| `kept` | null | rows that went into the spool |
| `sampled` | null, or the destination | left out by a rule; for `otlp`, by the trace's sampling decision |
| `lost` | null, or the destination | see `cause`; null where it was lost before the spool, for every destination |
| `written` | the destination | delivered: for `table`, rows in `inference` |

For each destination, with the counts without destination added: `seen = written + sampled + lost + waiting`. What waits
is in the spool. What the drainer itself counts (everything with a destination but `written` of `table`) comes with the
slot's next commit, at the latest when its process has gone. Is anything missing in the tables?

```sql
SELECT seen, written, sampled, lost, seen - written - sampled - lost AS waiting FROM (
  SELECT sum(CASE WHEN outcome = 'seen' THEN count ELSE 0 END) AS seen,
         sum(CASE WHEN outcome = 'written' THEN count ELSE 0 END) AS written,
         sum(CASE WHEN outcome = 'sampled' THEN count ELSE 0 END) AS sampled,
         sum(CASE WHEN outcome = 'lost' THEN count ELSE 0 END) AS lost
  FROM ledger WHERE destination = 'table' OR destination IS NULL)
```

The same by minute, for today:

```sql
SELECT minute, destination, outcome, cause, sum(count) AS requests
FROM ledger WHERE date = current_date GROUP BY 1, 2, 3, 4 ORDER BY 1
```

`segment_no` is the highest segment of the slot that was counted in the same commit: all rows of `inference` up to that
segment are in its counts.
""",
}


def document() -> str:
    """The whole page, Markdown."""
    return "\n".join([_INTRODUCTION, *(_section(table) for table in (INFERENCE, SPANS, LEDGER))])


def _section(table: TableSchema) -> str:
    lines = [
        f"## `{table.name}`",
        "",
        _ABOUT[table.name],
        "",
        "| column | type | meaning | filled by |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{column.name}` | `{column.type}` | {column.meaning} | {column.filled_by} |" for column in table.columns
    ]
    lines += [
        "",
        f"Partitioned by `{table.partition_by}`; statistics for {', '.join(f'`{s}`' for s in table.statistics)}.",
        "",
    ]
    return "\n".join(lines) + (f"\n{_AFTER[table.name]}" if table.name in _AFTER else "")


if __name__ == "__main__":
    sys.stdout.write(document())
