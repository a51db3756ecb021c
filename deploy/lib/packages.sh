# shellcheck shell=bash
# Debian packages, unpacked under the state directory and never installed.
#
# Two releases are drawn from. What has to be newer than the machine's release
# (containerd, etcd, kubectl, the CNI plugins) comes from NEWER, whose static or
# nearly static programs run on an older C library; the rest is the machine's
# own release's, with the libraries that the machine lacks, and only where the
# machine has none. Packages come from the mirror that this machine's apt uses,
# and apt checks them against the archive's signature.

NEWER=forky
NEWER_PACKAGES=(containerd etcd-server etcd-client kubectl containernetworking-plugins busybox-static catatonit)
OWN_PACKAGES=(runc nftables iproute2 openssl)
OLD_KUBECTL_PACKAGE=kubernetes-client

# apt_in SUITE COMMAND...: apt with lists and downloads of its own. Hooks of the
# machine's configuration are for the machine's own lists and are not run.
apt_in() {
  local suite=$1 command=$2
  shift 2
  "$command" -c "$CACHE/$suite/apt.conf" "$@"
}

debian_targets() { # lines of "repository suite component" of the machine's Debian sources
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    grep -E '/debian(-security)?/* ' | sort -u
}

configure_apt() { # configure_apt SUITE STATUS-FILE; the sources on standard input
  local dir=$CACHE/$1 keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  mkdir -p "$dir/lists/partial" "$dir/archives/partial"
  while read -r uri suite component; do
    echo "deb [signed-by=$keyring] $uri $suite $component"
  done | sort -u >"$dir/sources.list"
  cat >"$dir/apt.conf" <<CONF
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
APT::Sandbox::User "root";
APT::Get::AllowUnauthenticated "false";
APT::Keep-Downloaded-Packages "true";
Acquire::AllowInsecureRepositories "false";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "3";
Dir::Cache "$dir";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$dir/lists";
Dir::State::status "$2";
CONF
}

# fetch_exactly SUITE PACKAGE...: these and nothing that they depend on
fetch_exactly() {
  local suite=$1
  shift
  (cd "$CACHE/$suite/archives" && apt_in "$suite" apt-get -q download "$@")
}

unpack() { # unpack SUITE: all that was fetched of it, into one tree
  local deb tree=$STATE/pkg/$1
  mkdir -p "$tree"
  for deb in "$CACHE/$1"/archives/*.deb; do
    [[ ! -e $deb ]] || dpkg-deb -x "$deb" "$tree"
  done
}

own_release() { (. /etc/os-release && echo "$VERSION_CODENAME"); }

get_packages() {
  local own want
  own=$(own_release)
  want="$own ${OWN_PACKAGES[*]} $OLD_KUBECTL $NEWER ${NEWER_PACKAGES[*]}"
  if [[ $(cat "$STATE/pkg/unpacked" 2>/dev/null) != "$want" ]]; then
    if [[ $(cat "$CACHE/fetched" 2>/dev/null) != "$want" ]]; then
      phase "packages from Debian $own and $NEWER"
      debian_targets >"$RUN/targets"
      grep -q . "$RUN/targets" || die "this machine's apt has no Debian sources"

      grep -E " $own(-[a-z]+)? " "$RUN/targets" | configure_apt "$own" /var/lib/dpkg/status
      apt_in "$own" apt-get -q update || die "apt cannot read the lists of Debian $own"
      apt_in "$own" apt-get -q -y --no-install-recommends --download-only install "${OWN_PACKAGES[@]}" ||
        die "not all of ${OWN_PACKAGES[*]} could be had"
      [[ -z $OLD_KUBECTL ]] || fetch_exactly "$own" "$OLD_KUBECTL_PACKAGE" || die "no $OLD_KUBECTL_PACKAGE in Debian $own"

      awk -v suite="$NEWER" '$1 ~ /debian\/*$/ {print $1, suite, "main"; exit}' "$RUN/targets" | configure_apt "$NEWER" /dev/null
      apt_in "$NEWER" apt-get -q update || die "apt cannot read the lists of Debian $NEWER; does this machine's mirror carry it?"
      fetch_exactly "$NEWER" "${NEWER_PACKAGES[@]}" || die "not all of ${NEWER_PACKAGES[*]} could be had"
      # The lists are of no further use, and large.
      rm -rf "$CACHE"/*/lists "$CACHE"/*/*.bin
      echo "$want" >"$CACHE/fetched"
    fi
    phase "unpacking packages"
    unpack "$own"
    unpack "$NEWER"
    # A second kubectl next to the first, under its version's name.
    if [[ $OLD_KUBECTL ]]; then
      install -D -m 755 "$STATE/pkg/$own/usr/bin/kubectl" "$BIN/kubectl-$("$STATE/pkg/$own/usr/bin/kubectl" version --client --short | grep -oE '1\.[0-9]+')"
    fi
    install -D -m 755 -t "$BIN" "$STATE/pkg/$NEWER"/usr/bin/{kubectl,etcd,etcdctl,ctr}
    echo "$want" >"$STATE/pkg/unpacked"
  fi
  use_packages
}

# What was unpacked takes precedence over what the machine has.
use_packages() {
  local newer=$STATE/pkg/$NEWER own libraries
  own=$STATE/pkg/$(own_release)
  CNI_BIN=$newer/usr/lib/cni
  TOOLS_PATH=$newer/usr/bin:$newer/usr/sbin:$own/usr/sbin:$own/usr/bin:$own/sbin:$own/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  CLEAN_ENV=(PATH="$TOOLS_PATH" HOME=/root LANG=C.UTF-8)
  # Libraries of the machine's own release, and only those: the newer ones want
  # a newer C library.
  libraries=$(find "$own" -name '*.so.*' -printf '%h\n' 2>/dev/null | sort -u | paste -sd:)
  [[ -z $libraries ]] || CLEAN_ENV+=(LD_LIBRARY_PATH="$libraries")
  # For this script's own use of them. What builds here keeps its own path.
  PATH=$TOOLS_PATH:$PATH
  [[ -z $libraries ]] || export LD_LIBRARY_PATH=$libraries
  tool() { local found; found=$(command -v "$1") || die "no program $1"; echo "$found"; }
}
