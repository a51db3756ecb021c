# shellcheck shell=bash
# Nodes: each a set of namespaces on this machine, kept by its first process
# (node-init); when that goes, everything in the node goes with it.

node_runs() { recorded "$RUN/$1.pid" >/dev/null; }

start_node() {
  local node=$1 dir=$NODE_DIRS/$1 outer init other
  node_runs "$node" && return

  mkdir -p "$dir"/{etc/cni/net.d,etc/kubernetes/manifests,var/lib/{kubelet,containerd,cni},var/log/{pods,containers},var/tmp,tmp}
  rm -f "$dir/etc/cni/net.d/"* # of another life: its podCIDR may not be this one's
  {
    echo "127.0.0.1 localhost"
    for other in "${NODES[@]}"; do echo "${NODE_IP[$other]} $other"; done
  } | write_file "$dir/etc/hosts" 644
  echo "$node" | write_file "$dir/etc/hostname" 644
  printf '%s' "$STATE $node" | md5sum | cut -d' ' -f1 | write_file "$dir/etc/machine-id" 444
  install -m 755 "$LIB/node-init" "$dir/init"

  rm -f "$dir/ready"
  env -i "${CLEAN_ENV[@]}" setsid unshare --mount --uts --ipc --net --pid --fork --kill-child \
    "$dir/init" "$node" "$dir" "$STATE" </dev/null >>"$LOGS/$node.log" 2>&1 {LOCK}>&- {TERMINAL}>&- {TERMINAL_ERR}>&- &
  outer=$!
  disown
  # On record before anything is waited for: who is interrupted leaves nobody unknown.
  until init=$(only_child "$outer"); do
    start_time "$outer" >/dev/null || die_of "$node" "$node did not start"
    sleep 0.02
  done
  record "$RUN/$node.pid" "$init"
  wait_for 20 test -e "$dir/ready" || die_of "$node" "$node did not start"
  connect_node "$node" "$init"
}

# stop_nodes NODE...: all of them at once. Supervisors end their daemons first,
# so that nothing comes back; the pods end with the nodes' first processes.
stop_nodes() {
  local node
  stop "${@/#/kubelet@}" "${@/#/kube-proxy@}"
  stop "${@/#/containerd@}"
  for node; do
    end "$RUN/$node.pid" 10 || warn "$node cannot be ended"
    rm -f "$RUN/$node.pid"
    # Goes by itself with the node's network, a moment later.
    ip link delete "$(node_link "$node")" 2>/dev/null || true
  done
}

retire_node() {
  phase "removing $1"
  kubectl delete node "$1" --ignore-not-found || die "$1 cannot be deleted"
  stop_nodes "$1"
  rm -rf --one-file-system "${NODE_DIRS:?}/$1"
}

containerd_answers() { in_node "$1" ctr version >/dev/null 2>&1; }

start_runtime() {
  local node=$1
  flags_containerd
  ensure "containerd@$node" "$node" "$(tool containerd)" "${FLAGS[@]}"
  wait_for 60 containerd_answers "$node" || die_of "containerd@$node" "containerd of $node does not answer"
}

start_node_daemons() {
  local node=$1
  flags_kubelet "$node"
  ensure "kubelet@$node" "$node" "$BIN/kubelet" "${FLAGS[@]}"
  flags_kube_proxy "$node"
  ensure "kube-proxy@$node" "$node" "$BIN/kube-proxy" "${FLAGS[@]}"
}

nodes_usable() { # Ready, and no taint left that waits for the cloud-controller-manager
  local usable
  usable=$(kubectl get nodes -o 'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{" "}{.spec.taints[*].key}{"\n"}{end}' 2>/dev/null |
    grep -c '^True *$')
  ((usable == ${#NODES[@]}))
}
