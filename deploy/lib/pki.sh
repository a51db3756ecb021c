# shellcheck shell=bash
# Authorities, certificates and kubeconfigs, with the names and the subjects that
# kubeadm gives them. What exists is kept.
#
# https://kubernetes.io/docs/setup/best-practices/certificates/

rsa_key() { # rsa_key NAME
  openssl genrsa -out "$PKI/$1.key" 2048
}

authority() { # authority NAME COMMON-NAME
  [[ ! -f $PKI/$1.crt ]] || return 0
  rsa_key "$1"
  openssl req -x509 -new -sha256 -days 3650 -key "$PKI/$1.key" -subj "/CN=$2" -out "$PKI/$1.crt" \
    -addext 'basicConstraints=critical,CA:TRUE' \
    -addext 'keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign' \
    -addext "subjectAltName=DNS:$2"
}

# certificate NAME AUTHORITY SUBJECT USAGES [ALTERNATIVE-NAMES]
certificate() {
  local name=$1 authority=$2 subject=$3 usages=$4 names=${5:-} extensions
  [[ ! -f $PKI/$name.crt ]] || return 0
  extensions="basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature,keyEncipherment
extendedKeyUsage=$usages
authorityKeyIdentifier=keyid"
  [[ -z $names ]] || extensions+="
subjectAltName=$names"
  rsa_key "$name"
  openssl req -new -sha256 -key "$PKI/$name.key" -subj "$subject" |
    openssl x509 -req -sha256 -days 365 -CA "$PKI/$authority.crt" -CAkey "$PKI/$authority.key" \
      -set_serial "0x$(openssl rand -hex 16)" -extfile <(echo "$extensions") -out "$PKI/$name.crt.new"
  # The certificate last and at once: its presence says that all is there.
  mv "$PKI/$name.crt.new" "$PKI/$name.crt"
}

# kubeconfig NAME USER: a client of the apiserver, with the certificate of NAME
kubeconfig() {
  write_file "$KUBECONFIGS/$1.conf" 600 <<YAML
apiVersion: v1
kind: Config
clusters:
- name: ferrokube
  cluster:
    server: $API_URL
    certificate-authority-data: $(base64 -w0 <"$PKI/ca.crt")
users:
- name: $2
  user:
    client-certificate-data: $(base64 -w0 <"$PKI/$1.crt")
    client-key-data: $(base64 -w0 <"$PKI/$1.key")
contexts:
- name: $2@ferrokube
  context: {cluster: ferrokube, user: $2}
current-context: $2@ferrokube
YAML
}

client() { # client NAME USER [GROUP]: certificate and kubeconfig
  certificate "$1" ca "${3:+/O=$3}/CN=$2" clientAuth
  kubeconfig "$1" "$2"
}

make_pki() {
  [[ -f $PKI/sa.pub ]] || phase "certificates and kubeconfigs"
  local node mask
  mask=$(umask)
  umask 077
  mkdir -p "$PKI" "$KUBECONFIGS"
  # All that is needed is said on the command line; the machine's defaults, which
  # may not even be there, stay out of it.
  printf '[req]\ndistinguished_name = empty\n[empty]\n' >"$PKI/openssl.cnf"
  export OPENSSL_CONF=$PKI/openssl.cnf

  authority ca kubernetes
  authority etcd-ca etcd-ca
  authority front-proxy-ca front-proxy-ca

  certificate etcd-server etcd-ca /CN=etcd serverAuth,clientAuth "DNS:localhost,IP:$HOST_IP,IP:127.0.0.1"
  certificate etcd-peer etcd-ca /CN=etcd serverAuth,clientAuth "DNS:localhost,IP:$HOST_IP,IP:127.0.0.1"
  certificate apiserver-etcd-client etcd-ca /CN=kube-apiserver-etcd-client clientAuth
  certificate front-proxy-client front-proxy-ca /CN=front-proxy-client clientAuth
  certificate apiserver ca /CN=kube-apiserver serverAuth \
    "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.$DOMAIN,DNS:localhost,IP:$SERVICE_IP,IP:$HOST_IP,IP:127.0.0.1"
  certificate apiserver-kubelet-client ca /O=kubeadm:cluster-admins/CN=kube-apiserver-kubelet-client clientAuth

  client admin kubernetes-admin kubeadm:cluster-admins
  client super-admin kubernetes-super-admin system:masters
  client controller-manager system:kube-controller-manager
  client cloud-controller-manager system:cloud-controller-manager
  client scheduler system:kube-scheduler
  client kube-proxy system:kube-proxy
  for node in "${NODES[@]}"; do
    client "kubelet-$node" "system:node:$node" system:nodes
    certificate "kubelet-server-$node" ca "/O=system:nodes/CN=system:node:$node" serverAuth "DNS:$node,IP:${NODE_IP[$node]}"
  done

  if [[ ! -f $PKI/sa.pub ]]; then
    rsa_key sa
    openssl rsa -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub"
  fi
  umask "$mask"
}
