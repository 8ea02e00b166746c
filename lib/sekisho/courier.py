"""What goes between a device and a server with hawkBit's device API besides releases: orders and signed reports.

Apart from `ddi`, since devices without the functions behind it have no use for it.
"""

from sekisho_boot.reasons import NOTHING, ORDER_REPLAY, Refused

from . import http
from .ddi import DONE, FINAL
from .orders import MAX_FILE


async def hand_in(agent) -> None:
    """Sends the report that was made, and the backup that an operator asked for. Where the server takes none, they wait
    for another way."""
    duties = agent.duties
    for what, made, taken in (
        ("report" if duties.asked() else "unasked report", duties.made, duties.taken),
        ("backup", duties.made_backup, duties.taken_backup),
    ):
        document = made(agent) if agent.takes else b""
        if not document:
            continue
        try:
            await agent.send("POST", agent.reports, document, "application/cose")
        except http.Failed as failed:
            if failed.status not in FINAL:
                raise
            agent.takes = False
            duties.untaken(agent.reports)
            agent.say("sekisho: the server takes no reports (%s)" % failed.detail)
        else:
            taken()
            agent.say("sekisho: %s sent" % what)


async def ordered(agent, href: str) -> bool:
    """Takes the operator order that waits at the server (only ours has them). True when a restart is due."""
    if not href or agent.obeyed == href:
        return False
    try:
        agent.duties.judge(await agent.send("GET", href), agent)
    except Refused as refused:
        if isinstance(refused, http.Failed) and refused.status not in FINAL:
            raise
        if refused.code != ORDER_REPLAY:
            return False  # and read again at the next look: a newer key set may know the key
    agent.obeyed = href
    return agent.duties.due()


async def obey(agent) -> bool:
    """An action that brings operator orders and no release: each is judged, and the action closed with the first reason
    why one was not obeyed. True where a restart is due; Failed(NOTHING) where it is done."""
    files = agent._files
    orders = sorted([file for file in files if file.startswith("order") and file.endswith(".cose")])
    if not orders or any(file.endswith(".suit") for file in files):
        return False
    code, told = 0, ""
    for file in orders:
        document = await agent._download(files[file], MAX_FILE)
        try:
            result = agent.duties.judge(document, agent)
        except Refused as refused:
            result = agent.duties.earlier(document, refused.code)
        code, told = code or result, told or (result and file) or ""
    agent._close(code, told)
    await agent._deliver()
    if agent.duties.due():
        return True
    raise http.Failed(NOTHING, "orders of action %s" % agent._job["id"], 0, DONE)
