"""An issuer of signed tokens, who publishes his keys over HTTP."""

from __future__ import annotations

import functools
import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from jwt.algorithms import get_default_algorithms

#: The algorithms that a token may be signed with here, and how their keys are made.
ALGORITHMS = {
    "RS256": lambda: _rsa(),
    "RS384": lambda: _rsa(),
    "RS512": lambda: _rsa(),
    "PS256": lambda: _rsa(),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": lambda: ed25519.Ed25519PrivateKey.generate(),
}

ISSUER, AUDIENCE = "https://id.example.org/", "codeq"


@functools.cache
def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Key:
    """A private key, and the name under which its public half is published."""

    kid: str
    algorithm: str
    private: PrivateKeyTypes

    @classmethod
    def make(cls, kid: str, algorithm: str = "ES256") -> Key:
        """A new key."""
        return cls(kid, algorithm, ALGORITHMS[algorithm]())

    def sign(self, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token that is good for an hour; claims that are `None` are left out."""
        now = int(time.time())
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 3600}
        said = {name: value for name, value in (usual | claims).items() if value is not None}
        return jwt.encode(said, self.private, self.algorithm, {"kid": self.kid, **(headers or {})})

    def public(self, **more: Any) -> dict[str, Any]:
        """As it is published."""
        algorithm = get_default_algorithms()[self.algorithm]
        jwk = algorithm.to_jwk(self.private.public_key(), as_dict=True)  # type: ignore[attr-defined]
        return {**jwk, "kid": self.kid, "use": "sig", "alg": self.algorithm, **more}


class Issuer:
    """A server that publishes keys. Use it as a context."""

    def __init__(self, *keys: Key) -> None:
        self.document: Any = {}
        self.status = 200
        self.fetches = 0
        self.publish(*keys)
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                content = json.dumps(issuer.document).encode()
                self.send_response(issuer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"

    def publish(self, *keys: Key) -> None:
        """Publishes these keys from now on, and no others."""
        self.document = {"keys": [key.public() for key in keys]}

    def config(self, **more: Any) -> dict[str, Any]:
        """How a host is told to trust this issuer."""
        return {"jwksUrl": self.url, "issuer": ISSUER, "audience": AUDIENCE, **more}

    def __enter__(self) -> Issuer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
