# shellcheck shell=bash
# The cluster's images, made here from two static programs of Debian's and put
# into each node's containerd from a file. No registry is involved.

OCI=application/vnd.oci.image

# blob FILE: into the layout under its digest; prints "digest size"
blob() {
  local digest
  digest=$(sha256sum "$1" | cut -d' ' -f1)
  cp "$1" "$LAYOUT/blobs/sha256/$digest"
  echo "$digest $(stat -c %s "$1")"
}

descriptor() { # descriptor TYPE DIGEST SIZE [MORE-JSON]
  printf '{"mediaType":"%s","digest":"sha256:%s","size":%s%s}' "$OCI.$1" "$2" "$3" "${4:-}"
}

# add_image REFERENCE TREE CONFIG: one layer, one manifest; appends to MANIFEST_LIST.
# Equal trees make equal bytes.
add_image() {
  local reference=$1 tree=$2 config=$3 work=$LAYOUT/work layer configuration manifest
  tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$tree" -f "$work" .
  layer=$(blob "$work")
  printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(dpkg --print-architecture)" "$config" "${layer% *}" >"$work"
  configuration=$(blob "$work")
  # shellcheck disable=SC2086
  printf '{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s]}' "$OCI.manifest.v1+json" \
    "$(descriptor config.v1+json $configuration)" "$(descriptor layer.v1.tar $layer)" >"$work"
  manifest=$(blob "$work")
  # shellcheck disable=SC2086
  MANIFEST_LIST+=("$(descriptor manifest.v1+json $manifest ",\"annotations\":{\"io.containerd.image.name\":\"$reference\"}")")
  rm "$work"
}

busybox_tree() { # busybox_tree DIR: a root with a shell and the usual programs
  local program
  mkdir -p "$1"/{bin,etc,tmp,www/cgi-bin}
  install -m 755 "$(tool busybox)" "$1/bin/busybox"
  for program in $("$1/bin/busybox" --list); do
    [[ $program == busybox ]] || ln -s busybox "$1/bin/$program"
  done
  echo 'root:x:0:0:root:/:/bin/sh' >"$1/etc/passwd"
  echo 'root:x:0:' >"$1/etc/group"
}

make_images() {
  local made_from build tree image version
  made_from=$(sha256sum "$(tool catatonit)" "$(tool busybox)" "$LIB/images.sh" "$ROOT"/deploy/images/* | cut -d' ' -f1 | cksum)
  [[ $(cat "$IMAGES/made-from" 2>/dev/null) != "$made_from" ]] || return 0
  phase "images"

  build=$IMAGES/build LAYOUT=$IMAGES/build/layout MANIFEST_LIST=()
  rm -rf "$IMAGES"
  mkdir -p "$LAYOUT/blobs/sha256"

  tree=$build/pause
  mkdir -p "$tree"
  install -m 755 "$(tool catatonit)" "$tree/pause"
  add_image "$PAUSE_IMAGE" "$tree" '{"Entrypoint":["/pause","-P"],"User":"65535:65535"}'

  tree=$build/demo
  busybox_tree "$tree"
  install -m 755 "$ROOT/deploy/images/demo-server" "$tree/bin/demo-server"
  install -m 755 "$ROOT/deploy/images/demo-index.cgi" "$tree/www/cgi-bin/index.cgi"
  for image in "${DEMO_IMAGES[@]}"; do
    version=${image##*:}
    add_image "$image" "$tree" \
      "{\"Entrypoint\":[\"/bin/demo-server\"],\"Env\":[\"PATH=/bin\",\"VERSION=$version\"],\"ExposedPorts\":{\"8080/tcp\":{}}}"
  done

  printf '{"imageLayoutVersion":"1.0.0"}' >"$LAYOUT/oci-layout"
  printf '{"schemaVersion":2,"mediaType":"%s","manifests":[%s]}' "$OCI.index.v1+json" \
    "$(IFS=,; echo "${MANIFEST_LIST[*]}")" >"$LAYOUT/index.json"
  tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$LAYOUT" -f "$IMAGES/images.tar" .
  rm -rf "$build"
  echo "$made_from" >"$IMAGES/made-from"
}

load_images() { # load_images NODE
  local loaded=$NODE_DIRS/$1/images-loaded
  ! cmp -s "$IMAGES/made-from" "$loaded" || return 0
  in_node "$1" ctr --namespace k8s.io images import "$IMAGES/images.tar" || die "images not loaded into $1"
  cp "$IMAGES/made-from" "$loaded"
}
