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
_config = {"reconnects": -1, "pm": 1, "txpower": 20.0, "protocol": 7, "channel": 1, "hidden": False, "max_clients": 4}
_config["security"], _config["ap"] = 0, "ESP_334455"
# What network_wlan_config of ports/esp32/network_wlan.c knows: only of the access point, only of the station, of both.
_OF_AP = ("ssid", "essid", "hidden", "security", "authmode", "key", "password", "max_clients")
_OF_STATION = ("reconnects",)
_OF_BOTH = ("mac", "channel", "hostname", "dhcp_hostname", "txpower", "protocol", "pm")


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
    SEC_WPA2 = 3
    PM_NONE = 0
    PM_PERFORMANCE = 1
    PM_POWERSAVE = 2

    def __init__(self, interface=0):
        if interface not in (0, 1):
            raise ValueError("invalid WLAN interface identifier")
        self._if = interface

    def active(self, on=None):
        global _joined
        if on is None:
            return _active[self._if]
        _active[self._if] = bool(on)
        if not on and self._if == 0:
            _joined = None
        return _active[self._if]

    def connect(self, *network, bssid=None):
        global _joined
        ssid = network[0] if network else None
        key = network[1] if len(network) > 1 else None
        if len(network) > 2 or not all(one is None or isinstance(one, (str, bytes)) for one in (ssid, key, bssid)):
            raise TypeError
        if bssid is not None and len(bssid) != 6:
            raise ValueError
        if not _active[0]:
            raise OSError("Wifi Not Started")
        if _joined is not None:
            raise OSError("Wifi Internal Error")  # "sta is connecting": it goes on trying until it is told to stop
        _joined = (ssid, key or "", _time.ticks_ms())

    def disconnect(self):
        global _joined
        if not _active[0]:
            raise OSError("Wifi Not Started")
        _joined = None

    def isconnected(self):
        return self._if == 0 and _status() == STAT_GOT_IP

    def status(self, *what):
        if not what:
            return _status() if self._if == 0 else None
        if what[0] == "rssi":
            self._require(0)
            if _status() != STAT_GOT_IP:
                raise OSError("Wifi Not Connected")
            return -60
        if what[0] == "stations":
            self._require(1)
            return []
        raise ValueError("unknown status param")

    def _require(self, interface):
        if self._if != interface:
            raise OSError("AP required" if interface else "STA required")

    def scan(self):
        if not _active[0]:
            raise OSError("STA must be active")
        if not port.peek(NET, 1)[0] or (_joined is not None and _status() != STAT_GOT_IP):
            return []  # esp_wifi_scan_start refuses while the station is connecting, and scan() says nothing of it
        return [(_strings()[0].encode(), b"\x02\0\0\0\0\1", 6, -60, 3, False)]

    def ifconfig(self, config=None):
        if self.isconnected():
            return (_strings()[2], "255.255.255.0", "192.168.4.1", "192.168.4.1")
        return ("0.0.0.0",) * 4  # noqa: S104

    def ipconfig(self, what=None, **options):
        if what == "addr4":
            return self.ifconfig()[:2]
        if what is None and not options:
            raise TypeError("function takes exactly one argument or at least one keyword")
        raise ValueError("unexpected key")

    def config(self, *what, **options):
        if what and options:
            raise TypeError("either pos or kw args are allowed")
        for name, value in options.items():
            self._set(name, value)
        if options:
            if not _active[self._if]:
                raise OSError("Wifi Invalid Mode")
            if self._if and _config["security"] and len(_config.get("key", "")) < 8:
                raise OSError("Wifi Invalid Password")
            return None
        if len(what) != 1:
            raise TypeError("can query only one param")
        return self._get(what[0])

    def _set(self, name, value):
        if name in _OF_AP:
            self._require(1)
        elif name in _OF_STATION:
            self._require(0)
        elif name not in _OF_BOTH:
            raise ValueError("unknown config param")
        if name in ("hostname", "dhcp_hostname"):
            hostname(value)
        else:
            names = {"essid": "ap", "ssid": "ap", "authmode": "security", "password": "key"}
            _config[names.get(name, name)] = value

    def _get(self, name):
        if name == "mac":
            from _sim_layout import MAC

            return port.peek(MAC, 6)
        if name in ("ssid", "essid"):
            return _config["ap"] if self._if else _joined[0] if _joined else ""
        if name in ("hidden", "security", "authmode"):
            self._require(1)
            return _config["hidden" if name == "hidden" else "security"]
        if name in ("hostname", "dhcp_hostname"):
            self._require(0)
            return _hostname
        if name == "reconnects":
            self._require(0)
        if name in ("channel", "max_clients", "reconnects", "txpower", "protocol", "pm"):
            return _config[name]
        raise ValueError("unknown config param")
