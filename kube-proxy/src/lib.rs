//! kube-proxy: service addresses and the pod network, in nftables.
//! NOTE (10:40): the lead engineer is writing this crate right now; the deploy engineer keeps to deploy/.
