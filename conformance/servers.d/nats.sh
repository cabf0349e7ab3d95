# NATS with JetStream: one process, built from source at the version that servers.d/nats/go.mod names; and `nats`, the project's own
# command-line client, at the version of servers.d/nats/cli/go.mod.
# shellcheck shell=bash disable=SC2034

VARIABLE=GRAVITY_TEST_NATS
PORT=${GRAVITY_NATS_PORT:-14222}
address=127.0.0.1:$PORT

MODULE_DIR=$ROOT/conformance/servers.d/nats
VERSION=$(sed -n 's/.*nats-server\/v2 v\([^ ]*\).*/\1/p' "$MODULE_DIR/go.mod")
# GRAVITY_NATS_BIN: another nats-server, to run the suites against (Debian's, an older one).
BIN_DIR=$WORK/bin/nats-server-$VERSION
BIN=${GRAVITY_NATS_BIN:-$BIN_DIR/nats-server}
CLI_VERSION=$(sed -n 's/.*nats-io\/natscli v\([^ ]*\).*/\1/p' "$MODULE_DIR/cli/go.mod")
CLI_DIR=$WORK/bin/nats-cli-$CLI_VERSION

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

# Tests that publish with it say that they are skipped where it cannot be had. GRAVITY_NATS_CLI: another one, or `none`.
clients() {
  [[ -n ${GRAVITY_NATS_CLI:-} || -x $CLI_DIR/nats ]] && return
  mkdir -p "$LOGS"
  LOG_FILE=$LOGS/nats-cli.log built "nats $CLI_VERSION" "$MODULE_DIR/cli" "$CLI_DIR" ||
    say "nats: Go could not build the command-line client ($LOGS/nats-cli.log)"
}

build() {
  [[ -x $BIN ]] && return
  [[ -z ${GRAVITY_NATS_BIN:-} ]] || die "nats: GRAVITY_NATS_BIN names no program: $GRAVITY_NATS_BIN"
  have go || die "nats: go is needed to build the server"
  built "nats-server $VERSION" "$MODULE_DIR" "$BIN_DIR" ||
    { tail -n 20 "$LOG_FILE" >&2; die "nats: Go could not build the server ($LOG_FILE)"; }
}

# The tool of a module, whole or not at all: built WHAT MODULE FOLDER
built() {
  local part=$3.part-$$
  say "building $1"
  mkdir -p "$part"
  (cd "$2" && GOBIN=$part GOFLAGS=-mod=readonly go install tool) </dev/null >>"$LOG_FILE" 2>&1 9>&- || { rm -rf "$part"; return 1; }
  mv "$part" "$3"
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
