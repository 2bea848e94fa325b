//! The generated messages and services of package `broadgate.v1`. The message `Events` is written by hand:
//! [`crate::events::Events`].

include!("gen/broadgate.v1.rs");
