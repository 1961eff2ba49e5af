//! kube-proxy: service addresses and the pod network, in nftables.
