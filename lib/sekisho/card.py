"""Files that people bring on a card: key sets, orders and releases in a folder, taken through the offline door.

    FOLDER/*.cose          key sets and operator orders, told apart by what they are
    FOLDER/*.suit          releases
    FOLDER/payload/<hex>   payloads, by their SHA-256
    FOLDER/NAME.result     written here: what became of the file NAME: OBEYED, STAGED, INSTALLED, MISSING (payload), or
                           the reason code; the start of its SHA-256; the key set it was judged under
    FOLDER/NAME.report     the signed report, where the order NAME asked for one; NAME.log the event log with it
    FOLDER/NAME.backup     the sealed settings, where the order NAME asked for them

The application mounts the card and says `sekisho.folder("/sd/sekisho")`; the folder is looked at then and before each
look at the server. An order is carried out once, however long its card stays in: the device record knows it.
"""

import asyncio
import gc
import os
from binascii import hexlify

from micropython import const
from sekisho_boot import reasons
from sekisho_boot.keyset import MAX_KEYSET
from sekisho_boot.reasons import IMAGE_SIZE, LIMIT, NOTHING, Refused, kind, name

from . import orders, record
from .envelope import MAX_DOWNLOAD, keyset_version, sever

MAX_FILES = const(16)  # files of a folder that are looked at
MAX_RELEASES = const(4)
PIECE = const(4096)
_KEYSET = b"\xd8\x62"  # how a key set begins (CBOR tag 98); an order begins with tag 18


