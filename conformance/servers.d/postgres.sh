# PostgreSQL from Debian: the views' main database. Never run as root; durability settings stay on.
# shellcheck shell=bash disable=SC2034

VARIABLE=GRAVITY_TEST_POSTGRES
PORT=${GRAVITY_POSTGRES_PORT:-15432}
address=postgres://gravity@127.0.0.1:$PORT/postgres
stop_signal=INT # "fast": ends sessions, checkpoints, exits

bin_dir() {
  if [[ -n ${GRAVITY_POSTGRES_BIN:-} ]]; then printf '%s\n' "$GRAVITY_POSTGRES_BIN"; return; fi
  # shellcheck disable=SC2012
  ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1
}

missing_packages() {
  [[ -n $(bin_dir) ]] || echo postgresql
  have psql || echo postgresql-client
}

as_owner() { if ((EUID == 0)); then setpriv --reuid=postgres --regid=postgres --init-groups "$@"; else "$@"; fi; }

# The data folder. A clone may lie where the user postgres cannot go (a private home): then it is in /var/tmp, named after the clone.
data_dir() {
  if ((EUID != 0)) || as_owner test -x "$HOME_DIR"; then
    printf '%s\n' "$HOME_DIR/data"
  else
    printf '/var/tmp/gravity-postgres-%s\n' "$(printf '%s' "$HOME_DIR" | cksum | cut -d' ' -f1)"
  fi
}

own_dir() { data_dir; }

install() {
  local bin data
  bin=$(bin_dir) data=$(data_dir)
  [[ -n $bin ]] || die "no PostgreSQL server below /usr/lib/postgresql"
  # Test data: a folder of another major version, or one whose making was cut short, is made again.
  if [[ -f $data/gravity-ready && $(cat "$data/PG_VERSION") == "$("$bin/postgres" -V | grep -oE '[0-9]+' | head -n 1)" ]]; then return; fi
  rm -rf "$data"
  mkdir -p "$data"
  if ((EUID == 0)); then chown postgres:postgres "$data"; fi
  chmod 700 "$data"
  as_owner "$bin/initdb" -D "$data" -A trust -U gravity --no-sync -E UTF8 --locale=C.UTF-8 >>"$LOG_FILE" 2>&1 9>&- ||
    { tail -n 20 "$LOG_FILE" >&2; die "initdb failed ($LOG_FILE)"; }
  as_owner touch "$data/gravity-ready"
}

start() {
  local extra=() run=() holder
  # A postmaster that was killed stays in the process table until it is reaped, and would keep its successor from starting.
  holder=$(as_owner head -n 1 "$(data_dir)/postmaster.pid" 2>/dev/null) || true
  if [[ -n $holder ]] && ! started_at "$holder" >/dev/null; then as_owner rm -f "$(data_dir)/postmaster.pid"; fi
  read -r -a extra <<<"${GRAVITY_POSTGRES_OPTIONS:-}"
  if ((EUID == 0)); then run=(setpriv --reuid=postgres --regid=postgres --init-groups); fi
  cd / # the owner may not be able to read the folder we were called in
  spawn "${run[@]}" "$(bin_dir)/postgres" -D "$(data_dir)" -p "$PORT" \
    -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c fsync=on -c full_page_writes=on -c synchronous_commit=on \
    -c shared_buffers=256MB -c max_connections=100 -c max_wal_size=2GB \
    -c log_line_prefix='%m [%p] ' -c lc_messages=C -c timezone=UTC "${extra[@]}"
}

ready() { "$(bin_dir)/pg_isready" -q -h 127.0.0.1 -p "$PORT" -U gravity -d postgres -t 2 </dev/null; }
