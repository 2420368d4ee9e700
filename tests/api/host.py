"""A running host, in a process of its own, and the server behind it if its provider has one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from client import Client

PROVIDERS = ("memory", "sqlite", "redis")

#: How long, in seconds, a program may take to start or to stop.
LIMIT = 40.0

ROOT = Path(__file__).resolve().parents[2]
#: Where cargo put the program and its plugins.
BUILD = Path(os.environ.get("CODEQ_BUILD_DIR", ROOT / "target" / "debug")).resolve()

#: Tasks that failed come back at once, and nothing keeps a webhook from calling this machine.
QUICK: dict[str, Any] = {
    "backoffPolicy": "fixed",
    "backoffBaseSeconds": 0,
    "webhookAllowPrivate": True,
    "webhookHmacSecret": "the-secret-of-webhooks",
    "resultWebhookBaseBackoffSeconds": 0,
    "subscriptionMinIntervalSeconds": 0,
    "idleTimeoutSeconds": 600,
}


class Host:
    """A host that serves. Use it as a context: at its end it is asked to stop, and has to."""

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / "codeq.yml"
        # JSON is YAML.
        file.write_text(json.dumps({"port": 0, "bind": "127.0.0.1", **config}))
        self.directory = directory
        self.log: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._seen = 0
        self._clients: list[Client] = []
        self._process = subprocess.Popen(
            [BUILD / "codeq", "serve", "--config", str(file)],
            cwd=directory,
            env={"PATH": os.environ["PATH"], "LOG_FORMAT": "json", **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            self.url: str = self.wait_for_log("serving")["address"]
        except AssertionError:
            self._process.kill()
            self._process.wait()
            self._reader.join(LIMIT)
            raise

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        name, _, port = self.url.split("//", 1)[1].rpartition(":")
        return name, int(port)

    def client(self, token: str | None = None, **options: Any) -> Client:
        """A caller with a token, or without. It is closed with the host."""
        client = Client(self.url, token, **options)
        self._clients.append(client)
        return client

    def connect(self, timeout: float = LIMIT) -> socket.socket:
        """A connection for what no well-behaved client sends."""
        connection = socket.create_connection(self.address, timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def wait_for_log(self, message: str) -> dict[str, Any]:
        """Waits for a line of the log."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.log if line.get("message") == message), None)

        with self._news:
            self._news.wait_for(lambda: found() or self._ended(), timeout=LIMIT)
            line = found()
        assert line, f"the host did not say `{message}`: {self.log}"
        return line

    def complaints(self) -> list[dict[str, Any]]:
        """What it blamed itself for since the last time that somebody asked."""
        with self._news:
            news, self._seen = self.log[self._seen :], len(self.log)
        return [line for line in news if line.get("level") == "ERROR" or "panicked" in str(line)]

    def stop(self) -> int:
        """Asks it to stop; answers its exit code."""
        for client in self._clients:
            client.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the host did not stop: {self.log}") from None
        self._reader.join(LIMIT)
        return code

    def _read_log(self) -> None:
        assert self._process.stderr
        with self._process.stderr as lines:
            for line in lines:
                with self._news:
                    self.log.append(_parsed(line))
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _ended(self) -> bool:
        return self._process.poll() is not None

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        code = self.stop()
        assert (code, self.complaints()) == (0, [])


def _parsed(line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:
        # What is said of the settings, before there is a log.
        level = "WARN" if line.startswith("warning: ") else "ERROR"
        return {"level": level, "message": line.rstrip()}


class Redis:
    """A redis-server that keeps nothing on disk."""

    def __init__(self) -> None:
        # The path of a socket has to be short.
        self._directory = tempfile.TemporaryDirectory(prefix="codeq-", dir="/tmp")
        self.socket = f"{self._directory.name}/redis.sock"
        options = (
            f"--port 0 --unixsocket {self.socket} --dir {self._directory.name} --appendonly no"
        )
        self._process = subprocess.Popen(
            ["redis-server", *options.split(), "--save", ""],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout
        said: list[str] = []
        while not (said and "ready to accept connections" in said[-1].lower()):
            line = self._process.stdout.readline()
            assert line, f"redis-server did not start: {said}"
            said.append(line)
        self._drain = threading.Thread(target=self._process.stdout.read, daemon=True)
        self._drain.start()

    def stop(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait()
        self._drain.join()
        assert self._process.stdout
        self._process.stdout.close()
        self._directory.cleanup()


def plugin_directory(directory: Path) -> Path:
    """A directory with the plugins that only this user may write, as hosts want it."""
    directory.mkdir(mode=0o755)
    for provider in PROVIDERS:
        for library in _libraries(provider):
            shutil.copy(library, directory / library.name)
            (directory / library.name).chmod(0o755)
    return directory


def _libraries(provider: str) -> Iterator[Path]:
    found = [
        library
        for suffix in ("so", "dylib")
        if (library := BUILD / f"libcodeq_{provider}.{suffix}").exists()
    ]
    assert found, f"{BUILD} has no plugin {provider}; run `make test-api`"
    yield from found
