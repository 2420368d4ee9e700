"""TLS, and HTTP/2 over it."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from client import expect
from conftest import Stage
from host import Host


@dataclass
class Certificate:
    """A certificate that vouches for itself, and its key."""

    cert: Path
    key: Path

    @classmethod
    def make(cls, directory: Path) -> Certificate:
        """A certificate for this machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        paths = cls(directory / "cert.pem", directory / "key.pem")
        paths.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        paths.key.chmod(0o600)
        return paths

    def context(self) -> ssl.SSLContext:
        """How clients trust it."""
        return ssl.create_default_context(cafile=str(self.cert))


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate.make(tmp_path)


@pytest.fixture
def secure(stage: Stage, certificate: Certificate) -> Host:
    """A host that speaks TLS. What is below HTTP does not depend on the provider."""
    return stage.start("memory", tlsCertFile=str(certificate.cert), tlsKeyFile=str(certificate.key))


@pytest.mark.parametrize(("http2", "version"), [(False, "HTTP/1.1"), (True, "HTTP/2")])
def test_a_task_is_created_and_completed_over_tls(
    secure: Host, certificate: Certificate, http2: bool, version: str
) -> None:
    api = secure.client(verify=certificate.context(), http2=http2)
    answer = api.get("/healthz")
    assert (answer.http_version, answer.status_code) == (version, 200)
    task = api.held("a")
    expect(api.complete(task["id"]), 200)
    assert api.claim("a", waitSeconds=1) is None


def test_many_requests_share_a_connection_of_http2(secure: Host, certificate: Certificate) -> None:
    from concurrent.futures import ThreadPoolExecutor

    limits = httpx.Limits(max_connections=1)
    api = secure.client(verify=certificate.context(), http2=True, limits=limits)
    with ThreadPoolExecutor(12) as callers:
        waiting = [callers.submit(api.claimed, "a") for _ in range(6)]
        made = [callers.submit(api.create, "a") for _ in range(6)]
        ids = {task.result()["id"] for task in made}
        assert {task.result()["id"] for task in waiting} == ids


def test_what_is_not_encrypted_is_not_answered(secure: Host) -> None:
    name, port = secure.address
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{name}:{port}/healthz", verify=False)


def test_a_certificate_that_nobody_knows_is_not_trusted(secure: Host) -> None:
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{secure.url}/healthz")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_of_today_is_spoken(
    secure: Host, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    context = certificate.context()
    context.minimum_version = context.maximum_version = version
    assert httpx.get(f"{secure.url}/healthz", verify=context).status_code == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_of_yesterday_is_not(secure: Host, certificate: Certificate) -> None:
    context = certificate.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{secure.url}/healthz", verify=context)


def test_callers_who_do_not_shake_hands_keep_nobody_out(
    secure: Host, certificate: Certificate
) -> None:
    silent = [socket.create_connection(secure.address) for _ in range(50)]
    try:
        api = secure.client(verify=certificate.context())
        expect(api.get("/healthz"), 200)
    finally:
        for connection in silent:
            connection.close()


def test_a_handshake_that_does_not_come_is_given_up(stage: Stage, certificate: Certificate) -> None:
    host = stage.start(
        "memory",
        tlsCertFile=str(certificate.cert),
        tlsKeyFile=str(certificate.key),
        requestTimeoutSeconds=1,
        idleTimeoutSeconds=1,
    )
    with socket.create_connection(host.address, timeout=20) as connection:
        assert connection.recv(1) == b""


@pytest.mark.parametrize("broken", ["missing", "empty", "nonsense", "of another key"])
def test_a_host_does_not_start_with_a_broken_certificate(
    stage: Stage, certificate: Certificate, tmp_path: Path, broken: str
) -> None:
    cert = certificate.cert
    if broken == "of another key":
        (tmp_path / "other").mkdir()
        cert = Certificate.make(tmp_path / "other").cert
    else:
        cert = tmp_path / "broken.pem"
        if broken != "missing":
            cert.write_text({"empty": "", "nonsense": "nonsense"}[broken])
    with pytest.raises(AssertionError, match="did not say"):
        stage.start("memory", tlsCertFile=str(cert), tlsKeyFile=str(certificate.key))
