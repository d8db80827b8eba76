"""The Dockerfile, read as its builder would read it: nothing here can build it."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) in order, continued lines joined, comments left out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(name.upper(), rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def of(instructions: list[tuple[str, str]], wanted: str) -> list[str]:
    return [rest for name, rest in instructions if name == wanted]


def test_what_it_copies_is_there_and_not_ignored(instructions: list[tuple[str, str]]) -> None:
    """Every source of a COPY exists in the checkout, and `.dockerignore` lets it into the build."""
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignore[0] == "*"
    allowed = [line[1:] for line in ignore if line.startswith("!")]
    sources = [
        source
        for arguments in of(instructions, "COPY")
        if not arguments.startswith("--from=")
        for source in arguments.split()[:-1]
    ]
    assert "middleware" in sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if not any(fnmatch(source, pattern) for pattern in allowed)] == []


def test_stages_are_named_before_they_are_copied_from(instructions: list[tuple[str, str]]) -> None:
    """`COPY --from` names a stage of this file, and the last stage is another one."""
    stages = [match[1] for rest in of(instructions, "FROM") if (match := re.search(r"\bAS (\w+)$", rest))]
    copied = [match[1] for rest in of(instructions, "COPY") if (match := re.match(r"--from=(\w+)", rest))]
    assert copied == stages == ["build"]
    assert len(of(instructions, "FROM")) == 2


def test_every_image_has_a_fixed_tag(instructions: list[tuple[str, str]]) -> None:
    """No `latest`, said or silent."""
    arguments = dict(rest.split("=", 1) for rest in of(instructions, "ARG"))
    images = [rest.split()[0] for rest in of(instructions, "FROM")]
    named = [re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], image) for image in images]
    assert [image for image in named if not re.fullmatch(r"[\w./-]+:(?!latest$)[\w.-]+", image)] == []


def test_it_does_not_run_as_root(instructions: list[tuple[str, str]]) -> None:
    """The last USER is a number other than 0, which `runAsNonRoot` can check, and comes after all that needs root."""
    (user,) = of(instructions, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    names = [name for name, _ in instructions]
    assert "RUN" not in names[names.index("USER") :]


def test_it_starts_infertap_itself(instructions: list[tuple[str, str]]) -> None:
    """In exec form, so that the process gets the container's signals."""
    assert of(instructions, "ENTRYPOINT") == ['["infertap"]']
    assert of(instructions, "CMD") == ['["serve"]']
