"""How a device proves to its update server who it is, where a plain token does not do: requests signed with the device
key, and enrolment with a one-time token. docs/server.md has the protocol; only `sekisho serve` speaks it.

A signature is over method, path, body, the server's challenge and a number that grows, so no request can be sent twice
and no clock is needed. The private key stays on the device, and an enrolment whose answer got lost is found out by the
next signed request.
"""

import json
from binascii import b2a_base64, hexlify
from hashlib import sha256

from micropython import const
from sekisho_boot.reasons import SETTING, Refused

from . import http, values

MAX_ANSWER = const(1024)  # bytes
_MAX_CHALLENGE = const(200)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Account:
    """The dealings of one device with the server whose root URL for it is *root*. signs: the setting `login` is key."""

    def __init__(self, root: str, signs: bool) -> None:
        self._root = root
        self._signs = signs
        self._key: object = None
        self._challenge = ""
        self._number = 0
        self._useless = ""  # a one-time token that the server did not want

    def _device_key(self):
        if not self._key:
            from .devicekey import DeviceKey

            self._key = DeviceKey()
        return self._key

    def signature(self, method: str, url: str, body) -> list:
        """Header lines for this one request; none before the server has given a challenge."""
        if not self._challenge:
            return []
        self._number += 1
        number = str(self._number)
        digest = str(hexlify(sha256(body or b"").digest()), "utf-8")
        text = "\n".join(("sekisho-request-1", method, http.split(url)[3], digest, self._challenge, number))
        code = b2a_base64(self._device_key().sign(text.encode())).strip().rstrip(b"=")
        code = str(code.replace(b"+", b"-").replace(b"/", b"_"), "utf-8")
        return ['Authorization: DeviceKey c="%s", n="%s", s="%s"' % (self._challenge, number, code)]

    def challenged(self, text: str) -> bool:
        """Takes the challenge of a 401; True where there is a new one that can be signed."""
        name, _, value = text.partition("=")
        value = value.strip('"')
        good = self._signs and name == "c" and 0 < len(value) <= _MAX_CHALLENGE
        if not good or value == self._challenge or any(char not in _LETTERS for char in value):
            return False
        self._challenge, self._number = value, 0
        return True

    async def admitted(self, agent, failed, tries: int) -> bool:
        """After a 401 (*failed*, of the try of that number): whether another is worth it. agent: `ddi.Agent`."""
        return (tries == 1 and self.challenged(failed.challenge)) or await self._enrol(agent)

    async def _enrol(self, agent) -> bool:
        """Uses the one-time token of the settings up; True where the server took it. Raises Refused.

        The token is forgotten in the same write in which what it gave is kept.
        """
        one_time = agent.options["enrolment"]
        if not one_time or one_time == self._useless:
            return False
        settings = _settings(agent)
        body = {"token": one_time}
        if self._signs:
            body["publicKey"] = str(hexlify(self._device_key().public), "utf-8")
        settings.save()  # what could not be kept would be lost for ever
        line = http.Line()
        try:
            head = ["Accept: application/json"]
            answer = await http.exchange(
                line, "POST", self._root + "/enrol", MAX_ANSWER, head, json.dumps(body).encode(), agent.ca
            )
        except http.Failed as failed:
            if failed.status in (400, 401, 422):
                self._useless = one_time
                agent.say("sekisho: the server does not take the enrolment token")
                return False
            raise
        finally:
            line.close()
        changes = {"enrolment": ""}
        if not self._signs:
            changes["token"] = _token(answer)
        agent.say("sekisho: enrolled at the server")
        _keep(agent, settings, changes)
        return True

    def enrolled(self, agent) -> None:
        """A request was taken: the one-time token that is still there was used, and only the answer got lost."""
        if self._signs:
            _keep(agent, _settings(agent), {"enrolment": ""})


def _settings(agent):
    return agent.duties.settings if agent.duties else values.Settings()


def _keep(agent, settings, changes: dict) -> None:
    agent.options.update(changes)
    try:
        settings.change(changes, values.ORDER)
    except Refused:
        agent.say("sekisho: what the server gave cannot be kept")


def _token(answer) -> str:
    try:
        found = json.loads(answer)["securityToken"]
        return values.check("token", found)
    except (ValueError, KeyError, TypeError, Refused):
        raise http.Failed(SETTING, "the server's answer to the enrolment cannot be read")
