"""Settings: precedence, all problems at once, unknown names, and no secret in any word that is said."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infertap.config import DEFAULT_EXCLUDE_PATHS, Config
from infertap.errors import ConfigError

_SECRET = "wJalrXUtnFEMI-K7MDENG"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `INFERTAP_*` variable of the machine."""
    for name in list(os.environ):
        if name.startswith("INFERTAP_"):
            monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A function that writes the file that `INFERTAP_CONFIG` names."""

    def write(text: str) -> Path:
        path = tmp_path / "infertap.toml"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setenv("INFERTAP_CONFIG", str(path))
        return path

    return write


def _problems(**arguments: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        Config(**arguments)
    assert str(caught.value) == "\n".join(caught.value.lines)
    return caught.value.problems


def test_the_defaults_are_the_documented_ones() -> None:
    """Users size their machines by them."""
    config = Config()
    assert (config.tables, config.destination, config.content) == ("./inference_tables", "auto", "full")
    assert (config.spool_bytes_max, config.queue_bytes_max) == (1 << 30, 64 << 20)
    assert (config.commit_bytes_max, config.capture_bytes_max, config.inline_bytes_max) == (16 << 20, 16 << 20, 1 << 20)
    assert (config.spool_flush_ms, config.commit_interval_s, config.drain_s) == (50, 10, 10)
    assert (config.drainer, config.durability, config.server_span) == ("process", "batched", "light")
    assert config.storage_options == {}
    assert (config.request_id_header, config.requester_header, config.spool_dir) == (None, None, None)
    assert config.sources == {}
    assert config.warnings == ()


def test_argument_beats_environment_beats_file_beats_default(
    toml: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting comes from its strongest source, and `sources` names it."""
    file = toml('drain_s = 1\ncommit_interval_s = 1\nspool_flush_ms = 1\ntables = "/file"\n')
    monkeypatch.setenv("INFERTAP_DRAIN_S", "2")
    monkeypatch.setenv("INFERTAP_COMMIT_INTERVAL_S", "2")
    config = Config(drain_s=3)
    assert (config.drain_s, config.commit_interval_s, config.spool_flush_ms, config.content) == (3, 2, 1, "full")
    assert config.sources == {
        "drain_s": "argument",
        "commit_interval_s": "INFERTAP_COMMIT_INTERVAL_S",
        "spool_flush_ms": str(file),
        "tables": str(file),
    }


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployment templates leave empty variables behind."""
    monkeypatch.setenv("INFERTAP_TABLES", "")
    monkeypatch.setenv("INFERTAP_CONFIG", "")
    assert Config().tables == "./inference_tables"


def test_a_named_file_wins_over_the_variable(toml: Callable[[str], Path], tmp_path: Path) -> None:
    """`Config(config_file=...)` is what the flag `--config` becomes."""
    toml("drain_s = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("drain_s = 2\n")
    assert Config(config_file=str(other)).drain_s == 2


def test_all_problems_come_at_once(toml: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """From every source, each with the name of the setting and of its source."""
    file = toml('spool_flush_mss = 5\ncontent = "some"\nworkers = 4\n')
    monkeypatch.setenv("INFERTAP_QUEUE_BYTES_MAX", "64 MB")
    monkeypatch.setenv("INFERTAP_DRAIN_S", "soon")
    text = "\n".join(_problems(destination="delta", platfrom="mlflow"))
    for expected in (
        f"spool_flush_mss ({file}): no such setting; did you mean spool_flush_ms?",
        f"content ({file}): 'some' is none of full, metadata",
        f"workers ({file}): no such setting",
        "queue_bytes_max (INFERTAP_QUEUE_BYTES_MAX): '64 MB' is no size; expected a size such as 64MiB, or a number",
        "drain_s (INFERTAP_DRAIN_S): 'soon' is no number; expected seconds, such as 2.5, without the unit",
        "destination: 'delta' is none of auto, table, otlp, both, none",
        "platfrom: no such setting",
    ):
        assert expected in text


@pytest.mark.parametrize("text", ["= 5", "tables = ", 'a = "\x00"'])
def test_a_broken_file_is_one_problem_that_names_it(toml: Callable[[str], Path], text: str) -> None:
    """With the place in the file."""
    file = toml(text)
    (problem,) = _problems()
    assert problem.startswith(f"configuration file {file}: ")


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, a folder, or no UTF-8; beside the other problems."""
    (tmp_path / "latin.toml").write_bytes(b'tables = "\xe9"')
    for path in (tmp_path / "missing.toml", tmp_path, tmp_path / "latin.toml"):
        monkeypatch.setenv("INFERTAP_CONFIG", str(path))
        problems = _problems(drain_s=-1)
        assert len(problems) == 2
        assert str(path) in problems[0]


