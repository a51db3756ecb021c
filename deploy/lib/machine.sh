# shellcheck shell=bash
# What the cluster takes of the machine besides network and disk: cgroups, and
# one sysctl that is put back afterwards.

INOTIFY=/proc/sys/fs/inotify/max_user_instances
INOTIFY_WANTED=1024 # a containerd, a kubelet and some hundred containers per node, all of them root's

raise_limits() {
  local now
  now=$(<$INOTIFY)
  ((now < INOTIFY_WANTED)) || return 0
  echo "$now" >"$RUN/inotify-instances"
  echo $INOTIFY_WANTED >$INOTIFY
}

restore_limits() {
  [[ ! -s $RUN/inotify-instances ]] || cat "$RUN/inotify-instances" >$INOTIFY
}

# Every mounted hierarchy: of v1 one per controller, of v2 the one. The mixed
# arrangement has both; containers then also get groups in the v2 one.
cgroup_hierarchies() { awk '$3 == "cgroup" || $3 == "cgroup2" {print $3, $2}' /proc/mounts; }

make_cgroups() {
  local type root node group
  while read -r type root; do
    for node in "" "${NODES[@]}"; do
      group=$root/$CGROUP/$node
      mkdir -p "$group"
      case $type in
        # A fresh cpuset allows nothing; it must be told.
        cgroup) [[ ! -f $group/cpuset.cpus ]] || { cat "$root/cpuset.cpus" >"$group/cpuset.cpus"; cat "$root/cpuset.mems" >"$group/cpuset.mems"; } ;;
        cgroup2) pass_controllers "$root" "$group" ;;
      esac
    done
  done < <(cgroup_hierarchies)
}

# A v2 group can hand its children only what its own parent handed to it.
pass_controllers() { # pass_controllers ROOT GROUP
  local dir controller
  for dir in "$1" "$2"; do
    for controller in $(<"$dir/cgroup.controllers"); do
      in_list "$controller" $(<"$dir/cgroup.subtree_control") || echo "+$controller" >"$dir/cgroup.subtree_control" || true
    done
  done
}

cgroups_removed() {
  local type root left=0
  while read -r type root; do
    [[ ! -d $root/$CGROUP ]] || find "$root/$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null || left=1
  done < <(cgroup_hierarchies)
  return $left
}

# A group empties only once the kernel has buried its last process.
remove_cgroups() {
  wait_for 20 cgroups_removed || warn "cgroups named $CGROUP are left; some process is still in them"
}
