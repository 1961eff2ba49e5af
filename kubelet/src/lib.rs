//! kubelet: runs pods on a CRI runtime.
