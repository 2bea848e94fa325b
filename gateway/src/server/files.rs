//! The connections that the limit on open files allows: client ports never take the files of the internal
//! port, of probes and of links.

use broadgate_proto::limits::{
    CLIENTS_MAX, DIALED_CONNECTIONS_MAX, FAREWELLS_MAX, INTERNAL_CONNECTIONS_MAX, METRICS_CONNECTIONS_MAX,
};

use crate::config::Config;

/// Standard streams, the spool, certificates, files of apps, name service.
const FILES_OF_THE_PROCESS: usize = 32;
/// Per runtime: epoll, its waker, and their duplicates.
const FILES_OF_A_SHARD: usize = 4;
/// Files reserved for the internal port and peer links even if the limit is low.
const RESERVED_LEAST: usize = 64;

/// How many connections the open files allow.
#[derive(Debug, PartialEq, Eq)]
struct FilesShare {
    clients: usize,
    internal: usize,
}

/// Always needed: listeners, connections being closed, probes.
fn fixed(shards: usize, listeners: usize, others: usize) -> usize {
    let shards = shards * (listeners + FILES_OF_A_SHARD);
    FILES_OF_THE_PROCESS + others + shards + FAREWELLS_MAX + METRICS_CONNECTIONS_MAX + 2
}

fn wanted(clients_max: usize, fixed: usize) -> usize {
    fixed + INTERNAL_CONNECTIONS_MAX + DIALED_CONNECTIONS_MAX + clients_max
}

/// Divides this many files. If they are scarce, clients get three quarters of what is not always needed.
fn share(allowed: usize, clients_max: usize, fixed: usize) -> FilesShare {
    if allowed >= wanted(clients_max, fixed) {
        return FilesShare { clients: clients_max, internal: INTERNAL_CONNECTIONS_MAX };
    }
    let rest = allowed.saturating_sub(fixed);
    let reserved = (rest / 4).clamp(RESERVED_LEAST, INTERNAL_CONNECTIONS_MAX + DIALED_CONNECTIONS_MAX);
    let clients = rest.saturating_sub(reserved).clamp(1, clients_max);
    FilesShare { clients, internal: (reserved * 2 / 3).min(INTERNAL_CONNECTIONS_MAX) }
}

/// Raises the limit on open files as far as permitted, and lowers `clients_max` to what it allows. Returns
/// how many connections the internal port may have.
pub(super) fn fit(config: &mut Config, shards: usize) -> usize {
    let fixed = fixed(shards, config.settings.listeners.len(), config.other_connections);
    let limit = &mut config.settings.limits.clients_max;
    let wanted = wanted(*limit, fixed) as u64;
    let allowed = rlimit::increase_nofile_limit(wanted).unwrap_or(wanted);
    let share = share(usize::try_from(allowed).unwrap_or(usize::MAX), *limit, fixed);
    if *limit <= share.clients {
        tracing::info!(clients_max = *limit, open_files = allowed, "client limit");
    } else if *limit == CLIENTS_MAX {
        tracing::info!(
            clients_max = share.clients,
            open_files = allowed,
            "client limit, which the open-files limit sets"
        );
    } else {
        tracing::warn!(
            open_files = allowed,
            configured = *limit,
            taken = share.clients,
            "the open-files limit allows fewer clients than gateway.limits.clients_max: raise `ulimit -n`"
        );
    }
    *limit = share.clients;
    share.internal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_the_files_of_others() {
        for allowed in [256, 512, 1024, 4096, 65_536, 1_048_576] {
            for (clients_max, shards, listeners) in [(50, 1, 1), (100_000, 2, 3), (1_000_000, 16, 2)] {
                let fixed = fixed(shards, listeners, 0);
                let share = share(allowed, clients_max, fixed);
                assert!(share.clients >= 1 && share.clients <= clients_max, "{share:?}");
                assert!(share.internal >= RESERVED_LEAST * 2 / 3, "{share:?}");
                if allowed > fixed + RESERVED_LEAST {
                    assert!(share.clients + share.internal + fixed <= allowed, "{allowed}: {share:?}");
                }
            }
        }
        let plenty = share(1_048_576, 100_000, fixed(2, 1, 0));
        assert_eq!(plenty, FilesShare { clients: 100_000, internal: INTERNAL_CONNECTIONS_MAX });
        assert_eq!(share(1024, 100_000, fixed(2, 1, 0)), FilesShare { clients: 663, internal: 147 });
        // Another port of the process, such as a dashboard, takes its files from both.
        assert_eq!(share(1024, 100_000, fixed(2, 1, 192)), FilesShare { clients: 519, internal: 115 });
    }
}
