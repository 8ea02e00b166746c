"""The registries of SUIT and COSE that manifests use: numbers and names (docs/suit-profile.md)."""

from __future__ import annotations

ENVELOPE_MEMBERS = {
    2: "authentication-wrapper",
    3: "manifest",
    14: "coswid",
    15: "dependency-resolution",
    16: "payload-fetch",
    18: "candidate-verification",
    20: "install",
    23: "text",
}
MANIFEST_MEMBERS = {
    1: "manifest-version",
    2: "manifest-sequence-number",
    3: "common",
    4: "reference-uri",
    5: "manifest-component-id",
    6: "set-version",
    7: "validate",
    8: "load",
    9: "invoke",
    14: "coswid",
    15: "dependency-resolution",
    16: "payload-fetch",
    18: "candidate-verification",
    20: "install",
    23: "text",
    24: "uninstall",
    25: "mud",
}
SEVERABLE = (14, 15, 16, 18, 20, 23)
SEQUENCES = (7, 8, 9, 15, 16, 18, 20, 24)

CONDITIONS = {
    1: "vendor-identifier",
    2: "class-identifier",
    3: "image-match",
    4: "use-before",
    5: "component-slot",
    6: "check-content",
    7: "dependency-integrity",
    8: "is-dependency",
    14: "abort",
    24: "device-identifier",
    25: "image-not-match",
    26: "minimum-battery",
    27: "update-authorized",
    28: "version",
}
DIRECTIVES = {
    11: "process-dependency",
    12: "set-component-index",
    15: "try-each",
    18: "write",
    19: "set-parameters",
    20: "override-parameters",
    21: "fetch",
    22: "copy",
    23: "invoke",
    29: "wait",
    31: "swap",
    32: "run-sequence",
    33: "unlink",
    34: "override-multiple",
    35: "copy-params",
}
COMMANDS = CONDITIONS | DIRECTIVES
PARAMETERS = {
    1: "vendor-identifier",
    2: "class-identifier",
    3: "image-digest",
    4: "use-before",
    5: "component-slot",
    12: "strict-order",
    13: "soft-failure",
    14: "image-size",
    18: "content",
    19: "encryption-info",
    21: "uri",
    22: "source-component",
    23: "invoke-args",
    24: "device-identifier",
    25: "fetch-arguments",
    26: "minimum-battery",
    27: "update-priority",
    28: "version",
    29: "wait-info",
    30: "component-metadata",
}
COMPRESSION = -257
"""A custom parameter of ours, for copy: how its source is compressed. It has no registered number."""
ZLIB = 1
"""Its one value: zlib (RFC 1950)."""
CUSTOM_PARAMETERS = {COMPRESSION: "compression"}
POLICIES = ("record-on-success", "record-on-failure", "sysinfo-on-success", "sysinfo-on-failure")
COMPARISONS = {1: ">", 2: ">=", 3: "==", 4: "<=", 5: "<"}
WAIT_EVENTS = {
    1: "authorization",
    2: "power",
    3: "network",
    4: "other-device-version",
    5: "time",
    6: "time-of-day",
    7: "day-of-week",
    8: "time-of-day-utc",
    9: "day-of-week-utc",
}
METADATA = {
    1: "default-permissions",
    2: "user",
    3: "group",
    4: "role-permissions",
    5: "file-type",
    6: "modification-time",
    7: "creation-time",
    8: "creator",
}
MANIFEST_TEXTS = {1: "manifest-description", 2: "update-description", 3: "json-source", 4: "yaml-source"}
COMPONENT_TEXTS = {
    1: "vendor-name",
    2: "model-name",
    3: "vendor-domain",
    4: "model-info",
    5: "component-description",
    6: "component-version",
    7: "version-required",
    8: "current-version",
}
CONTENT_ALGORITHMS = {
    1: "A128GCM",
    2: "A192GCM",
    3: "A256GCM",
    24: "ChaCha20/Poly1305",
    -65534: "A128CTR",
    -65533: "A192CTR",
    -65532: "A256CTR",
}
KEY_ALGORITHMS = {
    -3: "A128KW",
    -4: "A192KW",
    -5: "A256KW",
    -6: "direct",
    -29: "ECDH-ES + A128KW",
    -30: "ECDH-ES + A192KW",
    -31: "ECDH-ES + A256KW",
}
