# What goes into the firmware: Sekisho, the product's configuration, and nothing of MicroPython's own start-up files.
#
# MicroPython's manifest for this port is not included: its _boot.py would run instead of ours, formats a file system
# it cannot read, and waits for ever in front of a damaged one. Products add their own modules in a manifest that
# includes this one.
#
# The device configuration (module `sekisho_config`: vendor, product classes, first key set, floors) is written by
# `sekisho image build` or by hand; the environment variable SEKISHO_CONFIG names the directory it is in.
import os

include("$(MPY_DIR)/extmod/asyncio")

package("sekisho_boot", base_path="../boot", opt=3)
package("sekisho", base_path="../lib", opt=3)
for script in ("_boot.py", "boot.py", "main.py"):
    module(script, base_path=".", opt=3)
# Libraries of others, which `sekisho image libraries` takes from the pinned packages (the console's microdot, MIT).
module("microdot.py", base_path=os.environ.get("SEKISHO_LIBRARIES", "../build/libraries"), opt=3)
module("sekisho_config.py", base_path=os.environ.get("SEKISHO_CONFIG", "$(BOARD_DIR)"))
