"""`network`: a Wi-Fi station in a world with one access point, described by the host (net.json)."""

import time as _time

from _sim_dev import port
from _sim_layout import NET

__name__ = "network"

STA_IF = 0
AP_IF = 1
AUTH_OPEN = 0
AUTH_WPA2_PSK = 3
STAT_IDLE = 1000
STAT_CONNECTING = 1001
STAT_GOT_IP = 1010
STAT_BEACON_TIMEOUT = 200
STAT_NO_AP_FOUND = 201
STAT_WRONG_PASSWORD = 202
STAT_ASSOC_FAIL = 203
STAT_HANDSHAKE_TIMEOUT = 204

_hostname = "mpy-esp32"
_active = [False, False]
_joined = None  # (ssid, key, ticks)
_config = {"reconnects": -1, "pm": 1}


def _strings():
    data = port.peek(NET, 512)
    at = 3
    out = []
    while data[at]:
        n = data[at] - 1  # a length is stored plus one, 0 ends the list
        out.append(str(data[at + 1 : at + 1 + n], "utf-8"))
        at += 1 + n
    return out


def _status():
    if not _active[0] or _joined is None:
        return STAT_IDLE
    head = port.peek(NET, 3)
    ssid, key = _strings()[:2]
    if _time.ticks_diff(_time.ticks_ms(), _joined[2]) < head[1] | head[2] << 8:
        return STAT_CONNECTING
    if not head[0] or _joined[0] != ssid:
        return STAT_NO_AP_FOUND
    if _joined[1] != key:
        return STAT_WRONG_PASSWORD
    return STAT_GOT_IP


def _resolve(name):
    """The loopback address behind *name*, or None: no device leaves the desk."""
    if _status() != STAT_GOT_IP:
        return None
    if name in ("localhost", "0.0.0.0"):  # noqa: S104 (nothing listens beyond the desk)
        return "127.0.0.1"
    if name.startswith("127."):
        return name
    hosts = _strings()[3:]
    for i in range(0, len(hosts) - 1, 2):
        if hosts[i] == name:
            return hosts[i + 1]
    return None


def hostname(name=None):
    global _hostname
    if name is None:
        return _hostname
    _hostname = name
    return None


def country(code=None):
    return "XX"


class WLAN:
    IF_STA = 0
    IF_AP = 1
    SEC_OPEN = 0
    PM_NONE = 0
    PM_PERFORMANCE = 1
    PM_POWERSAVE = 2

    def __init__(self, interface=0):
        if interface not in (0, 1):
            raise ValueError
        self._if = interface

    def active(self, on=None):
        global _joined
        if on is None:
            return _active[self._if]
        _active[self._if] = bool(on)
        if not on and self._if == 0:
            _joined = None
        return _active[self._if]

    def connect(self, ssid=None, key=None, *, bssid=None):
        global _joined
        if not _active[0]:
            raise OSError("Wifi Not Started")
        _joined = (ssid, key or "", _time.ticks_ms())

    def disconnect(self):
        global _joined
        if not _active[0]:
            raise OSError("Wifi Not Started")
        _joined = None

    def isconnected(self):
        return self._if == 0 and _status() == STAT_GOT_IP

    def status(self, what=None):
        if what == "rssi":
            return -60
        if what is not None:
            raise ValueError("unknown status param")
        return _status()

    def scan(self):
        if not _active[0]:
            raise OSError("Wifi Not Started")
        if not port.peek(NET, 1)[0]:
            return []
        return [(_strings()[0].encode(), b"\x02\0\0\0\0\1", 6, -60, 3, False)]

    def ifconfig(self, config=None):
        if self.isconnected():
            return (_strings()[2], "255.255.255.0", "192.168.4.1", "192.168.4.1")
        return ("0.0.0.0",) * 4  # noqa: S104

    def ipconfig(self, what=None, **options):
        if what == "addr4":
            return self.ifconfig()[:2]
        return None

    def config(self, what=None, **options):
        if what is None:
            _config.update(options)
            return None
        if what == "mac":
            from _sim_layout import MAC

            return port.peek(MAC, 6)
        if what in ("ssid", "essid"):
            return _joined[0] if _joined else ""
        if what in ("hostname", "dhcp_hostname"):
            return _hostname
        if what in _config:
            return _config[what]
        raise ValueError("unknown config param")
