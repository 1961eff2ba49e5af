# Debian packages, by purpose, and how they are installed. Sourced by deploy/up and tests/run.
# shellcheck shell=bash disable=SC2034

BUILD_PACKAGES=(gcc libc6-dev xz-utils)
NODE_PACKAGES=(containerd runc containernetworking-plugins nftables iptables iproute2 conntrack busybox-static curl ca-certificates)
TEST_PACKAGES=(etcd-client etcd-server protobuf-compiler libprotobuf-dev jq systemd util-linux procps faketime docker-registry python3-kubernetes python3-venv golang-go)

# install_packages NAME...: installs those that are missing; says what it does.
install_packages() {
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" -ne 0 ]; then
    echo "these Debian packages are missing: ${missing[*]}; install them or run this as root" >&2
    return 1
  fi
  echo "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# kubectl comes from Debian's kubernetes-client only where there is none.
install_kubectl() {
  command -v kubectl >/dev/null || install_packages kubernetes-client
}

# Node.js comes from Debian only where there is none.
install_node() {
  command -v npm >/dev/null || install_packages nodejs npm
}
