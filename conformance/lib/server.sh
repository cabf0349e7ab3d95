# One server's life, told by its pid file: the default verbs that a file of servers.d may override. Sourced in a subshell per server.
# shellcheck shell=bash
#
# A server file sets VARIABLE (the environment variable that names the server for tests), address (its value for
# our own), and defines missing_packages, install, start, ready. It may override lacking, clients, stop_signal, stop, crash, own_dir, forget
# (what `wipe` removes outside of the folder).

# Folder of the server's data, log and pid file. Our callers set NAME.
HOME_DIR=$WORK/servers/$NAME
PID_FILE=$HOME_DIR/pid
LOG_FILE=$HOME_DIR/log
READY_WITHIN=90
stop_signal=TERM

missing_packages() { :; }
# Says why this machine cannot have the server, and then it is skipped; fails where it can.
lacking() { return 1; }
# What tests speak to the server with, where no package has it; also when the server runs already.
clients() { :; }
install() { :; }
control() { die "$NAME has no tool of its own"; }

# Start time of a process in clock ticks since boot, nothing when it is gone or a zombie. With the pid it names one process for ever.
started_at() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  # shellcheck disable=SC2086
  set -- $stat
  [[ $1 != Z && $1 != X ]] && printf '%s\n' "${20}"
}

# Our server's pid when it runs; a stale pid file is removed.
running_pid() {
  local pid started
  [[ -f $PID_FILE ]] || return 1
  read -r pid started <"$PID_FILE" || true
  if [[ -n $pid && -n $started && $(started_at "$pid") == "$started" ]]; then
    printf '%s\n' "$pid"
  else
    rm -f "$PID_FILE"
    return 1
  fi
}

# Runs a command as the server: in a session of its own (a Ctrl-C at the terminal does not reach it), without our lock.
spawn() {
  setsid "$@" >>"$LOG_FILE" 2>&1 </dev/null 9>&- &
  printf '%s %s\n' "$!" "$(started_at "$!")" >"$PID_FILE"
  disown
}

# Waits until none of the pids is left: gone_within SECONDS PID...
gone_within() {
  local deadline=$((SECONDS + $1)) pid
  shift
  for pid in "$@"; do
    while started_at "$pid" >/dev/null; do
      ((SECONDS < deadline)) || return 1
      sleep 0.05
    done
  done
}

descendants() {
  local children child
  read -r -a children < <(cat "/proc/$1/task/"*/children 2>/dev/null | tr '\n' ' ') || true
  for child in "${children[@]}"; do
    printf '%s\n' "$child"
    descendants "$child"
  done
}

stop() {
  local pid
  pid=$(running_pid) || return 0
  kill -s "$stop_signal" "$pid" 2>/dev/null || true
  gone_within 30 "$pid" || crash
  rm -f "$PID_FILE"
}

# kill -9 of the server and of what it started, at once: what a fault run calls a crash.
crash() {
  local pid all
  pid=$(running_pid) || return 0
  mapfile -t all < <(printf '%s\n' "$pid"; descendants "$pid")
  kill -KILL "${all[@]}" 2>/dev/null || true
  gone_within 30 "${all[@]}" || die "$NAME: pid $pid does not end"
  rm -f "$PID_FILE"
}

wait_ready() {
  local deadline=$((SECONDS + READY_WITHIN))
  until ready; do
    running_pid >/dev/null || { tail -n 20 "$LOG_FILE" >&2; die "$NAME ended while it was starting ($LOG_FILE)"; }
    ((SECONDS < deadline)) || { tail -n 20 "$LOG_FILE" >&2; die "$NAME is not ready after $READY_WITHIN s ($LOG_FILE)"; }
    sleep 0.1
  done
}
