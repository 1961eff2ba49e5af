//! kube-apiserver: the Kubernetes API over REST and gRPC.
