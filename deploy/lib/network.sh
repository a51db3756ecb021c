# shellcheck shell=bash
# The machine's side of the cluster's network: one bridge, a cable to each node,
# routes to pods and services. Nothing of it is forwarded beyond the machine.

bridge_owner() { ip -o link show "$BRIDGE" 2>/dev/null | sed -n 's/.*alias \([^\\]*\).*/\1/p'; }

make_bridge() {
  if ! ip link show "$BRIDGE" >/dev/null 2>&1; then
    if ip -4 route show to match "$HOST_IP" | grep -qv '^default'; then
      die "$HOST_IP is routed elsewhere on this machine; choose other addresses with --slot"
    fi
    ip link add "$BRIDGE" type bridge
    # So that whoever finds it knows what it belongs to.
    ip link set "$BRIDGE" alias "$STATE"
  fi
  [[ $(bridge_owner) == "$STATE" ]] ||
    die "$BRIDGE belongs to the cluster at '$(bridge_owner)': deploy/down --state it, or choose another --slot"
  ip address replace "$HOST_IP/$NODE_PREFIX" dev "$BRIDGE"
  ip link set "$BRIDGE" up
}

remove_bridge() {
  [[ $(bridge_owner) != "$STATE" ]] || ip link delete "$BRIDGE" # and its routes with it
}

connect_node() { # connect_node NODE INIT-PID
  local node=$1 init=$2 link
  link=$(node_link "$node")
  ip link show "$link" >/dev/null 2>&1 || ip link add "$link" type veth peer name eth0 netns "$init"
  ip link set "$link" master "$BRIDGE" up
  in_node "$node" ip address replace "${NODE_IP[$node]}/$NODE_PREFIX" dev eth0
  in_node "$node" ip link set eth0 up
  in_node "$node" ip route replace default via "$HOST_IP"
}

pod_cidr() { kubectl get node "$1" -o 'jsonpath={.spec.podCIDR}' 2>/dev/null | grep .; }

# As kube-controller-manager hands out pod networks, make them reachable: from
# each node, and from the machine, which reaches services through the first node.
connect_pods() {
  local node other cidr
  local -A cidrs=()
  for node in "${NODES[@]}"; do
    wait_for 120 pod_cidr "$node" >/dev/null ||
      die "$node got no podCIDR; see $LOGS/kubelet@$node.log and $LOGS/kube-controller-manager.log"
    cidrs[$node]=$(pod_cidr "$node")
  done
  for node in "${NODES[@]}"; do
    cidr=${cidrs[$node]}
    cni_config "$cidr" | write_file "$NODE_DIRS/$node/etc/cni/net.d/10-ferrokube.conflist" 644
    # Else the cloud-controller-manager makes this route, as the inventory asks it to.
    has_cloud || ip route replace "$cidr" via "${NODE_IP[$node]}" dev "$BRIDGE"
    for other in "${NODES[@]}"; do
      [[ $other == "$node" ]] || in_node "$other" ip route replace "$cidr" via "${NODE_IP[$node]}"
    done
  done
  ip route replace "$SERVICE_CIDR" via "${NODE_IP[node1]}" dev "$BRIDGE"
}
