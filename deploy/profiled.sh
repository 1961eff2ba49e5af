# Builds that follow a profile of the control plane under load, or record one (profile-guided optimisation). Sourced by
# deploy/build and deploy/record-profile.
# shellcheck shell=bash disable=SC2034

TARGET=$(realpath -m "${CARGO_TARGET_DIR:-target}")
HOST=$(rustc --print host-tuple)
# Another compiler makes other functions, which no profile but its own knows.
PROFILE=deploy/control-plane-rust-$(rustc --version | cut -d ' ' -f 2).profdata.xz

# build_with FLAG FOLDER PROGRAM...: builds programs with a flag for the compiler in a folder of their own. Naming the
# machine keeps the flag away from what runs while building.
build_with() {
  local flag=$1 folder=$2
  shift 2
  RUSTFLAGS="${RUSTFLAGS:-} $flag" cargo build --release --target "$HOST" --target-dir "$TARGET/$folder" "${@/#/--bin=}"
}
