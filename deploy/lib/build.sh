# shellcheck shell=bash
# Where the daemons' programs come from: built here, or given.

build_daemons() {
  local cargo=${CARGO:-cargo} daemon dir packages=()
  for daemon in "${DAEMONS[@]}"; do
    [[ -z ${OVERRIDE[$daemon]:-} ]] || continue
    packages+=(--bin "$daemon")
  done
  ((${#packages[@]})) || return 0
  command -v "$cargo" >/dev/null || die "no $cargo on the PATH: a Rust toolchain is needed (or --bin-dir)"
  phase "building (${PROFILE})"
  (unset LD_LIBRARY_PATH && cd "$ROOT" && "$cargo" build --locked --profile "$PROFILE" "${packages[@]}") 2>&"$TERMINAL_ERR" || die "the build failed"
  dir=$(cd "$ROOT" && "$cargo" metadata --format-version 1 --no-deps --offline | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
  BUILT=$dir/${PROFILE/#dev/debug}
}

# Copies, so that a cluster keeps running what it was started with, and so that
# the path of a daemon is visible inside nodes wherever the build was.
get_daemons() {
  local daemon from
  BUILT=$BIN_DIR
  [[ $BIN_DIR ]] || build_daemons
  mkdir -p "$BIN"
  for daemon in "${DAEMONS[@]}"; do
    from=${OVERRIDE[$daemon]:-$BUILT/$daemon}
    if [[ -x $from ]]; then
      install_if_changed "$from" "$BIN/$daemon" 755
    elif [[ $daemon == cloud-controller-manager && $BIN_DIR ]]; then
      # Upstream has none that would know bare metal; nodes then need none.
      rm -f "$BIN/$daemon"
    else
      die "no $daemon at $from"
    fi
  done
}

has_cloud() { [[ -x $BIN/cloud-controller-manager ]]; }
