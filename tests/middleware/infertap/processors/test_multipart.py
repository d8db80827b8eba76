"""Multipart forms: fields by name, files by their size, and bodies that do not keep to the form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infertap.processors.decode import decode
from infertap.processors.media import Kind, parse_media_type
from infertap.processors.redact import Redactor
from infertap.processors.secret_names import MARK, SecretNames

_SECRET = "Hunter2-tr0ub4dor"
_REDACTOR = Redactor(SecretNames(["patient_id"]))


def _redact(text: str, boundary: str | None = "B") -> tuple[str, int]:
    return _REDACTOR.body(text, Kind.MULTIPART, boundary=boundary)


def _part(head: str, content: str, end: str = "\r\n") -> str:
    return f"--B{end}Content-Disposition: form-data; {head}{end}{end}{content}{end}"


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_fields_and_files(end: str) -> None:
    """Ordinary fields stay, secret ones go, JSON in a field is read as such, a file leaves its size; any line end."""
    text = "".join(
        (
            _part('name="model"', "whisper", end),
            _part('name="api_key"', _SECRET, end),
            _part('name="meta"', f'{{"jwt":"{_SECRET}","a":1}}', end),
            _part('name="file"; filename="a.wav"', f"{_SECRET}{end}bytes", end),
            f"--B--{end}",
        )
    )
    shown, hits = _redact(text)
    assert hits == 2
    assert shown == "".join(
        (
            _part('name="model"', "whisper", end),
            _part('name="api_key"', MARK, end),
            _part('name="meta"', f'{{"jwt":"{MARK}","a":1}}', end),
            _part('name="file"; filename="a.wav"', f"[WITHHELD: {len(_SECRET) + len(end) + 5} bytes of a file]", end),
            f"--B--{end}",
        )
    )


def test_the_size_of_a_file_is_in_bytes() -> None:
    """Also where they are no UTF-8; and of what is no UTF-8 elsewhere no surrogate is stored."""
    file = bytes(range(256)) * 40 + "naïve".encode()
    raw = b"".join(
        (
            _part('name="name"', "na").encode().rstrip() + b"\xff\r\n",
            _part('name="file"; filename="a\x00.wav"', "").encode()[:-2] + file + b"\r\n--B--\r\n\xfe",
        )
    )
    shown, _ = _redact(decode(raw, parse_media_type("multipart/form-data; boundary=B"), None, bytes_max=1 << 20))
    assert f"[WITHHELD: {len(file)} bytes of a file]" in shown
    assert "na\ufffd\r\n" in shown
    assert shown.endswith("\ufffd")
    shown.encode()


@pytest.mark.parametrize(
    "head",
    [
        'name="password"',
        "name=password",
        "NAME = password",
        "name*=utf-8''password",
        "name='password'",
        'name="patient id"',
        "filename*=utf-8''x; name=\"a\"",
        'x="y"; name="token"',
        'name="a"\r\nContent-Type: text/plain; name="password"',
        'name="password"\r\nContent-Type: text/plain; name="a"',
        'name="api%5Fkey"',
        'name="pass\\word"',
        "name*0=pass; name*1=word",
        'name="=?utf-8?B?cGFzc3dvcmQ=?="',
        '\r\n name="password"',
        'name="a"; x="y"\r\n\tname="password"',
    ],
)
def test_a_fields_name_is_found_however_it_is_written(head: str) -> None:
    """Quoted, bare, extended, or beside a second one."""
    assert _SECRET not in _redact(_part(head, _SECRET) + "--B--\r\n")[0]


def test_the_boundary_counts_only_at_the_start_of_a_line() -> None:
    """A value that contains it is not cut in two."""
    text = _part('name="password"', f"x--B{_SECRET}") + "--B--\r\n"
    assert _redact(text) == (_part('name="password"', MARK) + "--B--\r\n", 1)
    text = _part('name="password"', f"x\r\n--Because {_SECRET}") + "--B--\r\n"
    assert _SECRET not in _redact(text)[0]


@pytest.mark.parametrize(
    "text",
    [
        f"preamble password={_SECRET}\r\n--B\r\n\r\nx\r\n--B--",
        f"--B\r\n\r\nx\r\n--B--\r\nepilogue password={_SECRET}",
        f"--B\r\nContent-Disposition: form-data; name=password {_SECRET}",
        f"--B\r\nno head and no blank line {_SECRET}\r\n--B--",
        f"--B\r\n\r\npassword={_SECRET}\r\n--B--",
    ],
)
def test_what_stands_outside_of_whole_parts_is_not_kept_raw(text: str) -> None:
    """Before, after, and in parts without a head or with half of one."""
    assert _SECRET not in _redact(text)[0]


@pytest.mark.parametrize(
    ("text", "boundary"), [("--B\r\n\r\nx", None), ("--B\r\n\r\nx", ""), ("text", "B"), ("x--B", "B")]
)
def test_without_a_usable_boundary_it_is_refused(text: str, boundary: str | None) -> None:
    """Then the body is withheld."""
    with pytest.raises(ValueError, match="boundary"):
        _redact(text, boundary)


def test_a_boundary_may_hold_any_character() -> None:
    """It is no pattern."""
    text = '--a.(*b\r\nContent-Disposition: form-data; name="k.password"\r\n\r\nS\r\n--a.(*b--'.replace("S", _SECRET)
    assert _SECRET not in _redact(text, "a.(*b")[0]


_WHOLE = (
    _part('name="model"', "whisper")
    + _part('name="password"', _SECRET)
    + _part('name="file"; filename="x"', f"\x00{_SECRET}")
    + _part('name="meta"', f'{{"patient_id":"{_SECRET}"}}')
    + "--B--\r\n"
)


@given(cut=st.integers(1, len(_WHOLE)))
def test_no_secret_survives_wherever_the_body_was_cut(cut: int) -> None:
    """A client that left during the upload; a body without a boundary is refused."""
    try:
        shown, _ = _redact(_WHOLE[:cut])
    except ValueError:
        assert cut < len("--B\r\n")
        return
    assert _SECRET not in shown


@pytest.mark.parametrize(
    ("head", "raw"),
    [
        ('name="a"', f"password={_SECRET}".encode("utf-16-le")),
        (
            'name="a"\r\nContent-Type: text/plain; charset=utf-16',
            b"\xff\xfe" + f"password={_SECRET}".encode("utf-16-le"),
        ),
        ('name="a"\r\nContent-Type: text/plain; charset=utf-7', b"pass+AHc-ord=" + _SECRET.encode()),
        ('name="a"\r\nContent-Type: text/plain; charset=cp037', f"password={_SECRET}".encode("cp037")),
        ('name="a"\r\nContent-Type: text/plain; charset=nonsense', _SECRET.encode()),
        ('name="a"\r\nContent-Type: image/png', _SECRET.encode()),
        ('name="a"\r\nContent-Type: multipart/mixed; boundary=C', b"--C\r\n\r\n" + _SECRET.encode() + b"\r\n--C--"),
        ('name="a"\r\nContent-Transfer-Encoding: base64', b"cGFzc3dvcmQ9SHVudGVyMi10cjB1YjRkb3I="),
        ('name="a"\r\ncontent-transfer-encoding:quoted-printable', b"pass=77ord=3D" + _SECRET.encode()),
    ],
)
def test_a_field_that_is_no_plain_text_is_not_kept(head: str, raw: bytes) -> None:
    """As a whole body of that kind would not be; its size is, and the fields beside it."""
    text = _part(head, raw.decode("utf-8", "replace")) + _part('name="b"', "c") + "--B--\r\n"
    shown, _ = _redact(text)
    assert "[WITHHELD: " in shown
    assert "characters that are no text]" in shown
    assert _SECRET not in shown.replace("\0", "")
    assert "cGFz" not in shown
    assert shown.endswith(_part('name="b"', "c") + "--B--\r\n")


@pytest.mark.parametrize(
    ("media", "content"),
    [
        ("application/x-www-form-urlencoded", "a=1&api%5Fkey=S"),
        ("application/json", '{"jwt":"S"}'),
        ("application/x-ndjson", '{"a":1}\n{"jwt":"S"}'),
        ("text/event-stream", 'data: {"jwt":\ndata: "S"}\n\n'),
        ("text/xml", "<a><jwt>S</jwt></a>"),
    ],
)
def test_a_field_is_read_as_its_own_type_says(media: str, content: str) -> None:
    """A document in a field is redacted as it would be alone."""
    text = _part(f'name="a"\r\nContent-Type: {media}', content.replace("S", _SECRET)) + "--B--\r\n"
    shown, hits = _redact(text)
    assert _SECRET not in shown
    assert MARK in shown
    assert hits == 1


def test_heads_are_redacted_too() -> None:
    """They are a caller's text."""
    text = (
        _part(f'name="a"; filename="api_key={_SECRET}"', "x") + _part(f'name="b"\r\nCookie: {_SECRET}', "y") + "--B--"
    )
    shown, hits = _redact(text)
    assert _SECRET not in shown
    assert hits == 2


def test_a_field_nested_too_deeply_goes_alone() -> None:
    """And not the whole upload with it."""
    text = _part('name="a"', "[" * 200_000) + _part('name="b"', "c") + "--B--\r\n"
    assert _redact(text) == (_part('name="a"', MARK) + _part('name="b"', "c") + "--B--\r\n", 1)
