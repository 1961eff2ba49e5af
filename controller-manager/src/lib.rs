//! kube-controller-manager: the control loops of the cluster.
