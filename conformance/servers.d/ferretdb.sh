# FerretDB: MongoDB's protocol over the PostgreSQL of this script, in a database of its own. Built from source at the version that
# servers.d/ferretdb/go.mod names. A stand-alone server: no transactions, no Decimal128.
# shellcheck shell=bash disable=SC2034

VARIABLE=GRAVITY_TEST_MONGODB
PORT=${GRAVITY_MONGODB_PORT:-17017}
address=mongodb://127.0.0.1:$PORT/

MODULE_DIR=$ROOT/conformance/servers.d/ferretdb
VERSION=$(sed -n 's/.*FerretDB\/FerretDB v\([^ ]*\).*/\1/p' "$MODULE_DIR/go.mod")
BIN_DIR=$WORK/bin/ferretdb-$VERSION-$(cksum "$MODULE_DIR/main.go" | cut -d' ' -f1)
BIN=$BIN_DIR/ferretdb
DATABASE=ferretdb
# The client that tests read with.
PYMONGO=4.20.1

# Debian's Go is too old to fetch the one that go.mod names; 1.21 and newer fetch it by themselves.
lacking() {
  local minor
  [[ -x $BIN ]] && return 1
  if ! have go; then echo "FerretDB is built with Go 1.21 or newer, and there is no go"; return; fi
  minor=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
  ((${minor:-0} >= 21)) && return 1
  echo "FerretDB is built with Go 1.21 or newer, this is $(go env GOVERSION)"
}

missing_packages() { server postgres packages_of; }

install() {
  build
  pymongo
}

# Tests that read with it say that they are skipped where it cannot be had.
pymongo() {
  PYTHONPATH=$WORK/python python3 -c 'import pymongo' 2>/dev/null && return
  python3 -m pip install -q --target "$WORK/python" "pymongo==$PYMONGO" </dev/null >>"$LOG_FILE" 2>&1 9>&- ||
    say "ferretdb: no pymongo could be installed ($LOG_FILE)"
}

build() {
  [[ -x $BIN ]] && return
  say "building FerretDB $VERSION"
  local part=$BIN_DIR.part-$$
  mkdir -p "$part"
  (cd "$MODULE_DIR" && GOFLAGS=-mod=readonly go build -trimpath -o "$part/ferretdb" .) </dev/null >>"$LOG_FILE" 2>&1 9>&- ||
    { rm -rf "$part"; tail -n 20 "$LOG_FILE" >&2; die "ferretdb: Go could not build the server ($LOG_FILE)"; }
  mv "$part" "$BIN_DIR"
}

# Runs in the world of `postgres`: what tests would be given.
print_address() { printf '%s\n' "${!VARIABLE:-$address}"; }
postgres_url() { server postgres print_address; }

start() {
  local url
  server postgres up_one
  server postgres wait_one
  url=$(postgres_url)
  if [[ $(psql -X -A -t -c "SELECT count(*) FROM pg_database WHERE datname = '$DATABASE'" "$url") == 0 ]]; then
    psql -X -q -c "CREATE DATABASE $DATABASE" "$url" >>"$LOG_FILE" 2>&1
  fi
  # It writes each document in a transaction of its own. No test asks what it keeps through a kill, so none of them waits for the disk.
  psql -X -q -c "ALTER DATABASE $DATABASE SET synchronous_commit = off" "$url" >>"$LOG_FILE" 2>&1
  spawn "$BIN" "127.0.0.1:$PORT" "${url%/*}/$DATABASE"
}

# A ping as a client sends it, and the first bytes of its answer.
ready() (
  exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$PORT" || exit 1
  printf '\x33\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\x1e\0\0\0\x10ping\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0' >&3
  [[ $(timeout 5 head -c 4 <&3 | od -An -tu4) -gt 16 ]]
)

# The data lies in PostgreSQL, not in this server's folder.
forget() {
  local url ours=false
  url=$(postgres_url)
  if ! server postgres running_pid >/dev/null && [[ -d $WORK/servers/postgres ]]; then
    ours=true
    server postgres start
    server postgres wait_ready
  fi
  psql -X -q -c "DROP DATABASE IF EXISTS $DATABASE WITH (FORCE)" "$url" >/dev/null 2>&1 || true
  if $ours; then server postgres stop; fi
}
