# shellcheck shell=bash
# The flags and configuration files of every process, here and nowhere else.
#
# All are upstream's, as kubeadm writes them; whatever programs are chosen are
# started with exactly these. Each function fills FLAGS and, with the files that
# the process reads besides, CONFIG_FILES.

client_auth_files() { # certificates of kube-apiserver's clients, for those who serve as well
  echo "--client-ca-file=$PKI/ca.crt" "--requestheader-client-ca-file=$PKI/front-proxy-ca.crt" \
    "--requestheader-allowed-names=front-proxy-client"
}

flags_etcd() {
  CONFIG_FILES=()
  FLAGS=(
    --name=ferrokube
    --data-dir="$STATE/etcd"
    --listen-client-urls="$ETCD_URL"
    --advertise-client-urls="$ETCD_URL"
    --listen-peer-urls="$ETCD_PEER_URL"
    --initial-advertise-peer-urls="$ETCD_PEER_URL"
    --initial-cluster="ferrokube=$ETCD_PEER_URL"
    --client-cert-auth=true
    --cert-file="$PKI/etcd-server.crt"
    --key-file="$PKI/etcd-server.key"
    --trusted-ca-file="$PKI/etcd-ca.crt"
    --peer-client-cert-auth=true
    --peer-cert-file="$PKI/etcd-peer.crt"
    --peer-key-file="$PKI/etcd-peer.key"
    --peer-trusted-ca-file="$PKI/etcd-ca.crt"
    --snapshot-count=10000
    # A progress notification lets a watch cache know that it has seen everything.
    --experimental-watch-progress-notify-interval=5s
  )
}

# Bound to the cluster's bridge: nothing listens on the machine's own addresses.
flags_kube_apiserver() {
  CONFIG_FILES=()
  FLAGS=(
    --advertise-address="$HOST_IP"
    --bind-address="$HOST_IP"
    --secure-port="${API_URL##*:}"
    --allow-privileged=true
    --authorization-mode=Node,RBAC
    --enable-admission-plugins=NodeRestriction
    --enable-bootstrap-token-auth=true
    --client-ca-file="$PKI/ca.crt"
    --tls-cert-file="$PKI/apiserver.crt"
    --tls-private-key-file="$PKI/apiserver.key"
    --etcd-servers="$ETCD_URL"
    --etcd-cafile="$PKI/etcd-ca.crt"
    --etcd-certfile="$PKI/apiserver-etcd-client.crt"
    --etcd-keyfile="$PKI/apiserver-etcd-client.key"
    --kubelet-client-certificate="$PKI/apiserver-kubelet-client.crt"
    --kubelet-client-key="$PKI/apiserver-kubelet-client.key"
    --kubelet-certificate-authority="$PKI/ca.crt"
    --kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname
    --proxy-client-cert-file="$PKI/front-proxy-client.crt"
    --proxy-client-key-file="$PKI/front-proxy-client.key"
    --requestheader-client-ca-file="$PKI/front-proxy-ca.crt"
    --requestheader-allowed-names=front-proxy-client
    --requestheader-extra-headers-prefix=X-Remote-Extra-
    --requestheader-group-headers=X-Remote-Group
    --requestheader-username-headers=X-Remote-User
    --service-account-issuer="https://kubernetes.default.svc.$DOMAIN"
    --service-account-key-file="$PKI/sa.pub"
    --service-account-signing-key-file="$PKI/sa.key"
    --service-cluster-ip-range="$SERVICE_CIDR"
    --v=2
  )
}

flags_kube_controller_manager() {
  CONFIG_FILES=("$KUBECONFIGS/controller-manager.conf")
  # shellcheck disable=SC2207
  FLAGS=(
    --bind-address="$HOST_IP"
    --kubeconfig="$KUBECONFIGS/controller-manager.conf"
    --authentication-kubeconfig="$KUBECONFIGS/controller-manager.conf"
    --authorization-kubeconfig="$KUBECONFIGS/controller-manager.conf"
    $(client_auth_files)
    --root-ca-file="$PKI/ca.crt"
    --cluster-signing-cert-file="$PKI/ca.crt"
    --cluster-signing-key-file="$PKI/ca.key"
    --service-account-private-key-file="$PKI/sa.key"
    --use-service-account-credentials=true
    --controllers='*,bootstrapsigner,tokencleaner'
    --allocate-node-cidrs=true
    --cluster-cidr="$POD_CIDR"
    --service-cluster-ip-range="$SERVICE_CIDR"
    --cluster-name=ferrokube
    --leader-elect=true
    --v=2
  )
}

flags_kube_scheduler() {
  CONFIG_FILES=("$KUBECONFIGS/scheduler.conf")
  # shellcheck disable=SC2207
  FLAGS=(
    --bind-address="$HOST_IP"
    --kubeconfig="$KUBECONFIGS/scheduler.conf"
    --authentication-kubeconfig="$KUBECONFIGS/scheduler.conf"
    --authorization-kubeconfig="$KUBECONFIGS/scheduler.conf"
    $(client_auth_files)
    --leader-elect=true
    --v=2
  )
}

