# Runs on MicroPython: what the DDI agent takes of the heap beyond the level after imports, for one whole update.
import asyncio
import gc

from sekisho import clock, ddi, envelope, http, policy, settings, store, values  # noqa: F401
from sekisho_boot.reasons import Refused

from . import ddi_cases


class Small(ddi_cases.Engine):
    """The pretended engine without room for the payload, so that only the agent's memory counts."""

    def room(self):
        return None

    def write(self, component, off, buf):
        self.at = off + len(buf)

    def stage(self):
        self.phase = 2


async def update(base: str) -> str:
    agent = ddi.Agent(Small(), ddi_cases.settings_of(base, **ddi_cases.OPTIONS), ddi_cases.CLASS_ID, lambda text: None)
    try:
        return str(await agent.poll())
    except Refused as refused:
        return str(refused.code)


def main(base: str, folder: str, room: int) -> None:
    """One update in *room* bytes of heap: the rest is taken away."""
    settings.STATE, ddi.KEPT = folder + "/state.json", folder + "/ddi"
    asyncio.run(ddi_cases.start(base, kind="deployment", config=1, keys=4))
    ballast = []
    gc.collect()
    while gc.mem_free() > room:
        ballast.append(bytearray(512))
        gc.collect()
    print(asyncio.run(update(base)))
