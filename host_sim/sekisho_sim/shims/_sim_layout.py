"""The board: the piece of memory that the host and the simulated device share. Offsets in bytes, little-endian.

Imported by both sides, so it holds numbers and nothing else. The host writes the first part before it starts the
process; the device writes the rest. Nothing of it exists on a chip.
"""

# u32 unless said otherwise
MAGIC = 0
COUNT = 4  # flash operations completed since power-up, those of the bootloader included
CUT = 8  # number of the operation at which the power goes, NEVER for none
USED = 12  # bytes of operation records
CAPACITY = 16  # room for operation records
PENDING = 20  # USED + 1 while the record there is of an operation that is not complete; else 0, or stale
STOP = 24  # why the device stopped, STOP_x below
ARG = 28  # of STOP_DEEPSLEEP: milliseconds, 0 = for ever
WDT = 32  # watchdog period in device milliseconds, 0 = not armed
SPEED = 36  # device seconds in a host second
FED = 40  # u64, host's monotonic microseconds when the watchdog was last fed
RUNNING = 48  # flash address of the running app partition
RUNNING_SIZE = 52
CAUSE = 56  # machine.reset_cause()
RTC_LENGTH = 60  # bytes of RTC memory in use
START = 64  # u64, host's monotonic microseconds when CLOCK was the device's time
CLOCK = 72  # u64, microseconds since 2000-01-01 UTC
MAC = 80  # 6 bytes
TABLE_COUNT = 88  # partitions
SHIM_COST = 92  # heap bytes taken by what the simulator adds, written by a calibration run
FREE = 96  # heap bytes free when the device's own code starts
PEAK = 100  # reserved for heap figures
VERSION = 104  # MicroPython version reported by the personality: u8 major, minor, micro, 0

NET = 512  # u8 AP up, u16 ms to connect, then strings (u8 length, text): ssid, key, ip, and pairs name, address; u8 0
TABLE = 1024  # 32-byte partition records
BLANK = 4096  # one erased sector
RTC = 8192  # 2048 bytes of RTC memory
COSTS = 10240  # u16 count, then per frozen module: u32 heap bytes to load it, u8 length, path
LOG = 32768  # operation records: u8 kind (0 erase, 1 program), u32 address, u32 length, data of a program

NEVER = 0xFFFFFFFF

STOP_NONE = 0  # the process ended by itself: a fault of the simulator or of the interpreter
STOP_RESET = 1  # machine.reset()
STOP_DEEPSLEEP = 2
STOP_SOFT_RESET = 3
STOP_CUT = 4
STOP_PANIC = 5  # what makes a chip print a Guru Meditation and restart
STOP_IDLE = 6  # main.py came to its end: a chip would wait at the prompt
STOP_LOG_FULL = 7
STOP_BROKEN = 8  # the simulator's own start-up code failed

# Requests to the host: what needs the whole flash, or more logic than a device should pay for.
RPC_SET_BOOT = 1
RPC_BOOT_PARTITION = 2
RPC_NEXT_UPDATE = 3
RPC_MARK_VALID = 4
RPC_NVS = 5
RPC_EFUSE_READ = 6
RPC_EFUSE_WRITE = 7
RPC_TIME = 8