@pytest.mark.parametrize(
    "name",
    [
        "PORT",
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_HTTP",
        "PORT_80_TCP",
        "PORT_80_TCP_PROTO",
        "PORT_80_TCP_PORT",
        "PORT_80_TCP_ADDR",
        "PORT_53_UDP",
    ],
)
def test_variables_of_kubernetes_are_ignored(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A Service called `infertap` puts them into every pod beside it."""
    monkeypatch.setenv(f"INFERTAP_{name}", "tcp://10.0.0.1:80")
    assert Config().warnings == ()


@pytest.mark.parametrize("name", ["UPSTREAM", "LISTEN", "ADMIN", "LOG_FORMAT"])
def test_settings_of_the_sidecar_are_no_mistake_in_an_app(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """App and sidecar may share an environment."""
    monkeypatch.setenv(f"INFERTAP_{name}", "x")
    assert Config().warnings == ()


def test_every_problem_names_its_source(monkeypatch: pytest.MonkeyPatch, toml: Callable[[str], Path]) -> None:
    """Variable, file or flag, also for what no type can say; an argument in Python needs none."""
    file = toml('durability = "strict"\nredact_keys = ["--"]\nspool_dir = "~no-such-user/x"\nworker = "x"\n')
    monkeypatch.setenv("INFERTAP_OUTER_SECRET", "short")
    monkeypatch.setenv("INFERTAP_INCLUDE_PATHS", "x")
    monkeypatch.setenv("INFERTAP_SEGMENT_BYTES_MAX", "2GiB")
    flags = {"tables": "--tables", "drain_s": "--drain-s"}
    problems = _problems(tables="x://", drain_s="ten", capture_headers="a b", flags=flags)
    assert [problem.partition(")")[0] for problem in problems[:-1]] == [
        f"worker ({file}",
        "drain_s (--drain-s",
        f"durability ({file}",
        "segment_bytes_max (INFERTAP_SEGMENT_BYTES_MAX",
        "outer_secret (INFERTAP_OUTER_SECRET",
        "tables (--tables",
        f"spool_dir ({file}",
        "capture_headers: no header names: 'a b'",
        "include_paths (INFERTAP_INCLUDE_PATHS",
    ]
    assert problems[-1].startswith(f"redact_keys ({file})")
    assert Config(tables="./x", flags=flags, **_harmless()).sources["tables"] == "--tables"


def _harmless() -> dict[str, Any]:
    """Arguments over what the test above has in file and environment."""
    return {
        "durability": "batched", "redact_keys": (), "spool_dir": None, "outer_secret": None, "include_paths": (),
        "segment_bytes_max": "1MiB", "config_file": os.devnull,
    }  # fmt: skip


def test_a_warning_is_no_problem_and_is_heard_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the reason for the rest, and is not counted."""
    monkeypatch.setenv("INFERTAP_TABELS", "x")
    with pytest.raises(ConfigError) as caught:
        Config(drain_s="ten")
    assert len(caught.value.problems) == 1
    assert caught.value.remarks == Config().warnings
    assert str(caught.value).splitlines()[1] == f"! {Config().warnings[0]}"


def test_only_a_name_that_is_near_is_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`content` has nothing to do with `nonsense`."""
    monkeypatch.setenv("INFERTAP_NONSENSE", "x")
    assert "did you mean" not in Config().warnings[0] + _problems(nonsense=1)[0]
    assert _problems(contents=1)[0].endswith("did you mean content?")


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its value is not repeated: it may be a secret."""
    monkeypatch.setenv("INFERTAP_TABELS", _SECRET)
    monkeypatch.setenv("INFERTAP_ZZZZ", _SECRET)
    first, second = Config().warnings
    assert "INFERTAP_TABELS" in first
    assert "did you mean INFERTAP_TABLES?" in first
    assert "INFERTAP_ZZZZ" in second
    assert "did you mean" not in second
    assert _SECRET not in first + second


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("durability", "strict"),
        ("payload_store", "s3://b/p"),
        ("require_destination", True),
        ("sample_rate", 0.5),
        ("worker", "process"),
    ],
)
def test_what_is_not_built_yet_is_an_error(
    monkeypatch: pytest.MonkeyPatch, toml: Callable[[str], Path], name: str, value: object
) -> None:
    """From every source, and never ignored."""
    expected = f"{name}: {value!r} is not built yet" if name in Config.model_fields else f"{name} is not built yet"
    assert [problem.startswith(expected) for problem in _problems(**{name: value})] == [True]
    toml(f'{name} = "{value}"')
    assert any(name in problem and "not built" in problem for problem in _problems())
    monkeypatch.delenv("INFERTAP_CONFIG")
    monkeypatch.setenv(f"INFERTAP_{name.upper()}", str(value))
    assert any(name in problem and "not built" in problem for problem in _problems())


