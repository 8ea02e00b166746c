# The firmware's own modules; a product adds its own here or in a manifest that includes this one.
include("../../manifest.py")
