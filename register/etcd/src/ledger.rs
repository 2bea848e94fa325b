//! What registers keep in etcd.

include!("gen/broadgate.ledger.v1.rs");