def test_other_ways_with_binary_bodies_are_an_error() -> None:
    """`binary_bodies` has one value until another one is built."""
    (problem,) = _problems(binary_bodies="base64")
    assert "binary_bodies" in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64MiB", 64 << 20),
        ("64 mib", 64 << 20),
        (" 8KiB ", 8 << 10),
        ("2GiB", 2 << 30),
        ("1TiB", 1 << 40),
        ("123", 123),
        ("123B", 123),
        (456, 456),
        ("0", 0),
    ],
)
def test_sizes(text: object, expected: int) -> None:
    """With a binary unit, or in bytes."""
    assert Config(capture_bytes_max="1TiB", inline_bytes_max=text).inline_bytes_max == expected


@pytest.mark.parametrize("text", ["64MB", "1.5MiB", "-1", -1, "MiB", "", "1e6", 1.5, "64MiB 2", None, True, [1]])
def test_what_is_no_size_is_a_problem(text: object) -> None:
    """Decimal units, fractions, signs and truth values are refused instead of guessed at."""
    (problem,) = _problems(queue_bytes_max=text)
    assert problem.startswith("queue_bytes_max: ")


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch, toml: Callable[[str], Path]) -> None:
    """In the environment; in TOML and as arguments they are lists as well."""
    monkeypatch.setenv("INFERTAP_REDACT_KEYS", " patient_id, ,case no ,")
    assert Config().redact_keys == ("patient_id", "case no")
    monkeypatch.delenv("INFERTAP_REDACT_KEYS")
    toml('exclude_paths = ["/a", "/b/*"]\ninclude_paths = "/c,/d"\n')
    config = Config(capture_headers=["x-one"])
    assert config.exclude_paths == ("/a", "/b/*")
    assert config.include_paths == ("/c", "/d")
    assert config.capture_headers == ("x-one",)
    assert "/docs" in DEFAULT_EXCLUDE_PATHS


@pytest.mark.parametrize("value", [5, [1, 2], {"a": "b"}])
def test_what_is_no_list_of_names_is_a_problem(value: object) -> None:
    """Numbers do not become names."""
    assert any(problem.startswith("exclude_paths") for problem in _problems(exclude_paths=value))


def test_storage_options_are_never_shown(monkeypatch: pytest.MonkeyPatch, toml: Callable[[str], Path]) -> None:
    """Neither in the repr, nor in a problem about them, nor in one about something else."""
    monkeypatch.setenv("INFERTAP_STORAGE_OPTIONS", f"AWS_SECRET_ACCESS_KEY={_SECRET}==, AWS_REGION=eu")
    config = Config()
    assert config.storage_options == {"AWS_SECRET_ACCESS_KEY": f"{_SECRET}==", "AWS_REGION": "eu"}
    assert _SECRET not in repr(config) + str(config)
    assert _SECRET not in "".join(_problems(destination="x"))
    monkeypatch.setenv("INFERTAP_STORAGE_OPTIONS", f"AWS_SECRET_ACCESS_KEY:{_SECRET}")
    assert _SECRET not in "".join(_problems())
    monkeypatch.delenv("INFERTAP_STORAGE_OPTIONS")
    for wrong in (f'{{"key": "{_SECRET}"', f'{{"key": ["{_SECRET}"]}}', f"{{{_SECRET}}}", f"key={_SECRET},x"):
        monkeypatch.setenv("INFERTAP_STORAGE_OPTIONS", wrong)
        assert _SECRET not in "".join(_problems())
    monkeypatch.delenv("INFERTAP_STORAGE_OPTIONS")
    for wrong in (f'"{_SECRET}"', f'["{_SECRET}"]', f'{{ key = ["{_SECRET}"] }}', "{ key = 5 }"):
        toml(f"storage_options = {wrong}")
        problems = "".join(_problems())
        assert "storage_options" in problems
        assert _SECRET not in problems


