"""`sys` that says what the chip's says. `path` and `modules` are the real ones."""

from collections import namedtuple as _tuple
from sys import byteorder, exit, modules, path, print_exception, stderr, stdin, stdout  # noqa: F401

from _sim_dev import port
from _sim_layout import VERSION

__name__ = "sys"

_v = port.peek(VERSION, 3)
argv = []
platform = "esp32"
maxsize = 0x7FFFFFFF
version = "3.4.0; MicroPython v%d.%d.%d" % (_v[0], _v[1], _v[2])
version_info = (3, 4, 0)
implementation = _tuple("implementation", ("name", "version", "_machine", "_mpy", "_build"))(
    "micropython", (_v[0], _v[1], _v[2], ""), "Generic ESP32 module with ESP32", 10 << 10 | 3 << 8 | 6, "ESP32_GENERIC"
)
