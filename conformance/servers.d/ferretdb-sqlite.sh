# FerretDB on SQLite files of its own: the MongoDB of the fault gates, so that a kill of PostgreSQL is none of it. The other one, over
# PostgreSQL, finds documents by their `_id`, which this one does for texts only: the suites are quicker there.
# shellcheck shell=bash disable=SC2034
# shellcheck source=ferretdb.sh
. "$ROOT/conformance/servers.d/ferretdb.sh"

VARIABLE=GRAVITY_TEST_FERRETDB
PORT=${GRAVITY_FERRETDB_PORT:-17018}
address=mongodb://127.0.0.1:$PORT/

missing_packages() { :; }

# What a process has written is there after its kill -9, without waiting for the disk.
start() {
  mkdir -p "$HOME_DIR/data"
  spawn "$BIN" "127.0.0.1:$PORT" "file:$HOME_DIR/data/?_pragma=synchronous(off)"
}

# The data lies in this server's folder.
forget() { :; }
