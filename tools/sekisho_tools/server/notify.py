"""Delivers notifications by webhook and mail. They wait in the database, so that a crash loses none."""

from __future__ import annotations

import asyncio
import hmac
import http.client
import json
import logging
import smtplib
import ssl
import urllib.request
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

from sqlalchemy import Row, delete, or_, select, update

from .options import Mail, Options, Webhook
from .store import Store, Tx
from .tables import notice

log = logging.getLogger("sekisho.server")

SECONDS = 10
"""How long a receiver may take."""
MAX_TRIES = 12
FIRST_PAUSE_MS = 10_000
LONGEST_PAUSE_MS = 3_600_000
KEEP_MS = 90 * 86_400_000
AT_ONCE = 20


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def post(webhook: Webhook, row: Row[Any]) -> None:
    """Post one notification. Raises OSError when it does not arrive."""
    body = json.dumps(
        {"id": row.id, "kind": row.kind, "at": row.created_at, "subject": row.subject, "detail": row.detail}
    ).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "sekisho"}
    if webhook.secret:
        headers["X-Sekisho-Signature"] = "sha256=" + hmac.digest(webhook.secret.encode(), body, "sha256").hex()
    request = urllib.request.Request(webhook.url, body, headers)  # noqa: S310 (the address comes from server.toml)
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=SECONDS) as answer:
        answer.read(1024)


def message(settings: Mail, row: Row[Any]) -> EmailMessage:
    """The mail for one notification."""
    mail = EmailMessage()
    mail["From"] = settings.sender
    mail["To"] = ", ".join(settings.to)
    mail["Subject"] = "[sekisho] " + "".join(sign if sign.isprintable() else " " for sign in row.subject)[:200]
    mail["Message-ID"] = f"<notice-{row.id}-{row.created_at}@sekisho>"
    lines = [row.subject, ""]
    lines += [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in row.detail.items()]
    mail.set_content("\n".join(lines))
    return mail


def send(settings: Mail, row: Row[Any]) -> None:
    """Mail one notification. Raises OSError or SMTPException when it is not taken."""
    context = ssl.create_default_context()
    if settings.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(settings.host, settings.port, timeout=SECONDS, context=context)
    else:
        server = smtplib.SMTP(settings.host, settings.port, timeout=SECONDS)
    with server:
        if settings.security == "starttls":
            server.starttls(context=context)
        if settings.user:
            server.login(settings.user, settings.password)
        server.send_message(message(settings, row))


async def _try(how: str, state: str, deliver: Callable[[], None] | None) -> str:
    if state != "waiting":
        return state
    if deliver is None:
        return "off"
    try:
        await asyncio.to_thread(deliver)
    except (OSError, smtplib.SMTPException, http.client.HTTPException, ValueError) as error:
        log.warning("a notification was not taken", extra={"how": how, "error": str(error)[:200]})
        return "waiting"
    return "sent"


class Notifier:
    """Delivers what waits, again and again with growing pauses, MAX_TRIES times at most."""

    def __init__(self, store: Store, options: Options) -> None:
        self.store = store
        self.webhook = options.webhook
        self.mail = options.mail
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be something to deliver."""
        self._wake.set()

    async def forever(self) -> None:
        """Deliver whenever woken."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.once()
            except Exception:
                log.exception("notifications failed; they are tried again")
                await asyncio.sleep(5)

    async def once(self) -> int:
        """Try what is due; returns how many notifications were tried."""
        now = self.store.clock()
        due = notice.c.next_try_at <= now, or_(notice.c.webhook == "waiting", notice.c.mail == "waiting")
        rows = await self.store.read(
            lambda conn: conn.execute(select(notice).where(*due).order_by(notice.c.id).limit(AT_ONCE)).all()
        )
        for row in rows:
            await self._one(row, now)
        if rows:
            await self.store.write(self._forget)
        return len(rows)

    async def _one(self, row: Row[Any], now: int) -> None:
        webhook = await _try("webhook", row.webhook, (lambda: post(self.webhook, row)) if self.webhook.url else None)
        mail = await _try("mail", row.mail, (lambda: send(self.mail, row)) if self.mail.host else None)
        tries = row.tries + 1
        if tries >= MAX_TRIES:
            webhook, mail = ("failed" if state == "waiting" else state for state in (webhook, mail))
        pause = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS << row.tries)
        values = {"webhook": webhook, "mail": mail, "tries": tries, "next_try_at": now + pause}

        def job(tx: Tx) -> None:
            tx.conn.execute(update(notice).where(notice.c.id == row.id).values(**values))

        await self.store.write(job)

    @staticmethod
    def _forget(tx: Tx) -> None:
        tx.conn.execute(delete(notice).where(notice.c.created_at < tx.now - KEEP_MS))
