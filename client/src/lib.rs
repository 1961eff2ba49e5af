//! Talking to the apiserver: typed clients, informers, work queues, leader election, events.
