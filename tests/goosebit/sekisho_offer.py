"""A plugin of gooseBit for tests: offers its devices what the JSON file SEKISHO_OFFER says (runs inside gooseBit)."""

import json
import os
from pathlib import Path

from goosebit.device_manager import HandlingType
from goosebit.schema.plugins import PluginSchema
from goosebit.schema.updates import UpdateChunk, UpdateChunkArtifact


async def offer(_request, device):
    """One chunk for a device that does not say it runs this version already."""
    file = Path(os.environ["SEKISHO_OFFER"])
    found = json.loads(file.read_text()) if file.exists() else {}
    mine = found.get(device.id)
    if not mine or device.sw_version == mine["version"]:
        return HandlingType.SKIP, None
    artifacts = [UpdateChunkArtifact(links={"download": {"href": one.pop("href")}}, **one) for one in mine["artifacts"]]
    return HandlingType.FORCED, UpdateChunk(name="lamp", version=mine["version"], artifacts=artifacts)


config = PluginSchema(name="sekisho_offer", update_source_hook=offer)
