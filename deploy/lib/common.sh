# shellcheck shell=bash
# What every script of the deployment shares: progress, failure, waiting.
# Not here: anything that knows what a cluster is made of.

# Progress goes to the terminal; the output of the tools that are run goes to
# the log, so that a failure can be read up without flooding the reader.
exec {TERMINAL}>&1 {TERMINAL_ERR}>&2

say()  { printf '%s\n' "$*" >&"$TERMINAL"; }
warn() { printf 'warning: %s\n' "$*" >&"$TERMINAL_ERR"; }

# phase TEXT...: what is being done now; named again should it fail.
phase() {
  PHASE=$*
  printf '[%3ds] %s\n' "$SECONDS" "$PHASE" >&"$TERMINAL"
}

# log_to FILE: from here on the output of every command lands in FILE.
log_to() {
  LOG=$1
  mkdir -p "$(dirname "$LOG")"
  exec >>"$LOG" 2>&1
  printf '\n=== %s %s\n' "$(date -Is)" "$0"
}

# die MESSAGE...: end with a message and, where there is one, the log to read.
die() {
  local see=${LOG:+ (log: $LOG)}
  show_end
  printf 'error: %s%s\n' "$*" "$see" >&"$TERMINAL_ERR"
  FAILED_LOUDLY=1
  exit 1
}

# die_of NAME MESSAGE...: likewise, but it is that process that is to blame.
die_of() {
  LOG=$LOGS/$1.log
  shift
  die "$@"
}

show_end() {
  [[ -r ${LOG:-} ]] || return 0
  printf 'the end of %s:\n' "$LOG"
  tail -n 12 "$LOG" | cut -c -300 | sed 's/^/  | /'
} >&"$TERMINAL_ERR"

# For `trap ... EXIT`: a command that failed under `set -e` says nothing by
# itself, so name the phase and show the end of the log.
report_failure() {
  local status=$?
  [[ $status -eq 0 || -n ${FAILED_LOUDLY:-} ]] && return
  printf 'error: failed while: %s\n' "${PHASE:-starting}" >&"$TERMINAL_ERR"
  show_end
}

# wait_for SECONDS COMMAND...: until COMMAND succeeds. The limit only bounds a
# failure; nothing is ever decided by time having passed.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.2
  done
}

# install_if_changed SOURCE TARGET MODE: replace TARGET in one step, and only
# when it differs, so that what runs from it is restarted only when needed.
install_if_changed() {
  cmp -s "$1" "$2" && return
  install -m "$3" "$1" "$2.new"
  mv -f "$2.new" "$2"
}

# write_file FILE MODE: standard input into FILE, likewise.
write_file() {
  local new
  new=$(mktemp "$1.XXXXXX")
  cat >"$new"
  install_if_changed "$new" "$1" "$2"
  rm -f "$new"
}