def test_a_storage_option_with_a_comma_is_written_as_json(
    monkeypatch: pytest.MonkeyPatch, toml: Callable[[str], Path]
) -> None:
    """In a variable or as an argument; a TOML file has tables for that. Without it, the problem says how."""
    options = {"aws_secret_access_key": "ab=c,d", "aws_region": "eu"}
    toml('[storage_options]\naws_secret_access_key = "ab=c,d"\naws_region = "eu"\n')
    assert Config().storage_options == options
    monkeypatch.setenv("INFERTAP_STORAGE_OPTIONS", json.dumps(options))
    assert Config().storage_options == options
    assert Config(storage_options=" {}").storage_options == {}
    monkeypatch.setenv("INFERTAP_STORAGE_OPTIONS", "aws_secret_access_key=ab=c,d")
    (problem,) = _problems()
    assert problem.endswith("or a JSON object, where a value holds a comma")


@pytest.mark.parametrize("uri", [f"s3://AKIA:{_SECRET}@bucket/x", f"az://container/x?sig={_SECRET}"])
def test_a_secret_in_the_tables_uri_is_a_problem_that_does_not_show_it(uri: str) -> None:
    """delta-rs would not read it there, and every message that names the tables would tell it."""
    for tables in (uri, uri.replace("://", "x://")):
        (problem,) = _problems(tables=tables)
        assert problem.startswith("tables: ")
        assert _SECRET not in problem


@pytest.mark.parametrize(
    ("tables", "meant"),
    [("gs:/bucket/x", "gs://bucket/path"), ("S3:bucket", "S3://bucket/path"), ("file:/srv/x", "file:///folder")],
)
def test_a_uri_without_its_slashes_is_no_folder(tables: str, meant: str) -> None:
    """One line with the form that was meant; a folder whose name merely holds a colon stays one."""
    (problem,) = _problems(tables=tables)
    assert problem.endswith(f"a URI looks like {meant}")
    assert Config(tables="./gs:/x").tables == "./gs:/x"


@pytest.mark.parametrize(
    "tables", ["s4://bucket/x", "http://host/x", "memory://", "", "   ", "://x", "s3://[x", "~no-such-user/x"]
)
def test_a_root_that_cannot_be_one_is_a_problem(tables: str) -> None:
    """An unknown scheme, one process's memory, no URI, nobody's home, or nothing at all."""
    assert _problems(tables=tables)[0].startswith("tables")


@pytest.mark.parametrize(
    "tables", ["./x", "/abs/x", "s3://b/x", "S3://b/x", "gs://b", "abfss://c@a.dfs.core.windows.net/x"]
)
def test_roots_that_delta_rs_knows(tables: str) -> None:
    """Folders and object stores."""
    assert Config(tables=tables).tables == tables


def test_limits_that_contradict_each_other_are_problems() -> None:
    """Both at once."""
    problems = _problems(
        inline_bytes_max="2MiB", capture_bytes_max="1MiB", segment_bytes_max="1MiB", spool_bytes_max="1023KiB"
    )
    assert [problem.split()[0] for problem in problems] == ["inline_bytes_max", "segment_bytes_max"]


@pytest.mark.parametrize("name", ["request_id_header", "requester_header"])
@pytest.mark.parametrize("header", ["x y", "x:y", "x\r\ninjected", "", "é"])
def test_what_is_no_header_name_is_a_problem(name: str, header: str) -> None:
    """It would break every answer."""
    assert _problems(**{name: header})[0].startswith(f"{name}: ")


@pytest.mark.parametrize(
    "header",
    [
        "Content-Length", "transfer-encoding", "Set-Cookie", "Connection", "content-type", "Location", "etag", "Date",
        "Access-Control-Allow-Origin", "content-anything", "x-infertap-outer", "WWW-Authenticate", "Trailer", "upgrade",
    ],
)  # fmt: skip
def test_a_header_with_a_meaning_in_answers_cannot_tell_the_id(header: str) -> None:
    """A second Content-Length breaks the answer, a cookie is kept by the browser; the problem names the header."""
    (problem,) = _problems(request_id_header=header)
    assert problem.startswith(f"request_id_header: {header!r} ")


