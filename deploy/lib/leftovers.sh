# shellcheck shell=bash
# What of a cluster is still on the machine: nothing, once it is down.

leftovers() {
  local process line type root
  for process in /proc/[0-9]*; do
    # By program or by argument; not those who look.
    line=$({ tr '\0' ' ' <"$process/cmdline"; } 2>/dev/null) || continue
    [[ $(readlink "$process/exe") == "$STATE"/* || $line == "$STATE"/* || $line == *"/supervise "*" $RUN "* || $line == *" $NODE_DIRS/"* ]] || continue
    echo "process ${process#/proc/}: $line"
  done
  awk -v state="$STATE/" 'index($2, state) == 1 {print "mount " $2}' /proc/mounts
  ip -o link show | awk -F': ' -v bridge="$BRIDGE" -v cable="fk$SLOT" '$2 == bridge || index($2, cable "node") == 1 {print "link " $2}'
  ip route show | grep -E "^(${POD_CIDR%.0.0/16}|${SERVICE_CIDR%.0.0/16}|${HOST_IP%.1})\." | sed 's/^/route /'
  while read -r type root; do
    [[ ! -d $root/$CGROUP ]] || echo "cgroup $root/$CGROUP"
  done < <(cgroup_hierarchies)
}