# The machines that there are, as the bare-metal provider wants them declared.
flags_cloud_controller_manager() {
  local node
  {
    echo "# The machines of this cluster, for --cloud-provider=baremetal."
    echo "nodes:"
    for node in "${NODES[@]}"; do
      cat <<YAML
- name: $node
  addresses:
  - {type: InternalIP, address: ${NODE_IP[$node]}}
  - {type: Hostname, address: $node}
  region: local
  zone: local-a
  instanceType: namespace
YAML
    done
    echo "# The machine is the way to their pods."
    echo "routes: {table: 254}"
  } | write_file "$CONFIG/inventory.yaml" 644
  CONFIG_FILES=("$KUBECONFIGS/cloud-controller-manager.conf" "$CONFIG/inventory.yaml")
  # shellcheck disable=SC2207
  FLAGS=(
    --bind-address="$HOST_IP"
    --kubeconfig="$KUBECONFIGS/cloud-controller-manager.conf"
    --authentication-kubeconfig="$KUBECONFIGS/cloud-controller-manager.conf"
    --authorization-kubeconfig="$KUBECONFIGS/cloud-controller-manager.conf"
    $(client_auth_files)
    --cloud-provider=baremetal
    --cloud-config="$CONFIG/inventory.yaml"
    --allocate-node-cidrs=false
    --configure-cloud-routes=true
    --cluster-cidr="$POD_CIDR"
    --cluster-name=ferrokube
    --leader-elect=true
    --v=2
  )
}

# Inside a node the usual paths (/var/lib/kubelet, /etc/kubernetes, /run, ...)
# are the node's own.
flags_kubelet() {
  local node=$1
  write_file "$CONFIG/kubelet-$node.yaml" 644 <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true, cacheTTL: 0s}
  x509: {clientCAFile: $PKI/ca.crt}
authorization:
  mode: Webhook
  webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}
tlsCertFile: $PKI/kubelet-server-$node.crt
tlsPrivateKeyFile: $PKI/kubelet-server-$node.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
staticPodPath: /etc/kubernetes/manifests
resolvConf: /etc/resolv.conf
clusterDNS: [$DNS_IP]
clusterDomain: $DOMAIN
# Every node has its own corner of the machine's cgroups, v1 or v2.
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP/$node
failCgroupV1: false
failSwapOn: false
oomScoreAdj: $(least_oom_score)
# All nodes share one disk with the machine, and images come from files: collect
# none, and evict nobody before the disk is truly full.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard:
  memory.available: 100Mi
  nodefs.available: 1%
  nodefs.inodesFree: 1%
  imagefs.available: 1%
  imagefs.inodesFree: 1%
YAML
  CONFIG_FILES=("$CONFIG/kubelet-$node.yaml" "$KUBECONFIGS/kubelet-$node.conf")
  FLAGS=(
    --config="$CONFIG/kubelet-$node.yaml"
    --kubeconfig="$KUBECONFIGS/kubelet-$node.conf"
    --hostname-override="$node"
    --node-ip="${NODE_IP[$node]}"
    --v=2
  )
  # Nodes start tainted and without zone until a cloud-controller-manager,
  # where there is one, has looked them up.
  if has_cloud; then FLAGS+=(--cloud-provider=external); fi
}

flags_kube_proxy() {
  local node=$1
  write_file "$CONFIG/kube-proxy-$node.yaml" 644 <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: 0.0.0.0
clientConnection:
  kubeconfig: $KUBECONFIGS/kube-proxy.conf
clusterCIDR: $POD_CIDR
hostnameOverride: $node
mode: nftables
oomScoreAdj: $(least_oom_score)
# The size of the conntrack table is the machine's, not a node's.
conntrack: {maxPerCore: 0, min: 0}
YAML
  CONFIG_FILES=("$CONFIG/kube-proxy-$node.yaml" "$KUBECONFIGS/kube-proxy.conf")
  FLAGS=(--config="$CONFIG/kube-proxy-$node.yaml" --v=2)
}

flags_containerd() {
  local snapshotter=overlayfs
  # An overlay cannot have its upper directory on another overlay.
  [[ $(stat -f -c %T "$STATE") != overlayfs ]] || snapshotter=native
  write_file "$CONFIG/containerd.toml" 644 <<TOML
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "$snapshotter"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "$PAUSE_IMAGE"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = $(if may_lower_oom_score; then echo false; else echo true; fi)

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dir = "$CNI_BIN"
conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
BinaryName = "$(tool runc)"
TOML
  CONFIG_FILES=("$CONFIG/containerd.toml")
  FLAGS=(--config="$CONFIG/containerd.toml")
}

# The pod network of one node: a routed cable per pod, addresses out of the
# node's podCIDR.
cni_config() { # cni_config POD-CIDR
  cat <<JSON
{
  "cniVersion": "1.0.0",
  "name": "ferrokube",
  "plugins": [
    {
      "type": "ptp",
      "mtu": 1500,
      "ipMasq": false,
      "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni-ipam-state",
        "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": "$1"}]]
      }
    },
    {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}}
  ]
}
JSON
}

# Without CAP_SYS_RESOURCE (bit 24) no process may lower its own oom_score_adj.
may_lower_oom_score() {
  local capabilities
  capabilities=$(awk '$1 == "CapEff:" {print $2}' /proc/self/status)
  ((0x$capabilities >> 24 & 1))
}
least_oom_score() { if may_lower_oom_score; then echo -999; else echo 0; fi; }