@pytest.mark.parametrize("header", ["x-infertap-request-id", "X-Request-ID", "x-trace"])
def test_an_ordinary_name_may_tell_the_id(header: str) -> None:
    """What is nobody else's."""
    assert Config(request_id_header=header).request_id_header == header


@pytest.mark.parametrize("header", ["Authorization", "cookie", "x-infertap-outer"])
def test_a_credential_is_no_requester(header: str) -> None:
    """It would be redacted in every row."""
    (problem,) = _problems(requester_header=header)
    assert problem.startswith(f"requester_header: {header!r} ")


def test_wrong_names_in_a_list_of_headers_are_named() -> None:
    """Each of them, in one problem."""
    assert _problems(capture_headers="accept,x y,x:z") == ("capture_headers: no header names: 'x y', 'x:z'",)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("queue_bytes_max", "8KiB"),
        ("spool_bytes_max", "2KiB"),
        ("segment_bytes_max", "1KiB"),
        ("commit_bytes_max", "1KiB"),
    ],
)
def test_a_size_that_no_record_fits_into_is_a_problem_with_the_least_one(name: str, least: str) -> None:
    """`9` was meant with a unit, and would lose every request."""
    assert _problems(**{name: "9"}) == (f"{name}: 9 is out of range; expected at least {least}",)
    small = {"segment_bytes_max": "1KiB", name: least}
    assert getattr(Config(**small), name) == int(least.removesuffix("KiB")) << 10


@pytest.mark.parametrize("name", ["include_paths", "exclude_paths"])
@pytest.mark.parametrize(
    ("glob", "words"),
    [
        ("predict/*", "'predict/*' matches no path, because paths begin with /"),
        ("https://h/x", "'https://h/x' matches no path"),
        ("^/x$", "'^/x$' is a regular expression"),
        ("/x$", "'/x$' is a regular expression"),
        (r"/x/\d+", r"'/x/\\d+' is a regular expression"),
    ],
)
def test_what_can_match_no_path_is_a_problem(name: str, glob: str, words: str) -> None:
    """Beside globs that can, each one that cannot is named, with what is expected."""
    (problem,) = _problems(**{name: f"/v1/*,{glob},*/y,?z,[/]a,/$metadata"})
    assert problem.startswith(f"{name}: {words}")
    assert problem.endswith("such as /v1/* or */predict")


def test_a_long_entry_among_the_paths_is_not_repeated() -> None:
    """It may be a key in the wrong variable."""
    (problem,) = _problems(include_paths=f"/x,{_SECRET}")
    assert problem.startswith("include_paths: entry 2 matches no path")


@pytest.mark.parametrize("name", ["redact_keys", "redact_except", "include_paths"])
def test_a_list_of_nothing_but_separators_is_a_problem(name: str) -> None:
    """Whoever wrote it thinks that something was named; an empty text says that nothing is."""
    for text in (", ,", ","):
        assert _problems(**{name: text}) == (f"{name}: there is no name in it; leave it out, or write name,name",)
    for text in ("", " ", "\n"):
        assert getattr(Config(**{name: text}), name) == ()


def test_a_name_without_a_letter_is_no_name() -> None:
    """It would redact nothing."""
    said = "entry 2 has neither a letter nor a digit, so it is no name"
    assert _problems(redact_keys=["patient", " "], redact_except="a,--") == (
        f"redact_keys: {said}",
        f"redact_except: {said}",
    )


def test_a_comma_alone_empties_a_list_with_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable counts as unset, so there must be another way."""
    monkeypatch.setenv("INFERTAP_EXCLUDE_PATHS", ",")
    assert Config(capture_headers=",").capture_headers == Config().exclude_paths == ()


@pytest.mark.parametrize("value", [0, -1, "nan", "inf", 3601])
def test_durations_have_a_range(value: object) -> None:
    """Never zero, never endless, never a NaN."""
    assert _problems(commit_interval_s=value)[0].startswith("commit_interval_s: ")


def test_settings_cannot_be_changed_later() -> None:
    """The tree is frozen."""
    config = Config()
    with pytest.raises(ValueError, match="frozen"):
        config.drain_s = 5  # type: ignore[misc]  # the point of this test
