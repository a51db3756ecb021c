# shellcheck shell=bash
# Processes of ours: recorded, supervised, stopped.
#
# A process is recorded as its pid and its start time. A pid which the kernel
# has meanwhile given to somebody else has another start time, and is left alone.

start_time() { # start_time PID: field 22 of its stat line; the name in field 2 may hold spaces
  local stat fields
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  read -ra fields <<<"${stat##*) }"
  echo "${fields[19]}"
}

record() { # record FILE PID
  local started
  started=$(start_time "$2") || return 1
  echo "$2 $started" >"$1.new" && mv "$1.new" "$1"
}

recorded() { # recorded FILE: the pid, when that very process still runs
  local pid started
  { read -r pid started <"$1"; } 2>/dev/null || return 1
  [[ $(start_time "$pid") == "$started" ]] && echo "$pid"
}

gone() { ! recorded "$1" >/dev/null; }

signal() { # signal NAME FILE: whoever is recorded there, if still running
  local pid
  pid=$(recorded "$2") && kill "-$1" "$pid" 2>/dev/null || true
}

# only_child PID: the single child of a process, once there is one
only_child() {
  local child
  read -r child _ <"/proc/$1/task/$1/children" 2>/dev/null
  [[ -n $child ]] && echo "$child"
}

# ensure NAME NODE COMMAND...: have COMMAND run under a supervisor, on the
# machine (NODE is -) or inside a node. What runs already is kept, unless its
# command line, program or configuration (CONFIG_FILES) is no longer the same.
ensure() {
  local name=$1 node=$2 spec
  shift 2
  spec=$(printf '%s\n' "$node" "$@"; stat -L -c '%n %i %Y' "$1"; cat "${CONFIG_FILES[@]}" /dev/null | cksum)
  if recorded "$RUN/$name.supervisor" >/dev/null; then
    if [[ $spec == "$(cat "$RUN/$name.spec" 2>/dev/null)" ]]; then return; fi
    stop "$name"
  else
    end "$RUN/$name.pid" 10 # a daemon whose supervisor was killed
  fi
  # A session of its own, so that the terminal's interrupt does not reach it.
  env -i "${CLEAN_ENV[@]}" setsid "$LIB/supervise" "$name" "$node" "$RUN" "$LOGS/$name.log" "$@" \
    </dev/null >>"$LOGS/$name.log" 2>&1 {LOCK}>&- {TERMINAL}>&- {TERMINAL_ERR}>&- &
  record "$RUN/$name.supervisor" $! || die_of "$name" "the supervisor of $name did not start"
  disown
  echo "$spec" >"$RUN/$name.spec"
}

# end FILE SECONDS: TERM, and KILL for one that does not listen
end() {
  gone "$1" && return
  signal TERM "$1"
  wait_for "$2" gone "$1" || signal KILL "$1"
  wait_for 10 gone "$1"
}

# stop NAME...: all of them at once; a supervisor ends its daemon, then itself
stop() {
  local name
  for name; do signal TERM "$RUN/$name.supervisor"; done
  for name; do
    wait_for 20 gone "$RUN/$name.supervisor" || signal KILL "$RUN/$name.supervisor"
    end "$RUN/$name.pid" 1 || warn "$name cannot be ended; pid and start time: $(cat "$RUN/$name.pid")"
    rm -f "$RUN/$name."{supervisor,pid,spec}
  done
}

# in_node NODE COMMAND...: inside the node's namespaces, in the foreground
in_node() {
  local init
  init=$(recorded "$RUN/$1.pid") || return 1
  shift
  nsenter --target "$init" --mount --uts --ipc --net --pid -- "$@"
}
