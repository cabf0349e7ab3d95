# NATS with JetStream: one process, built from source at the version that servers.d/nats/go.mod names.
# shellcheck shell=bash disable=SC2034

VARIABLE=GRAVITY_TEST_NATS
PORT=${GRAVITY_NATS_PORT:-14222}
address=127.0.0.1:$PORT

MODULE_DIR=$ROOT/conformance/servers.d/nats
VERSION=$(sed -n 's/.*nats-server\/v2 v\([^ ]*\).*/\1/p' "$MODULE_DIR/go.mod")
# GRAVITY_NATS_BIN: another nats-server, to run the suites against (Debian's, an older one).
BIN_DIR=$WORK/bin/nats-server-$VERSION
BIN=${GRAVITY_NATS_BIN:-$BIN_DIR/nats-server}

# Debian's Go is too old to fetch the one that go.mod names; 1.21 and newer fetch it by themselves.
lacking() {
  local minor
  [[ -x $BIN ]] && return 1
  if ! have go; then echo "nats-server is built with Go 1.21 or newer, and there is no go"; return; fi
  minor=$(go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
  ((${minor:-0} >= 21)) && return 1
  echo "nats-server is built with Go 1.21 or newer, this is $(go env GOVERSION)"
}

install() {
  build
  write_config
}

build() {
  [[ -x $BIN ]] && return
  [[ -z ${GRAVITY_NATS_BIN:-} ]] || die "nats: GRAVITY_NATS_BIN names no program: $GRAVITY_NATS_BIN"
  have go || die "nats: go is needed to build the server"
  say "building nats-server $VERSION"
  local part=$BIN_DIR.part-$$
  mkdir -p "$part"
  (cd "$MODULE_DIR" && GOBIN=$part GOFLAGS=-mod=readonly go install tool) </dev/null >>"$LOG_FILE" 2>&1 9>&- ||
    { rm -rf "$part"; tail -n 20 "$LOG_FILE" >&2; die "nats: Go could not build the server ($LOG_FILE)"; }
  mv "$part" "$BIN_DIR"
}

# Two files hold what a private server of a test may want otherwise: who may sign in, and anything more.
write_config() {
  cat >"$HOME_DIR/nats.conf" <<CONF
listen: "127.0.0.1:$PORT"
jetstream { store_dir: "$HOME_DIR/data" }
include "users.conf"
include "extra.conf"
CONF
  [[ -f $HOME_DIR/extra.conf ]] || : >"$HOME_DIR/extra.conf"
  # Who says no name is `test`, who may do all but publish below `denied.`: a place that refuses an exporter.
  [[ -f $HOME_DIR/users.conf ]] || cat >"$HOME_DIR/users.conf" <<'CONF'
no_auth_user: test
authorization {
  users: [
    { user: test, password: test, permissions: { publish: { deny: ["denied.>"] } } }
    { user: signed, password: secret }
  ]
}
CONF
}

start() { spawn "$BIN" -c "$HOME_DIR/nats.conf"; }

# A client's own question, answered in order: the server greets and answers a ping, or asks who we are. JetStream is on.
ready() (
  exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$PORT" || exit 1
  IFS= read -r -t 2 line <&3 || exit 1
  [[ $line == *'"jetstream":true'* ]] || exit 1
  [[ $line == *'"tls_required":true'* ]] && exit 0
  printf 'CONNECT {"verbose":false}\r\nPING\r\n' >&3
  IFS= read -r -t 2 line <&3 || exit 1
  [[ $line == PONG* || $line == *"Authorization Violation"* ]]
)
