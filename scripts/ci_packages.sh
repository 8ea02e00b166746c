#!/usr/bin/env bash
# Installs what the tests need besides Python packages, where it is missing: a browser, a PKCS#11 token with OpenSSL's
# engine for it, Java and Maven, a C compiler. Debian; elsewhere install them by hand.
set -euo pipefail

missing=()
need() { # package, and a command that succeeds where it is there
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
need chromium sh -c 'test -n "${SEKISHO_CHROMIUM:-}" || command -v chromium || command -v chromium-browser'
need softhsm2 sh -c 'command -v softhsm2-util'
need openssl sh -c 'command -v openssl'
need libengine-pkcs11-openssl sh -c 'openssl engine pkcs11 | grep -q "pkcs11 engine"'
need maven sh -c 'command -v mvn'
need default-jre-headless sh -c 'command -v java'
need gcc sh -c 'command -v cc'
need libc6-dev sh -c 'echo "#include <stdio.h>" | cc -E -'
((${#missing[@]})) || exit 0

root=()
((EUID == 0)) || root=(sudo -n)
if ! command -v apt-get >/dev/null ||
  ! "${root[@]}" apt-get update -qq ||
  ! DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -yqq --no-install-recommends "${missing[@]}"; then
  echo "error[PACKAGES]: the tests need ${missing[*]}, and apt-get cannot install them here." >&2
  exit 1
fi
