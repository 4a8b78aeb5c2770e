"""Input files by reference, and the guard against addresses that lead inside."""

from __future__ import annotations

import base64
import errno
import ipaddress
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from core.config import CoreConfig
from core.errors import InputRejected, StorageFailed
from core.fetch import Fetcher, Inputs, is_public

INSIDE = [
    "127.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "::1",
    "::",
    "fd00::1",
    "fe80::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "ff02::1",
]


class Site(BaseHTTPRequestHandler):
    """/file answers bytes, /large a megabyte, /to?… redirects, anything else 404."""

    def do_GET(self) -> None:
        self.server.seen.append(self.headers["Host"])  # type: ignore[attr-defined]
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path[4:])
            self.end_headers()
            return
        body = {"/file": b"picture", "/large": b"x" * 1_000_000}.get(self.path)
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -batch -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    subprocess.run([*request.split(), *names, *files], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


@pytest.fixture
def site(certificate: Path) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.seen = []  # type: ignore[attr-defined]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def fetcher(certificate: Path) -> Fetcher:
    context = ssl.create_default_context(cafile=str(certificate.with_suffix(".crt")))
    return Fetcher(permitted=lambda address: str(address) == "127.0.0.1", context=context)


def url(site: ThreadingHTTPServer, path: str) -> str:
    return f"https://localhost:{site.server_port}{path}"


def inputs(tmp_path: Path, fetcher: Fetcher | None = None) -> Inputs:
    config = CoreConfig(data_dir=tmp_path, models_dir=tmp_path, outputs_dir=tmp_path)
    return Inputs(config, fetcher)


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_that_lead_inside_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_ordinary_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "0", "[::1]"])
def test_every_spelling_of_this_machine_is_refused(host: str) -> None:
    with pytest.raises(InputRejected, match="not a public address"):
        Fetcher().get(f"https://{host}/x")


@pytest.mark.parametrize("address", ["http://example.org/", "https://user:pw@example.org/"])
def test_other_schemes_and_passwords_are_refused(address: str) -> None:
    with pytest.raises(InputRejected, match="only https://"):
        Fetcher().get(address)


@pytest.mark.parametrize("address", ["https://[", "https://host:99999/", "https://host/\x01"])
def test_malformed_addresses_are_refused(address: str) -> None:
    with pytest.raises(InputRejected):
        Fetcher(permitted=lambda _: True).get(address)


def test_a_redirect_to_a_malformed_address_is_refused(
    site: ThreadingHTTPServer, fetcher: Fetcher
) -> None:
    with pytest.raises(InputRejected, match="malformed"):
        fetcher.get(url(site, "/to?https://["))


def test_a_file_is_fetched_from_the_checked_address_under_its_name(
    site: ThreadingHTTPServer, fetcher: Fetcher
) -> None:
    assert fetcher.get(url(site, "/file")) == b"picture"
    assert site.seen == [f"localhost:{site.server_port}"]  # type: ignore[attr-defined]


def test_a_certificate_for_another_name_is_refused(
    site: ThreadingHTTPServer, fetcher: Fetcher
) -> None:
    with pytest.raises(InputRejected, match=r"certificate|CERTIFICATE"):
        fetcher.get(f"https://127.0.0.1:{site.server_port}/file")


def test_redirects_are_followed_and_checked(site: ThreadingHTTPServer, fetcher: Fetcher) -> None:
    assert fetcher.get(url(site, f"/to?{url(site, '/file')}")) == b"picture"
    with pytest.raises(InputRejected, match="not a public address"):
        fetcher.get(url(site, "/to?https://[::1]/x"))
    with pytest.raises(InputRejected, match="more than 3 redirects"):
        fetcher.get(url(site, "/to?/to?/to?/to?/to?/file"))


def test_size_and_status_are_checked(site: ThreadingHTTPServer, fetcher: Fetcher) -> None:
    small = Fetcher(permitted=fetcher.permitted, context=fetcher.context, max_bytes=1000)
    with pytest.raises(InputRejected, match="larger than"):
        small.get(url(site, "/large"))
    with pytest.raises(InputRejected, match="answered 404"):
        fetcher.get(url(site, "/nothing"))


def test_a_fetched_file_is_kept_by_its_hash(
    tmp_path: Path, site: ThreadingHTTPServer, fetcher: Fetcher
) -> None:
    path = inputs(tmp_path, fetcher).path("input_image", url(site, "/file"))
    assert path.read_bytes() == b"picture"
    assert path.parent == tmp_path / "uploads"


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("core.fetch.os.fsync", full)
    with pytest.raises(StorageFailed):
        inputs(tmp_path).path("f", "data:image/png;base64,QUJD")
    assert list((tmp_path / "uploads").iterdir()) == []


def test_an_upload_is_a_file_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / ("a" * 64)).touch()
    assert inputs(tmp_path).path("f", "upload:" + "a" * 64).name == "a" * 64
    with pytest.raises(InputRejected, match="f: upload bbbbbbbbbbbb… is not on this machine"):
        inputs(tmp_path).path("f", "upload:" + "b" * 64)


def test_a_data_uri_is_decoded(tmp_path: Path) -> None:
    ref = "data:image/png;base64," + base64.b64encode(b"abc").decode()
    assert inputs(tmp_path).path("f", ref).read_bytes() == b"abc"
    with pytest.raises(InputRejected, match="not valid base64"):
        inputs(tmp_path).path("f", "data:image/png;base64,@@@")
