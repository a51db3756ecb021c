# shellcheck shell=bash
# Names, addresses and paths of one cluster, and the options it was made with.
# Not here: flags of the daemons (flags.sh).

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LIB=$ROOT/deploy/lib
MANIFESTS=$ROOT/deploy/manifests

CONTROL_PLANE=(kube-apiserver kube-controller-manager kube-scheduler cloud-controller-manager)
NODE_DAEMONS=(kubelet kube-proxy)
DAEMONS=("${CONTROL_PLANE[@]}" "${NODE_DAEMONS[@]}")

# ---- options -----------------------------------------------------------------
# The defaults; `load_options` and then the command line change them. A later
# `deploy/up` without options thus means the cluster as it is.
WORKERS=0
SLOT=0
PROFILE=release
BIN_DIR=
OLD_KUBECTL=
declare -A OVERRIDE=()

save_options() {
  declare -p WORKERS SLOT PROFILE BIN_DIR OLD_KUBECTL OVERRIDE | sed 's/^declare --/declare -g/; s/^declare -A/declare -gA/' | write_file "$STATE/options" 600
}
load_options() {
  # shellcheck source=/dev/null
  [[ ! -f $STATE/options ]] || . "$STATE/options"
}

# use_state DIR: everything the deployment keeps lies under this directory.
use_state() {
  STATE=$(realpath -m "$1")
  CACHE=$(realpath -m "${FERROKUBE_CACHE:-$STATE/cache}") # downloads; may outlive the cluster
  BIN=$STATE/bin       # the daemons that run, and kubectl
  PKI=$STATE/pki
  KUBECONFIGS=$STATE/kubeconfig
  CONFIG=$STATE/config # files that daemons read
  IMAGES=$STATE/images
  LOGS=$STATE/log
  RUN=$STATE/run       # recorded processes, and what `down` must put back
  NODE_DIRS=$STATE/nodes
  ADMIN=$KUBECONFIGS/admin.conf
}

# ---- addresses ---------------------------------------------------------------
# Several clusters can stand side by side on one machine: every name and address
# that is the machine's derives from the slot.
use_slot() {
  local node i
  BRIDGE=ferrokube$SLOT
  CGROUP=ferrokube$SLOT
  HOST_IP=10.88.$SLOT.1 # the control plane listens here and nowhere else
  NODE_PREFIX=24
  POD_CIDR=10.$((128 + SLOT)).0.0/16
  SERVICE_CIDR=10.$((112 + SLOT)).0.0/16
  SERVICE_IP=10.$((112 + SLOT)).0.1
  DNS_IP=10.$((112 + SLOT)).0.10
  DOMAIN=cluster.local
  API_URL=https://$HOST_IP:6443
  ETCD_URL=https://$HOST_IP:2379
  ETCD_PEER_URL=https://$HOST_IP:2380

  NODES=()
  declare -gA NODE_IP=()
  for ((i = 1; i <= WORKERS + 1; i++)); do
    node=node$i
    NODES+=("$node")
    NODE_IP[$node]=10.88.$SLOT.$((10 + i))
  done
}

# The machine's end of a node's cable; names of links have 15 characters at most.
node_link() { echo "fk$SLOT$1"; }

# Every node that was ever started here, of however many workers.
made_nodes() {
  local dir
  for dir in "$NODE_DIRS"/*; do [[ ! -d $dir ]] || basename "$dir"; done
}

PAUSE_IMAGE=ferrokube.local/pause:1
DEMO_IMAGES=(ferrokube.local/demo:1 ferrokube.local/demo:2)

in_list() { # in_list WORD LIST...
  local word=$1 other
  shift
  for other; do [[ $word == "$other" ]] && return; done
  return 1
}