class Card:
    """door: `door.Door`; folder: the path of a directory, which may come and go with its card."""

    def __init__(self, door, folder: str) -> None:
        self.door = door
        self.engine = door.engine
        self.folder = folder
        self._done: dict = {}  # digest -> (outcome, version of the key set it was judged under)
        self._owed = ""  # order that a report was asked by

    async def visit(self) -> None:
        """Takes what is new. Never raises: a broken card must not keep the device from its server."""
        try:
            names = [one for one in os.listdir(self.folder) if one[:1] != "." and one[-5:] in (".cose", ".suit")]
            names.sort()
            self._pay()
            documents = self._read([one for one in names if one.endswith(".cose")][:MAX_FILES])
            for _, file, document in sorted(documents, key=lambda one: one[:2]):
                self._document(file, document)
                await asyncio.sleep(0)
            documents = None
            await self._release([one for one in names if one.endswith(".suit")][:MAX_RELEASES])
        except OSError:
            pass  # there is no card, or it was pulled out; what has come so far stays
        except Exception as error:
            print("sekisho: the card cannot be used (%r)" % error)

    # -- files -------------------------------------------------------------------------------------------

    def _path(self, file: str) -> str:
        return self.folder + "/" + file

    def _load(self, file: str, limit: int) -> bytes:
        gc.collect()
        if os.stat(self._path(file))[6] > limit:
            raise Refused(LIMIT)
        with open(self._path(file), "rb") as source:
            return source.read()

    def _say(self, file: str, document: bytes, outcome: str) -> None:
        """Writes beside a file what became of it; a card that cannot be written to is no reason to stop."""
        version = self.engine.status()["keyset"]
        while len(self._done) >= MAX_FILES:
            self._done.pop(next(iter(self._done)))
        self._done[orders.digest(document)] = (outcome, version)
        self._write(file + ".result", ("%s %s keyset %d\n" % (outcome, _hex(document), version)).encode())

    def _write(self, file: str, content: bytes) -> None:
        try:
            with open(self._path(file), "wb") as target:
                target.write(content)
        except OSError:
            pass

    def _known(self, file: str, document: bytes) -> bool:
        """Whether this very file has been dealt with: obeyed, or refused under the key set of now."""
        found = self._done.get(orders.digest(document))
        if found is None:
            try:
                words = str(self._load(file + ".result", 200), "utf-8").split()
            except (OSError, Refused, ValueError):
                return False
            if len(words) != 4 or words[1] != _hex(document) or not words[3].isdigit():
                return False
            found = (words[0], int(words[3]))
        return found[0] == "OBEYED" or found[1] == self.engine.status()["keyset"]

    # -- key sets and orders -----------------------------------------------------------------------------

    def _read(self, files: list) -> list:
        """[((0, version) or (1, counter), file, document), ...]: key sets come first, orders as they were given."""
        found = []
        for file in files:
            try:
                document = self._load(file, MAX_KEYSET)
                try:
                    if document[:2] == _KEYSET:
                        place = (0, keyset_version(document))
                    else:
                        place = (1, orders.payload(document).get(6, 0))
                except Refused:
                    place = (2, 0)  # judged all the same, so that its refusal is told
                found.append((place, file, document if place[0] else b""))
            except Refused as refused:
                self._write(file + ".result", ("%s\n" % name(refused.code)).encode())
            except OSError:
                pass  # a directory, or gone
        return found

    def _document(self, file: str, document: bytes) -> None:
        order = document != b""
        document = document or self._load(file, MAX_KEYSET)  # of key sets, one at a time is in memory
        if self._known(file, document):
            return
        try:
            if not order:
                if keyset_version(document) <= self.engine.status()["keyset"]:
                    return
                self.door.keyset(document)
                outcome = "OBEYED"
            else:
                code = self.door.order(document)
                outcome = name(code) if code else "OBEYED"
                action = 0 if code else orders.payload(document)[1]
                if action == orders.REPORT:
                    self._owed = file
                if action == orders.BACKUP:
                    self._write(file + ".backup", self.door.agent.duties.backup_document())
        except Refused as refused:
            outcome = self._earlier(document) or name(refused.code)
        self._say(file, document, outcome)

    def _earlier(self, document: bytes) -> str:
        """What the device record knows of an order: the power may have gone before the result was written."""
        duties = self.door.agent.duties
        for result in duties.record.get(record.RESULTS, ()) if duties else ():
            if result[0] == orders.digest(document):
                return name(result[2]) if result[2] else "OBEYED"
        return ""

    def _pay(self) -> None:
        """Brings the report that an order of this card asked for, once it is made."""
        duties = self.door.agent.duties
        if self._owed and duties and duties.record.get(record.WANTED) is None:
            owed, self._owed = self._owed, ""
            self._write(owed + ".report", duties.report_document())
            self._write(owed + ".log", duties.log.export())

    # -- releases ----------------------------------------------------------------------------------------

    async def _release(self, files: list) -> None:
        """The highest release of the card that the engine would take."""
        best, best_file = 0, ""
        for file in files:
            document = b""
            try:
                document = self._load(file, MAX_DOWNLOAD)
                if not self._wrong(document):
                    sequence = self.engine.accept(sever(document)).sequence
                    if sequence > best:
                        best, best_file = sequence, file
            except Refused as refused:
                self._say(file, document, name(refused.code))
        if best:
            document = self._load(best_file, MAX_DOWNLOAD)
            self._say(best_file, document, await self._install(document))

    def _wrong(self, document: bytes) -> bool:
        """Whether a release was refused for good under the key set of now."""
        outcome, version = self._done.get(orders.digest(document), ("", 0))
        code = getattr(reasons, outcome, 255)
        return kind(code) == "permanent" and version == self.engine.status()["keyset"]

    async def _install(self, document: bytes) -> str:
        try:
            wanted = self.door.envelope(document)
            for _, digest, size in wanted:  # all of it must be here before anything begins
                if os.stat(self._payload(digest))[6] != size:
                    raise Refused(IMAGE_SIZE)
            for component, digest, _ in wanted:
                await self._bring(component, self._payload(digest))
            self.door.stage()
            return "STAGED"
        except OSError:
            self.door.close()
            return "MISSING"
        except Refused as refused:
            self.door.close()
            return "INSTALLED" if refused.code == NOTHING else name(refused.code)

    def _payload(self, digest: bytes) -> str:
        return self._path("payload/" + str(hexlify(digest), "utf-8"))

    async def _bring(self, component: int, path: str) -> None:
        with open(path, "rb") as file:
            file.seek(self.door.offset(component))
            piece = bytearray(PIECE)
            view = memoryview(piece)
            while True:
                size = file.readinto(piece)
                if not size:
                    return
                self.door.put(component, view[:size])
                await asyncio.sleep(0)  # the application runs on


def _hex(document: bytes) -> str:
    return str(hexlify(orders.digest(document)), "utf-8")
