# What ./demo and ./test share: missing Debian packages and a Python environment. Sourced, never run; bash.
# Mirrors and indexes are the system's own: nothing here names one.

say() { printf '\033[1m==\033[0m %s\n' "$*" >&2; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@" 2>/dev/null || { [ -t 0 ] && sudo "$@"; }; fi
}

can_be_root() {
    [ "$(id -u)" = 0 ] && return 0
    command -v sudo >/dev/null || return 1
    sudo -n true 2>/dev/null && return 0
    [ -t 0 ] && id -nG | tr ' ' '\n' | grep -qx sudo
}

# One line that moves on a terminal; on anything else a sign of life every 20 lines.
progress() {
    local what=$1 line count=0
    while IFS= read -r line; do
        count=$((count + 1))
        if [ -t 2 ]; then
            printf '\r\033[K   %s: %.100s' "$what" "$line" >&2
        elif [ $((count % 20)) = 0 ]; then
            printf '   %s: %.100s\n' "$what" "$line" >&2
        fi
    done
    if [ -t 2 ]; then printf '\r\033[K' >&2; fi
}

# Names of those packages that are not installed.
missing_packages() {
    local name
    for name in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || printf '%s ' "$name"
    done
}

# Installs what is missing of the named packages. Returns 1, and says so, when it may not.
install_packages() {
    local missing log
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    if ! can_be_root; then
        say "Debian packages missing: $missing"
        say "to have them: sudo apt-get install $missing"
        return 1
    fi
    log=$(mktemp)
    say "installing Debian packages: $missing"
    if [ -z "$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -mmin -1440 2>/dev/null | head -n 1)" ]; then
        as_root apt-get update 2>&1 | tee "$log" | progress "package lists"
    fi
    # shellcheck disable=SC2086 # a list of words
    if ! apt_install $missing 2>&1 | tee "$log" | progress "packages" || [ -n "$(missing_packages "$@")" ]; then
        as_root apt-get update 2>&1 | tee "$log" | progress "package lists"
        # shellcheck disable=SC2086
        apt_install $missing 2>&1 | tee "$log" | progress "packages" || true
    fi
    missing=$(missing_packages "$@")
    if [ -n "$missing" ]; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        fail "apt-get could not install: $missing"
    fi
    rm -f "$log"
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends -o Dpkg::Use-Pty=0 "$@" </dev/null
}

# The first Python of 3.11 or later that can make an environment; Debian's own is preferred: every user may read it.
find_python() {
    local candidate
    for candidate in "${PANAL_PYTHON:-}" /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# environment DIRECTORY LOCK: prints the bin directory of an environment with exactly what LOCK names, made if need be.
environment() {
    local base=$1 lock=$2 python key dir
    python=$(find_python) || fail "needs Python 3.11 or later with venv: install python3-venv"
    key=$("$python" -c 'import hashlib, sys
print(f"{sys.version_info[0]}.{sys.version_info[1]}-" + hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest()[:12])' "$lock")
    dir=$base/venv-$key
    if [ ! -e "$dir/.complete" ]; then
        mkdir -p "$base"
        exec 8>"$base/.venv.lock"
        flock 8
        if [ ! -e "$dir/.complete" ]; then
            say "making a Python environment in $dir (once)"
            rm -rf "$dir"
            "$python" -m venv "$dir" || fail "python3 -m venv failed; install python3-venv"
            "$dir/bin/python" -m pip install --disable-pip-version-check --no-input --require-hashes \
                --only-binary :all: -r "$lock" >"$dir/pip.log" 2>&1 </dev/null 8>&- &
            wait_with_progress $! "$dir/pip.log" "Python packages" || {
                tail -n 15 "$dir/pip.log" >&2
                fail "pip could not install what $lock names; see $dir/pip.log"
            }
            "$dir/bin/python" -m compileall -q "$dir/lib" >/dev/null 2>&1 || true
            touch "$dir/.complete"
        fi
        exec 8>&-
    fi
    printf '%s\n' "$dir/bin"
}

wait_with_progress() {
    local pid=$1 log=$2 what=$3
    tail -n +1 -f --pid="$pid" "$log" 2>/dev/null | grep --line-buffered -oE '^(Collecting|Downloading|Installing).{0,60}' | progress "$what"
    wait "$pid"
}
