#!/usr/bin/env bash
# Installs Debian packages for commands or files that are absent: setup.sh COMMAND-OR-FILE:PACKAGE…
set -euo pipefail

if ! command -v go >/dev/null; then
	echo "setup: Go is not installed: install Go 1.26 or newer (any Go from 1.21 on fetches it by itself)" >&2
	exit 1
fi
missing=()
for need in "$@"; do
	what=${need%%:*} package=${need##*:}
	if [[ $what == /* ]]; then
		[[ -e $what ]] || missing+=("$package")
	else
		command -v "$what" >/dev/null || missing+=("$package")
	fi
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

sudo=()
[[ $(id -u) -eq 0 ]] || sudo=(sudo)
if ! command -v apt-get >/dev/null; then
	echo "setup: install these by hand (there is no apt-get here): ${missing[*]}" >&2
	exit 1
fi
echo "setup: installing ${missing[*]}"
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
