//! One long-lived netlink socket: batches, acks matched to messages, dumps, multicast.
