"""Input files by reference: `upload:<sha256>`, `data:…`, `https://…` behind the SSRF guard.

The guard resolves a name once, refuses it unless every address is public, and connects to the
address that it checked (the name could resolve to another one a moment later). Redirects are
checked the same way; size and time are limited.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import os
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx

from core.config import CoreConfig
from core.errors import InputRejected
from core.media.images import rejected
from core.storage import storage_failed

MAX_BYTES: Final = 512_000_000
MAX_SECONDS: Final = 120.0
MAX_REDIRECTS: Final = 3

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Inputs:
    """Brings the files of one job to this machine. Fetched ones are kept beside the uploads."""

    def __init__(self, config: CoreConfig, fetcher: Fetcher | None = None) -> None:
        self._uploads_dir = config.uploads_dir
        self._fetcher = fetcher or Fetcher()

    def path(self, field: str, ref: str) -> Path:
        """The local file behind a reference.

        Raises:
            InputRejected: not there, not allowed, too large; the problem names `field`.
        """
        kind, _, rest = ref.partition(":")
        if kind == "upload":
            return self._upload(field, rest)
        if kind == "data":
            return self._store(field, _data_uri(field, rest))
        if kind == "https":
            try:
                return self._store(field, self._fetcher.get(ref))
            except InputRejected as error:
                raise rejected(field, error.message) from None
        raise rejected(field, f"{ref[:40]!r} is not a file reference")

    def _upload(self, field: str, sha256: str) -> Path:
        path = self._uploads_dir / sha256
        if len(sha256) != 64 or not sha256.isalnum() or not path.is_file():
            raise rejected(field, f"upload {sha256[:12]}… is not on this machine: upload it again")
        return path

    def _store(self, field: str, content: bytes) -> Path:
        if not content:
            raise rejected(field, "the file is empty")
        target = self._uploads_dir / hashlib.sha256(content).hexdigest()
        if not target.exists():
            try:
                self._uploads_dir.mkdir(parents=True, exist_ok=True)
                _write_whole(target, content)
            except OSError as error:
                raise storage_failed(error, self._uploads_dir) from error
        return target


@dataclass(frozen=True, slots=True)
class Fetcher:
    """GET behind the guard.

    `permitted` says which addresses may be connected to; tests put in loopback.
    """

    permitted: Callable[[Address], bool] | None = None
    context: ssl.SSLContext | None = None
    max_bytes: int = MAX_BYTES
    max_seconds: float = MAX_SECONDS

    def get(self, url: str) -> bytes:
        """The body behind an https address.

        Raises:
            InputRejected: forbidden address, too many redirects, too large, too slow, not 200.
        """
        deadline = time.monotonic() + self.max_seconds
        with httpx.Client(verify=self.context or True, timeout=20, trust_env=False) as client:
            for _ in range(MAX_REDIRECTS + 1):
                answer = self._one(client, url, deadline)
                if isinstance(answer, bytes):
                    return answer
                url = answer
        raise InputRejected(f"more than {MAX_REDIRECTS} redirects")

    def _one(self, client: httpx.Client, url: str, deadline: float) -> bytes | str:
        """The body, or the address that it redirects to."""
        try:
            parts = urlsplit(url)
            port = parts.port or 443
        except ValueError:
            raise InputRejected("the address is malformed") from None
        if parts.scheme != "https" or not parts.hostname or parts.username or parts.password:
            raise InputRejected("only https:// addresses without a password are fetched")
        address = self._resolve(parts.hostname, port)
        shown = f"[{address}]" if address.version == 6 else str(address)
        pinned = parts._replace(netloc=f"{shown}:{port}").geturl()
        try:
            request = client.build_request(
                "GET",
                pinned,
                headers={"Host": parts.netloc},
                extensions={"sni_hostname": parts.hostname},
            )
            response = client.send(request, stream=True)
            try:
                if response.is_redirect:
                    return _joined(url, str(response.headers.get("location", "")))
                if response.status_code != 200:
                    raise InputRejected(f"{parts.hostname} answered {response.status_code}")
                return self._read(response, deadline)
            finally:
                response.close()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise InputRejected(f"{parts.hostname} can't be fetched: {error}") from None

    def _read(self, response: httpx.Response, deadline: float) -> bytes:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > self.max_bytes:
                raise InputRejected(f"the file is larger than {self.max_bytes // 1_000_000} MB")
            if time.monotonic() > deadline:
                raise InputRejected(f"the file did not arrive within {self.max_seconds:g} s")
        return bytes(body)

    def _resolve(self, host: str, port: int) -> Address:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise InputRejected(f"{host} can't be resolved") from None
        addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
        permitted = self.permitted or is_public
        if not addresses or not all(permitted(address) for address in addresses):
            raise InputRejected(f"{host} is not a public address")
        return addresses[0]


def is_public(address: Address) -> bool:
    """Whether an address may be fetched from.

    `is_global` alone passes NAT64, 6to4 and multicast addresses that lead inside; those with an
    IPv4 address within are judged by it.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.teredo or address in ipaddress.ip_network("64:ff9b:1::/48"):
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise InputRejected("it redirects to a malformed address") from None


def _write_whole(target: Path, content: bytes) -> None:
    """The file is trusted by its name, its hash, from now on: whole and synced, or not there."""
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _data_uri(field: str, rest: str) -> bytes:
    try:
        return base64.b64decode(rest.partition("base64,")[2], validate=True)
    except (binascii.Error, ValueError):
        raise rejected(field, "the data: URI is not valid base64") from None
