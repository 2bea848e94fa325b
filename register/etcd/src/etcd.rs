//! etcd's messages and services, as far as they are used.

include!("gen/etcdserverpb.rs");
