"""A DDI server as hawkBit's documents describe one, which misbehaves on request. One device, one action at a time."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading

from bad_server import BadServer

ROOT = "/DEFAULT/controller/v1/lamp%201"
TOKEN = "TargetToken secret-token-of-the-lamp"
BIG = b"".join(bytes([sector]) * 4096 for sector in range(34))
"""A payload long enough that its progress is told, with sectors that are easily told apart."""


class DdiServer(BadServer):
    """``/do/NAME/VALUE`` sets an attribute below, ``/log/x`` gives what was heard since the last time."""

    def __init__(self, payload: bytes, releases: dict[str, bytes], key_sets: list[bytes]) -> None:
        super().__init__(payload)
        self.files = {"r.suit": releases["good"], hashlib.sha256(payload).hexdigest(): payload}
        self.releases, self.key_sets = releases, key_sets
        self.big = BIG
        self.files[hashlib.sha256(BIG).hexdigest()] = BIG
        self.log: list[str] = []
        self.sums: dict[str, str] = {}
        self.reset("")

    def reset(self, _: str) -> None:
        self.kind = ""  # deployment, cancel, confirmation
        self.number = 7
        self.download, self.update, self.window = "forced", "forced", ""
        self.sleep = "00:05:00"
        self.config = False
        self.root = self.order = self.feedback = self.suit = ""  # how these answers are wrong
        self.payload_path = ""
        self.release = "good"
        self.keys = 0
        self.sums.clear()
        self.after: dict[str, str] = {}  # set when the payload was fetched
        self.meanwhile = ""  # what becomes of the payload's connection while the device reports progress
        self.reporting, self.dropped = threading.Event(), threading.Event()
        self.log.clear()

    # -- control ---------------------------------------------------------------------------------
    def sin_do(self, sock: socket.socket, headers: dict[str, str], path: str) -> None:
        _, _, name, value = path.split("/", 3)
        self.count.clear()
        if name == "reset":
            self.reset(value)
        elif name == "sum":
            self.sums["r.suit"] = value if value != "right" else hashlib.sha256(self.releases["good"]).hexdigest()
        elif name == "after":
            self.after = dict([value.split("=")])
        else:
            setattr(self, name, type(getattr(self, name))(value))
        self.head(sock, 200, "Content-Length: 0")

    def sin_log(self, sock: socket.socket, headers: dict[str, str], path: str) -> None:
        heard = "; ".join(self.log)
        self.log.clear()
        self.answer(sock, heard.encode())

    # -- pieces ----------------------------------------------------------------------------------
    def answer(self, sock: socket.socket, body: bytes, how: str = "") -> None:
        """A body, in one of several wrong ways."""
        if how == "chunked":
            self.head(sock, 200, "Transfer-Encoding: chunked")
            for at in range(0, len(body), 100):
                piece = body[at : at + 100]
                sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            sock.sendall(b"0\r\n\r\n")
        elif how == "endless":
            self.head(sock, 200, "Transfer-Encoding: chunked")
            while not self.stop.is_set():
                sock.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
        elif how in BROKEN_CHUNKS:
            self.head(sock, 200, "Transfer-Encoding: chunked")
            sock.sendall(BROKEN_CHUNKS[how])
        elif how.startswith("status"):
            self.head(sock, int(how.split("-")[1]), "Content-Length: 0", "Retry-After: 77")
        elif how == "away":
            self.head(sock, 302, f"Location: http://localhost:{self.port}/good", "Content-Length: 0")
        elif how == "silent":
            self.stop.wait(30)
        elif how in DOCUMENTS:
            self.answer(sock, DOCUMENTS[how])
        else:
            self.head(sock, 200, f"Content-Length: {len(body)}", "Content-Type: application/hal+json")
            sock.sendall(body)

    def link(self, path: str) -> dict[str, str]:
        host = f"http://localhost:{self.port}" if self.order == "foreign-links" else self.url
        return {"href": host + path}

    def artifact(self, name: str, path: str = "") -> dict[str, object]:
        links = {"download-http": self.link(path or f"{ROOT}/softwaremodules/1/artifacts/{name}")}
        return {"filename": name, "size": 1, "hashes": {"sha1": "00", "sha256": self.sums.get(name)}, "_links": links}

    def chunks(self) -> list[object]:
        digest = hashlib.sha256(self.big if self.release == "big" else self.payload).hexdigest()
        artifacts = [self.artifact("r.suit"), self.artifact(digest, self.payload_path and "/" + self.payload_path)]
        if self.payload_path == "localhost":
            artifacts[1]["_links"] = {"download": {"href": f"http://localhost:{self.port}/good"}}
        artifacts += [self.artifact(f"keyset-{n}.cose") for n in range(2, self.keys + 1)]
        if self.order == "no-release":
            del artifacts[0]
        elif self.order == "key-sets":
            del artifacts[:2]
        elif self.order == "two-releases":
            artifacts.append(self.artifact("other.suit"))
        elif self.order == "no-payload":
            del artifacts[1]
        elif self.order == "odd":
            return [None, 7, {"artifacts": [None, {}, {"filename": 7}, *artifacts], "metadata": [1]}, {"part": []}]
        return [{"part": "os", "version": "1", "name": "fw", "artifacts": artifacts}]

    # -- the API -----------------------------------------------------------------------------------
    def sin_DEFAULT(self, sock: socket.socket, headers: dict[str, str], path: str) -> None:
        path = path.split("?")[0]
        if headers.get("authorization") != TOKEN:
            self.log.append("no token")
            self.head(sock, 401, "Content-Length: 0")
            return
        what = path.removeprefix(ROOT).strip("/").split("/")
        body = json.loads(headers[":body"] or "null")
        if what == [""]:
            self.poll(sock)
        elif what[0] == "configData":
            self.log.append(f"attributes {body['mode']} {' '.join(sorted(body['data']))}")
            self.config = False
            self.answer(sock, b"", self.feedback)
        elif what[-1] == "feedback":
            self.hear(sock, what, body)
        elif what[0] == "softwaremodules":
            self.file(sock, headers, what[-1])
        elif self.kind and what == [f"{self.kind}Base".replace("cancelBase", "cancelAction"), str(self.number)]:
            self.show(sock)
        else:
            self.head(sock, 404, "Content-Length: 0")

    def poll(self, sock: socket.socket) -> None:
        links = {}
        if self.kind:
            name = {"cancel": "cancelAction"}.get(self.kind, self.kind + "Base")
            links[name] = self.link(f"{ROOT}/{name}/{self.number}?c=-17")
        if self.config:
            links["configData"] = self.link(f"{ROOT}/configData")
        found = {"config": {"polling": {"sleep": self.sleep}}, "_links": links, "unknown": [None]}
        self.answer(sock, json.dumps(found).encode(), self.root)

    def show(self, sock: socket.socket) -> None:
        order: dict[str, object] = {"id": str(self.number)}
        if self.kind == "cancel":
            order["cancelAction"] = {"stopId": str(self.number)}
        else:
            order[self.kind] = {"download": self.download, "update": self.update, "chunks": self.chunks()}
        self.answer(sock, json.dumps(order).encode(), self.order)

    def file(self, sock: socket.socket, headers: dict[str, str], name: str) -> None:
        if name.startswith("keyset"):
            body = self.key_sets[int(name[7:-5])]
        elif name.endswith(".suit"):
            body = self.releases[self.release]
        else:
            body = self.files[name]
            for key, value in self.after.items():
                setattr(self, key, value)
            if self.meanwhile:
                self.log.append(f"from {headers.get('range', '0').strip('bytes=-')}")
            if self.meanwhile in ("closed", "reset") and not self.dropped.is_set():
                self.honest(sock, headers, body, cut=70_000)
                self.reporting.wait(20)
                if self.meanwhile == "reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                self.dropped.set()
                return
        if name.endswith(".suit") and self.suit:
            self.answer(sock, body, self.suit)
        else:
            self.honest(sock, headers, body)

    def hear(self, sock: socket.socket, what: list[str], body: dict[str, dict]) -> None:
        if "confirmation" in body:
            self.log.append(f"{body['confirmation']} {what[1]}")
            self.kind = "deployment" if body["confirmation"] == "confirmed" else self.kind
        else:
            status = body["status"]
            text = " ".join(status["details"])
            where = "" if what[0] == "deploymentBase" else what[0] + " "
            progress = status["result"].get("progress")
            text += f", {progress['cnt']} of {progress['of']}" if progress else ""
            self.log.append(f"{where}{what[1]} {status['execution']} {status['result']['finished']} ({text})")
            if progress and self.meanwhile:
                self.reporting.set()
                if self.meanwhile == "silent" and progress["cnt"] == 1:
                    self.stop.wait(30)
                elif self.meanwhile in ("closed", "reset"):
                    self.dropped.wait(20)
            if status["execution"] == "closed" and not self.feedback:
                self.kind = ""
        self.answer(sock, b"", self.feedback)

    # -- another origin ------------------------------------------------------------------------------
    def sin_good(self, sock: socket.socket, headers: dict[str, str], path: str) -> None:
        if headers["host"].startswith("localhost"):
            self.log.append("elsewhere with token" if "authorization" in headers else "elsewhere without token")
        super().sin_good(sock, headers, path)


BROKEN_CHUNKS = {
    "chunk-size": b"zz\r\n{}\r\n0\r\n\r\n",
    "chunk-huge": b"fffffff\r\n{}",
    "chunk-negative": b"-2\r\n{}\r\n0\r\n\r\n",
    "chunk-line": b"0" * 100 + b"\r\n{}\r\n0\r\n\r\n",
    "chunk-end": b"2\r\n{}xx0\r\n\r\n",
    "chunk-trailer": b"2\r\n{}\r\n0\r\nX: y\r\n\r\n",
    "chunk-cut": b"10\r\n{}",
}
DOCUMENTS = {
    "html": b"<html>please log in</html>",
    "array": b"[1, 2]",
    "text": b'"text"',
    "empty": b"",
    "open": b'{"_links": {',
    "deep": b"[" * 5000,
    "huge": b" " * 20000 + b"{}",
    "not-utf8": b'{"_links": {"deploymentBase": {"href": "\xff\xfe"}}}',
    "odd-links": b'{"_links": [1], "config": {"polling": {"sleep": ["x"]}}}',
    "null": b'{"_links": null, "config": null}',
    "no-href": b'{"_links": {"deploymentBase": {}, "cancelAction": 5, "confirmationBase": {"href": 9}}}',
    "bad-href": b'{"_links": {"deploymentBase": {"href": "http://user@host/\\r\\nX: y"}}}',
    "long-href": b'{"_links": {"deploymentBase": {"href": "/' + b"x" * 3000 + b'"}}}',
}
