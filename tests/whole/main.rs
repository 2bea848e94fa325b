//! Whole clusters: real processes of the real executable, real sockets, real faults.
//!
//! Each test starts its own cluster on free ports; two clusters run at a time, so that a slow machine
//! makes them slow and nothing else. Nothing waits by sleeping: conditions are polled, generously.

#![allow(clippy::unwrap_used, missing_docs)]

mod announcements;
mod apps;
mod audit;
mod backends;
mod bad_certificates;
mod cluster_tls;
mod commands;
mod completing;
mod contained;
mod degraded;
mod demo;
mod diagnosis;
mod doctor;
mod documents;
mod echo_server_page;

mod equivalence;
mod faults;
mod flood;
mod floors;
mod handover;
mod handshakes;
mod harness;
mod homes;
mod http;
mod killers;
mod large;
mod live;
mod malformed_input;
mod metrics;
mod metrics_tls;
mod misbehaving;
mod misplaced_secrets;
mod operator;
mod orders;
mod other_apis;
mod pauses;
mod ports;
mod profiles;
mod proxy;
mod pusher;
mod pusher_answers;
mod pusher_limits;
mod pusher_watch;
mod queries;
mod redis;
mod redis_views;
mod refusals;
mod rounds;
mod runbook;
mod service_manager;
mod settings;
mod socketio;
mod socketio_abuse;
mod stopping;
mod tables;
mod tap;
mod tasks;
mod terminal;
mod tls;
mod tokens;
mod top;
mod type_names;
mod up;
mod views;
mod watching;
mod webhooks;
mod why;
mod why_refusals;
mod workers;
mod wrong_protocol;
