# RabbitMQ from Debian: one node with its own name registry (epmd), both on loopback. Never run as root.
# shellcheck shell=bash disable=SC2034

VARIABLE=GRAVITY_TEST_RABBITMQ
PORT=${GRAVITY_RABBITMQ_PORT:-15671}
DIST_PORT=${GRAVITY_RABBITMQ_DIST_PORT:-25671}
EPMD_PORT=${ERL_EPMD_PORT:-14369}
address=127.0.0.1:$PORT
READY_WITHIN=120

# The script behind Debian's wrapper: the wrapper drops the environment that tells the places.
SERVER=/usr/lib/rabbitmq/bin/rabbitmq-server

missing_packages() {
  [[ -x $SERVER ]] || echo rabbitmq-server
  have amqp-publish || echo amqp-tools
}

as_owner() { if ((EUID == 0)); then setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups "$@"; else "$@"; fi; }

# The data folder. A clone may lie where the user rabbitmq cannot go (a private home): then it is in /var/tmp, named after the clone.
data_dir() {
  if ((EUID != 0)) || as_owner test -x "$HOME_DIR"; then
    printf '%s\n' "$HOME_DIR/data"
  else
    printf '/var/tmp/gravity-rabbitmq-%s\n' "$(printf '%s' "$HOME_DIR" | cksum | cut -d' ' -f1)"
  fi
}

own_dir() { data_dir; }

install() {
  local data
  data=$(data_dir)
  [[ -x $SERVER ]] || die "no RabbitMQ server: $SERVER"
  mkdir -p "$data"
  # A message of more than 1 MiB is refused, so that tests need no larger one.
  {
    printf 'listeners.tcp.1 = 127.0.0.1:%s\n' "$PORT"
    printf 'max_message_size = 1048576\nlog.file.level = info\n'
    [[ ! -f $HOME_DIR/extra.conf ]] || cat "$HOME_DIR/extra.conf"
  } >"$data/rabbitmq.conf"
  # A list of plugins that are on: none, and nobody asks Debian's.
  printf '[].\n' >"$data/enabled_plugins"
  if ((EUID == 0)); then chown -R rabbitmq:rabbitmq "$data"; fi
  chmod 700 "$data"
}

# The environment of the node and of the commands that speak to it, as `NAME=VALUE` words.
environment() {
  local data
  data=$(data_dir)
  printf '%s\n' RABBITMQ_NODENAME="gravity$PORT@localhost" RABBITMQ_CONFIG_FILE="$data/rabbitmq" RABBITMQ_MNESIA_BASE="$data/mnesia" \
    RABBITMQ_LOG_BASE="$data/log" RABBITMQ_ENABLED_PLUGINS_FILE="$data/enabled_plugins" RABBITMQ_PID_FILE="$data/pid" \
    RABBITMQ_DIST_PORT="$DIST_PORT" HOME="$data" TMPDIR="$data" ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT="$EPMD_PORT" \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
}

# The registry is started first and ended last: one that the node starts by itself would outlive it, and nobody would know whose it is.
start() {
  local words=() run=()
  mapfile -t words < <(environment)
  if ((EUID == 0)); then run=(setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups); fi
  cd / # the owner may not be able to read the folder we were called in
  end_registry
  setsid "${run[@]}" epmd -address 127.0.0.1 -port "$EPMD_PORT" >>"$LOG_FILE" 2>&1 </dev/null 9>&- &
  printf '%s %s\n' "$!" "$(started_at "$!")" >"$HOME_DIR/epmd.pid"
  disown
  spawn env "${words[@]}" "${run[@]}" "$SERVER"
}

# A clean stop is asked of the node itself: the script that we started passes signals on, and returns when the node is gone.
stop() {
  local pid
  if pid=$(running_pid); then
    kill -s TERM "$pid" 2>/dev/null || true
    local all
    mapfile -t all < <(printf '%s\n' "$pid"; descendants "$pid")
    gone_within 60 "${all[@]}" || crash
    rm -f "$PID_FILE"
  fi
  end_registry
}

crash() {
  local pid all
  if pid=$(running_pid); then
    mapfile -t all < <(printf '%s\n' "$pid"; descendants "$pid")
    kill -KILL "${all[@]}" 2>/dev/null || true
    gone_within 30 "${all[@]}" || die "$NAME: pid $pid does not end"
    rm -f "$PID_FILE"
  fi
  end_registry
}

end_registry() {
  local pid started
  [[ -f $HOME_DIR/epmd.pid ]] || return 0
  read -r pid started <"$HOME_DIR/epmd.pid" || true
  if [[ -n $pid && -n $started && $(started_at "$pid") == "$started" ]]; then
    kill -KILL "$pid" 2>/dev/null || true
    gone_within 10 "$pid" || die "$NAME: its epmd, pid $pid, does not end"
  fi
  rm -f "$HOME_DIR/epmd.pid"
}

# A client's own question: the broker greets whoever speaks AMQP 0-9-1 with connection.start, and the virtual host can be entered.
ready() {
  amqp-declare-queue --server=127.0.0.1 --port="$PORT" -q gravity-ready >/dev/null 2>&1 &&
    amqp-delete-queue --server=127.0.0.1 --port="$PORT" -q gravity-ready >/dev/null 2>&1
}

control() {
  local words=() run=()
  mapfile -t words < <(environment)
  if ((EUID == 0)); then run=(setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups); fi
  cd /
  env "${words[@]}" "${run[@]}" /usr/lib/rabbitmq/bin/rabbitmqctl "$@" </dev/null 9>&-
}
