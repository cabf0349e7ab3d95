# MariaDB from Debian: speaks MySQL's protocol for the views. Never run as root; durability settings stay on.
# shellcheck shell=bash disable=SC2034

VARIABLE=GRAVITY_TEST_MARIADB
PORT=${GRAVITY_MARIADB_PORT:-13306}
address=mysql://root@127.0.0.1:$PORT/

missing_packages() {
  [[ -n $(server_bin) ]] || echo mariadb-server
  have mariadb || echo mariadb-client
}

# Debian keeps the server outside of what a plain user's PATH names.
server_bin() { local bin; for bin in /usr/sbin/mariadbd "$(command -v mariadbd)"; do if [[ -x $bin ]]; then printf '%s\n' "$bin"; return; fi; done; }

as_owner() { if ((EUID == 0)); then setpriv --reuid=mysql --regid=mysql --init-groups "$@"; else "$@"; fi; }

# The data folder. A clone may lie where the user mysql cannot go (a private home): then it is in /var/tmp, named after the clone.
data_dir() {
  if ((EUID != 0)) || as_owner test -x "$HOME_DIR"; then
    printf '%s\n' "$HOME_DIR/data"
  else
    printf '/var/tmp/gravity-mariadb-%s\n' "$(printf '%s' "$HOME_DIR" | cksum | cut -d' ' -f1)"
  fi
}

own_dir() { data_dir; }

version() { "$(server_bin)" --version | grep -oE '[0-9]+\.[0-9]+' | head -n 1; }

install() {
  local data
  data=$(data_dir)
  [[ -n $(server_bin) ]] || die "no MariaDB server: neither /usr/sbin/mariadbd nor mariadbd in PATH"
  # Test data: a folder of another release, or one whose making was cut short, is made again.
  if [[ -f $data/gravity-ready && $(cat "$data/gravity-ready") == "$(version)" ]]; then return; fi
  rm -rf "$data"
  mkdir -p "$data"
  if ((EUID == 0)); then chown mysql:mysql "$data"; fi
  chmod 700 "$data"
  # Temporary files stay with the server: the caller's TMPDIR may be closed to its user.
  (cd / && TMPDIR=$data as_owner mariadb-install-db --no-defaults --datadir="$data" --tmpdir="$data" --auth-root-authentication-method=normal --skip-test-db) \
    >>"$LOG_FILE" 2>&1 9>&- || { tail -n 20 "$LOG_FILE" >&2; die "mariadb-install-db failed ($LOG_FILE)"; }
  version | as_owner tee "$data/gravity-ready" >/dev/null
}

start() {
  local extra=() run=() data
  data=$(data_dir)
  read -r -a extra <<<"${GRAVITY_MARIADB_OPTIONS:-}"
  if ((EUID == 0)); then run=(setpriv --reuid=mysql --regid=mysql --init-groups); fi
  cd / # the owner may not be able to read the folder we were called in
  # A socket's path is short by law (108 bytes), a clone's may not be: it lies in the data folder under a relative name.
  # The redo log is 1 GiB as the performance notes ask of a server for views; it is made sparse and fills as it is used.
  spawn "${run[@]}" "$(server_bin)" --no-defaults --datadir="$data" --tmpdir="$data" --port="$PORT" \
    --bind-address=127.0.0.1 --socket=gravity.sock --pid-file=gravity.pid --skip-name-resolve --skip-log-bin \
    --innodb-flush-log-at-trx-commit=1 --innodb-doublewrite=1 --innodb-buffer-pool-size=256M --innodb-log-file-size=1G \
    --max-allowed-packet=64M --max-connections=200 --lc-messages=en_US "${extra[@]}"
}

# A client's own question, over TCP as the product asks.
ready() {
  mariadb --no-defaults -h 127.0.0.1 -P "$PORT" -u root --connect-timeout=2 -N -e 'SELECT 1' </dev/null >/dev/null 2>&1
}
