//! What a screen of `top` lists, and in which order. Pure.

use broadgate_business::v1::{TopBy, TopSort};
use clap::ValueEnum;

use crate::operate::top::table::TopColumn;

/// A client's id, which is typed into other commands.
const CLIENT_ID_CHARS: usize = 30;

/// What is listed below the gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum TopView {
    /// Groups to which most is sent
    #[default]
    Groups,
    /// Clients with most traffic
    Clients,
    /// Apps, with their limits and what was refused
    Apps,
    /// Workers, with their unanswered events and answer times
    Workers,
    /// Who commands: tokens, apps' backends, workers and other programs
    Callers,
}

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum TopOrder {
    /// Messages to clients; events to workers; commands of callers
    #[default]
    Out,
    /// Messages from clients; messages sent to a group
    In,
    /// Bytes to clients; bytes that callers send
    Bytes,
    /// Bytes in a client's outbox; events that a worker has not answered
    Waiting,
    /// Copies dropped at slow members of a group; refusals of an app, or of a caller's commands
    Drops,
    /// Clients of groups, apps and workers
    Clients,
}

impl TopView {
    pub(super) const ALL: [Self; 5] = [Self::Groups, Self::Clients, Self::Apps, Self::Workers, Self::Callers];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Groups => "groups",
            Self::Clients => "clients",
            Self::Apps => "apps",
            Self::Workers => "workers",
            Self::Callers => "callers",
        }
    }

    /// The key that shows it.
    pub(super) fn key(self) -> char {
        match self {
            Self::Groups => 'g',
            Self::Clients => 'c',
            Self::Apps => 'a',
            Self::Workers => 'w',
            Self::Callers => 'l',
        }
    }

    pub(super) fn by(self) -> TopBy {
        match self {
            Self::Groups => TopBy::Groups,
            Self::Clients => TopBy::Clients,
            Self::Apps => TopBy::Apps,
            Self::Workers => TopBy::Workers,
            Self::Callers => TopBy::Callers,
        }
    }

    /// The orders that it has, and the column of each.
    pub(super) fn orders(self) -> &'static [(TopOrder, usize)] {
        use TopOrder::{Bytes, Clients, Drops, In, Out, Waiting};
        match self {
            Self::Groups => &[(Out, 4), (In, 3), (Bytes, 5), (Drops, 6), (Clients, 2)],
            Self::Clients => &[(Out, 5), (In, 4), (Bytes, 6), (Waiting, 7)],
            Self::Apps => &[(Out, 4), (In, 3), (Bytes, 5), (Drops, 6), (Clients, 1)],
            Self::Workers => &[(Out, 5), (Waiting, 3), (Clients, 2)],
            Self::Callers => &[(Out, 1), (Bytes, 3), (Drops, 4)],
        }
    }

    pub(super) fn columns(self) -> &'static [TopColumn] {
        const GROUPS: &[TopColumn] = &[
            TopColumn::text("GROUP", 0),
            TopColumn::text("HOME", 3),
            TopColumn::number("MEMBERS", 2),
            TopColumn::number("MSG/S", 1),
            TopColumn::number("OUT/S", 0),
            TopColumn::number("BYTES/S", 4),
            TopColumn::number("DROPS/S", 5),
        ];
        const CLIENTS: &[TopColumn] = &[
            TopColumn::id("CLIENT", CLIENT_ID_CHARS),
            TopColumn::text("UID", 2),
            TopColumn::text("GATEWAY", 4),
            TopColumn::text("ADDRESS", 5),
            TopColumn::number("IN/S", 1),
            TopColumn::number("OUT/S", 0),
            TopColumn::number("BYTES/S", 3),
            TopColumn::number("OUTBOX", 1),
        ];
        const APPS: &[TopColumn] = &[
            TopColumn::text("APP", 0),
            TopColumn::number("CLIENTS", 0),
            TopColumn::number("LIMIT", 3),
            TopColumn::number("IN/S", 1),
            TopColumn::number("OUT/S", 0),
            TopColumn::number("BYTES/S", 4),
            TopColumn::number("REFUSED", 2),
        ];
        const WORKERS: &[TopColumn] = &[
            TopColumn::text("WORKER", 0),
            TopColumn::text("SERVICES", 3),
            TopColumn::number("CLIENTS", 2),
            TopColumn::number("UNANSWERED", 0),
            TopColumn::number("OLDEST", 3),
            TopColumn::number("EVENTS/S", 1),
            TopColumn::number("ANSWER", 0),
            TopColumn::number("GATEWAYS", 4),
        ];
        const CALLERS: &[TopColumn] = &[
            TopColumn::text("CALLER", 0),
            TopColumn::number("COMMANDS/S", 0),
            TopColumn::number("SENDS/S", 1),
            TopColumn::number("BYTES/S", 2),
            TopColumn::number("REFUSED/S", 3),
            TopColumn::number("COMMANDS", 1),
            TopColumn::number("LAST", 2),
            TopColumn::text("GATEWAYS", 4),
        ];
        match self {
            Self::Groups => GROUPS,
            Self::Clients => CLIENTS,
            Self::Apps => APPS,
            Self::Workers => WORKERS,
            Self::Callers => CALLERS,
        }
    }

    /// The column by which it is sorted.
    pub(super) fn column(self, order: TopOrder) -> Option<usize> {
        self.orders().iter().find(|(known, _)| *known == order).map(|(_, column)| *column)
    }

    /// The order after this one; the first if it has not this one.
    pub(super) fn next(self, order: TopOrder) -> TopOrder {
        let orders = self.orders();
        let at = orders.iter().position(|(known, _)| *known == order).map_or(0, |at| at + 1);
        orders[at % orders.len()].0
    }
}

impl TopOrder {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
            Self::Bytes => "bytes",
            Self::Waiting => "waiting",
            Self::Drops => "drops",
            Self::Clients => "clients",
        }
    }

    pub(super) fn sort(self) -> TopSort {
        match self {
            Self::Out => TopSort::Out,
            Self::In => TopSort::In,
            Self::Bytes => TopSort::Bytes,
            Self::Waiting => TopSort::Waiting,
            Self::Drops => TopSort::Drops,
            Self::Clients => TopSort::Clients,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_has_a_number_and_every_number_a_name() {
        for view in TopView::ALL {
            let columns = view.columns();
            for (order, column) in view.orders() {
                assert!(columns[*column].right, "{view:?} {order:?}");
                assert_eq!(view.column(*order), Some(*column));
            }
            let mut order = TopOrder::Out;
            for _ in view.orders() {
                order = view.next(order);
            }
            assert_eq!(order, TopOrder::Out, "{view:?} has gone through all");
        }
        assert_eq!(TopView::Workers.next(TopOrder::Bytes), TopOrder::Out, "it has no such order");
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for view in TopView::ALL {
            assert_eq!(TopView::from_str(view.name(), false), Ok(view));
        }
        for order in TopOrder::value_variants() {
            assert_eq!(TopOrder::from_str(order.name(), false), Ok(*order));
        }
    }
}
