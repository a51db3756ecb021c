# shellcheck shell=bash
# The demo: three web servers behind one Service, asked from a pod and from the
# machine.

demo_ready() { kubectl rollout status deployment/demo --timeout=1s >/dev/null 2>&1; }

# From the machine without needing curl: busybox is at hand.
ask_from_host() { busybox wget -q -T 3 -O - "http://$1/"; }
ask_from_pod()  { kubectl exec deployment/demo -- wget -q -T 3 -O - "http://$1/"; }

answers() { # answers FROM ADDRESS: into ANSWER
  ANSWER=$("$1" "$2") && [[ $ANSWER == demo-* ]]
}

run_demo() {
  local address
  phase "demo: three web servers behind a Service"
  kubectl apply -f "$MANIFESTS/demo.yaml" || die "the demo was not accepted"
  wait_for 180 demo_ready || die "the demo's pods are not ready: $BIN/kubectl --kubeconfig $ADMIN describe pods -l app=demo"
  address=$(kubectl get service demo -o 'jsonpath={.spec.clusterIP}')
  wait_for 60 answers ask_from_pod "$address" || die "the Service at $address does not answer in a pod"
  say "       $address answers in a pod:       $ANSWER"
  wait_for 60 answers ask_from_host "$address" || die "the Service at $address does not answer on this machine"
  say "       $address answers on this machine: $ANSWER"
}
