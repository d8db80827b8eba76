"""Fixtures that every test may use: free ports, receivers in processes of their own, and patience on busy machines."""

import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest

_CLIENT = Path(__file__).parent / "receivers" / "client.py"
_VENDOR_NAMES = (
    "otlp.datadoghq.eu", "otlp.eu01.nr-data.net", "otlp.nr-data.net", "ingest.eu2.signoz.cloud",
    "ingest.us1.observability.splunkcloud.com", "otlp-gateway-prod-eu-west-2.grafana.net", "ingest.lightstep.com",
)  # fmt: skip

# Examples are not judged by their time; everything else stays as hypothesis (or its profile for CI) has it.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_works() -> None:
    """A shell that starts the tests in its background has them ignore SIGINT, and with them all that they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _patient_requests() -> None:
    """Requests that name no timeout of their own get a minute: httpx's 5 s are less than a busy machine may need."""
    # One object, the default of every function and client of httpx.
    timeout = httpx.get.__kwdefaults__["timeout"]
    timeout.connect = timeout.read = timeout.write = timeout.pool = 60.0


@pytest.fixture(scope="session", autouse=True)
def _one_tls_context() -> None:
    """`httpx.get` and its like read all the world's certificates for each request, at 20 ms of processor time."""
    transports: Any = importlib.import_module("httpx._transports.default")
    create = transports.create_ssl_context

    @functools.cache
    def made(_environment: tuple[str | None, ...], **options: Any) -> Any:
        return create(**options)

    def remembered(**options: Any) -> Any:
        return made(tuple(map(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR"))), **options)

    transports.create_ssl_context = remembered


@pytest.fixture(scope="session")
def receivers() -> Any:
    """The module `tests/receivers/client.py`: tests are no package, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location("infertap_test_receivers", _CLIENT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def free_port() -> Iterator[Callable[[], int]]:
    """A function that gives a port of 127.0.0.1 on which nobody listens, and nobody else will while the test runs.

    A socket that is bound and does not listen refuses connections and keeps the port from whoever asks the system for
    any port; a server that sets SO_REUSEADDR, as all of ours do, may still listen on it. Only Linux allows that.
    """
    with ExitStack() as held:

        def find() -> int:
            holder = socket.socket()
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            port: int = holder.getsockname()[1]
            if sys.platform == "linux":
                held.enter_context(holder)
            else:
                holder.close()
            return port

        yield find


@pytest.fixture
def start_otlp_receiver(receivers: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A function that starts an OTLP receiver; its arguments are options of `otlp_receiver.py`."""
    with ExitStack() as stack:
        count = 0

        def start(*options: str) -> Any:
            nonlocal count
            count += 1
            return stack.enter_context(receivers.OtlpReceiver(tmp_path / f"receiver{count}", *options))

        yield start


@pytest.fixture(scope="module")
def _shared_otlp_receiver(receivers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with receivers.OtlpReceiver(tmp_path_factory.mktemp("otlp")) as receiver:
        yield receiver


@pytest.fixture
def otlp_receiver(_shared_otlp_receiver: Any) -> Any:
    """An OTLP receiver (`grpc_port`, `http_port`, `behave`, `requests`, `spans`), well-behaved and empty.

    The process is shared by the tests of a module; what it holds is not.
    """
    _shared_otlp_receiver.behave()
    (_shared_otlp_receiver.folder / "requests.jsonl").unlink(missing_ok=True)
    return _shared_otlp_receiver


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CA (`ca.pem`) and pairs signed by it: a server's, a client's, and the vendors' intakes'."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make certificates")
    folder = tmp_path_factory.mktemp("certificates")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    # Python 3.13 verifies strictly: a CA says what it signs, and a certificate whose key signed it.
    authority = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    run("req", "-x509", *key, "-days", "2", "-subj", "/CN=test-ca", *authority, "-keyout", "ca.key", "-out", "ca.pem")
    local = "IP:127.0.0.1,DNS:localhost"
    vendors = ",".join(f"DNS:{name}" for name in _VENDOR_NAMES)
    for name, subjects in (("server", local), ("client", local), ("vendors", vendors)):
        (folder / "san.cnf").write_text(f"subjectAltName={subjects}\nauthorityKeyIdentifier=keyid\n")
        run("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san.cnf")
        run("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
    return folder


@pytest.fixture(scope="session")
def _vendor_intake(receivers: Any, certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with receivers.VendorIntake(tmp_path_factory.mktemp("vendors"), certificates) as intake:
        yield intake


@pytest.fixture
def vendor_intake(_vendor_intake: Any) -> Any:
    """The six vendors' intakes (`proxy`, `requests`), strict and empty."""
    _vendor_intake.forget()
    return _vendor_intake
